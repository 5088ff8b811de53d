// Package gather puts what many goroutines, or one in many small pieces, write to a connection into few system calls.
//
// # Design
//
// net/http's HTTP/2 flushes a frame as soon as it has no other at hand, and it has none before whoever writes has been told
// that the last one is out: head, body and trailers of a short answer, and the window updates for its request, leave one
// by one, each by a change of goroutine and a system call that wakes the other end. Here a write is only noted, and a
// goroutine that is started behind those that are about to write sends all of it.
package gather

import (
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/locum-ha/locum/internal/quickio"
)

// limit is how much may be waiting: beyond it a write waits.
const limit = 64 << 10

// turns is how often who sends lets others go first: a frame passes through two more goroutines until the next is written. Where
// nobody else has anything to do it costs nothing.
const turns = 3

// LastWords is how long the rest may take to leave a connection that is closed.
const LastWords = 250 * time.Millisecond

// ErrClosed is that of a write after Close.
var ErrClosed = errors.New("gather: closed")

// Writer gathers. A write that it takes may still fail; then the next one says so.
type Writer struct {
	w io.Writer

	mu     sync.Mutex
	change sync.Cond // something has left, or err is set, or nobody sends any more
	buf    []byte
	spare  []byte
	busy   bool // a goroutine sends, or is about to
	err    error
}

// New gathers what goes to w.
func New(w io.Writer) *Writer {
	g := &Writer{w: w}
	g.change.L = &g.mu
	return g
}

// Write notes p, which may be used again at once.
func (g *Writer) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.err == nil && len(g.buf) >= limit {
		g.change.Wait()
	}
	if g.err != nil {
		return 0, g.err
	}
	g.buf = append(g.buf, p...)
	if !g.busy {
		g.busy = true
		go g.send() // Close waits for it
	}
	return len(p), nil
}

// send writes until there is nothing more.
func (g *Writer) send() {
	for range turns {
		runtime.Gosched() // behind those who are about to add something
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.buf) > 0 {
		b := g.buf
		g.buf, g.spare = g.spare, nil
		g.mu.Unlock()
		_, err := g.w.Write(b)
		g.mu.Lock()
		g.spare = b[:0]
		if err != nil {
			g.err, g.buf = err, nil
		}
		g.change.Broadcast()
	}
	g.buf, g.spare = nil, nil // an idle connection keeps nothing
	g.busy = false
	g.change.Broadcast()
}

// Close waits until everything has been sent, or could not be. The caller bounds that by a deadline on the connection.
func (g *Writer) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.busy {
		g.change.Wait()
	}
	if g.err == nil {
		g.err = ErrClosed
	}
}

// Conn is a connection whose writes are gathered.
type Conn struct {
	net.Conn
	w *Writer
}

// NewConn gathers what is written to nc.
func NewConn(nc net.Conn) *Conn {
	if s := quickio.Of(nc); s != nil {
		return &Conn{Conn: nc, w: New(s)}
	}
	return &Conn{Conn: nc, w: New(nc)}
}

func (c *Conn) Write(p []byte) (int, error) { return c.w.Write(p) }

// Close sends the rest, if the other end takes it, and closes.
func (c *Conn) Close() error {
	_ = c.Conn.SetWriteDeadline(time.Now().Add(LastWords)) // of a closed connection: then nothing waits
	c.w.Close()
	return c.Conn.Close()
}
