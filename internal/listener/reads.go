package listener

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// reads is the reading side of a connection. net/http sets the deadline of reads several times per request, nearly always to
// a later one or to none, and its HTTP/2 reads a frame's head by itself: system calls and timers that a short request should not
// pay for. So the deadline that is in force may be earlier than the one that is wanted, never later: a read that it
// ends is begun anew.
type reads struct {
	net.Conn
	io io.Reader // of the Conn

	mu      sync.Mutex
	want    time.Time // zero: none
	applied time.Time // never later than want, while somebody reads
	reading int

	rest []byte // is read first
	buf  []byte // what small reads are served from; nil: they are not
}

// The head that begins every frame of HTTP/2 (RFC 9113 §4.1), which nobody reads so little of anything else for, and what one
// read may bring where frames are read.
const (
	frameHead   = 9
	frameBuffer = 4 << 10
)

func (r *reads) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if len(p) == frameHead && r.buf == nil {
			r.buf = make([]byte, frameBuffer)
		}
		if r.buf == nil || len(p) >= frameBuffer {
			return r.read(p)
		}
		n, err := r.read(r.buf)
		if err != nil {
			return 0, err
		}
		r.rest = r.buf[:n]
	}
	n := copy(p, r.rest)
	if r.rest = r.rest[n:]; len(r.rest) == 0 {
		r.rest = nil
	}
	return n, nil
}

// read waits until the wanted deadline.
func (r *reads) read(p []byte) (int, error) {
	for {
		r.mu.Lock()
		if !r.want.IsZero() && (r.applied.IsZero() || r.applied.After(r.want)) {
			r.apply()
		}
		r.reading++
		r.mu.Unlock()
		n, err := r.io.Read(p)
		r.mu.Lock()
		r.reading--
		early := n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && (r.want.IsZero() || time.Now().Before(r.want))
		if early {
			r.apply()
		}
		r.mu.Unlock()
		if !early {
			return n, err
		}
	}
}

// apply is called with r.mu held.
func (r *reads) apply() {
	r.applied = r.want
	_ = r.Conn.SetReadDeadline(r.want) // fails on a closed connection, as the read will
}

// SetReadDeadline is in force for a read that waits at once, and for others when they begin.
func (r *reads) SetReadDeadline(t time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.want = t
	if r.reading > 0 {
		r.applied = t
		return r.Conn.SetReadDeadline(t)
	}
	return nil
}
