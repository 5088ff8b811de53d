package listener

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// ErrSlow is what a handler gets from the body of a client that is too slow. It is an os.ErrDeadlineExceeded.
var ErrSlow = fmt.Errorf("the client sends the request's body too slowly: %w", os.ErrDeadlineExceeded)

// body is a request's body under watch: in each period that somebody waited for the client it must bring so much, and
// it must end within its limit, if there is one.
type body struct {
	io.ReadCloser
	l     *Listener
	ctl   *http.ResponseController
	start time.Time
	timer *time.Timer // runs from the first Read until the end

	mu     sync.Mutex
	since  time.Time     // of the Read that waits; zero: none does
	waited time.Duration // in this period, by Reads that are over
	got    int64         // bytes, in this period
	over   bool          // read to its end, or the handler has returned
	slow   bool
}

// watch puts a request's body under watch until the returned function is called.
func (l *Listener) watch(w http.ResponseWriter, r *http.Request) (end func()) {
	b := &body{ReadCloser: r.Body, l: l, ctl: http.NewResponseController(w), start: time.Now()}
	r.Body = b
	return func() {
		rest, slow := b.end()
		if slow {
			w.WriteHeader(http.StatusRequestTimeout) // unless the handler has answered
		}
		if rest && r.ProtoMajor == 1 && r.Header.Get("Upgrade") == "" {
			// The server reads what is left, so that the connection can be used again; it sets its own deadline after that.
			_ = b.ctl.SetReadDeadline(time.Now().Add(l.bodyLinger))
		}
	}
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	b.since = time.Now()
	if b.timer == nil && !b.over {
		b.timer = time.AfterFunc(b.next(0), b.check)
	}
	b.mu.Unlock()
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waited += time.Since(b.since)
	b.since = time.Time{}
	b.got += int64(n)
	switch {
	case err == io.EOF:
		b.stop()
	case err != nil && b.slow && errors.Is(err, os.ErrDeadlineExceeded):
		err = ErrSlow
	}
	return n, err
}

// check runs when the period may be over.
func (b *body) check() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return
	}
	waited := b.waited
	if !b.since.IsZero() {
		waited += time.Since(b.since)
	}
	late := b.l.cfg.ReadTimeout > 0 && time.Since(b.start) >= b.l.cfg.ReadTimeout
	if rate := b.l.cfg.MinBodyRate; rate > 0 && waited >= b.l.bodyPeriod {
		late = late || b.got < int64(float64(rate)*b.l.bodyPeriod.Seconds())
		b.waited, b.got, waited = 0, 0, 0
		if !b.since.IsZero() {
			b.since = time.Now()
		}
	}
	if late {
		b.slow = true
		b.stop()
		_ = b.ctl.SetReadDeadline(longAgo) // wakes the Read; fails only where the connection is gone
		return
	}
	b.timer.Reset(b.next(waited))
}

// next is when to check again, after so much of the period was waited.
func (b *body) next(waited time.Duration) time.Duration {
	d := time.Duration(1<<63 - 1)
	if b.l.cfg.MinBodyRate > 0 {
		d = max(b.l.bodyPeriod-waited, time.Millisecond)
	}
	if b.l.cfg.ReadTimeout > 0 {
		d = min(d, max(b.l.cfg.ReadTimeout-time.Since(b.start), time.Millisecond))
	}
	return d
}

// stop is called with b.mu held.
func (b *body) stop() {
	b.over = true
	if b.timer != nil {
		b.timer.Stop()
	}
}

// end reports whether the body was not read to its end, and whether that is because it was too slow.
func (b *body) end() (rest, slow bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	rest = !b.over
	b.stop()
	return rest, b.slow
}

var longAgo = time.Unix(1, 0)
