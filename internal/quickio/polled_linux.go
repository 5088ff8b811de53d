package quickio

import (
	"io"
	"net"
	"sync/atomic"
	"syscall"
)

// Polled is a connection on which a goroutine that waits for something may look for it, again and again, without waiting: what comes
// within microseconds is had sooner, and for less, than by one that sleeps and is woken.
type Polled struct {
	net.Conn
	s     *Socket
	never atomic.Bool // does Read wait

	// under s.in.mu
	first [4 << 10]byte // what Wait was woken by is read into it
	rest  []byte        // of that
	empty bool          // the last read took all that was there
	once  func(fd uintptr)
	fill  func(fd uintptr) bool // both as RawConn wants them. Made once
}

// Poll returns conn as a Polled; one that has no socket, as it is.
func Poll(conn net.Conn) net.Conn {
	s := Of(conn)
	if s == nil {
		return conn
	}
	c := &Polled{Conn: conn, s: s}
	c.once = func(fd uintptr) {
		if !s.in.read(fd) {
			s.in.err = syscall.EAGAIN
		}
	}
	c.fill = c.filled
	return c
}

// PolledOf returns the Polled that conn is, or is made of; nil if there is none.
func PolledOf(conn net.Conn) *Polled {
	for {
		switch c := conn.(type) {
		case *Polled:
			return c
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return nil
		}
	}
}

// NoWait has Read never wait from now on.
func (c *Polled) NoWait() { c.never.Store(true) }

// Read is the connection's until NoWait; from then on its error is ErrAgain if there is nothing. It may say so too early, but then Wait
// returns at once.
func (c *Polled) Read(p []byte) (int, error) {
	if !c.never.Load() {
		return c.s.Read(p)
	}
	if len(p) == 0 {
		return 0, nil
	}
	w := &c.s.in
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(c.rest) > 0 {
		n := copy(p, c.rest)
		c.rest = c.rest[n:]
		return n, nil
	}
	if c.empty {
		c.empty = false
		return 0, ErrAgain
	}
	w.p, w.n, w.err = p, 0, 0
	err := c.s.raw.Control(c.once)
	w.p = nil
	switch {
	case err != nil:
		return 0, err
	case w.err == syscall.EAGAIN:
		return 0, ErrAgain
	case w.err != 0:
		return 0, c.s.failed("read", w.err)
	case w.n == 0:
		return 0, io.EOF
	}
	c.empty = w.n < min(len(p), most)
	return w.n, nil
}

// Write is the connection's.
func (c *Polled) Write(p []byte) (int, error) { return c.s.Write(p) }

// Wait returns when there is something to be read, or the connection has ended: Read says which. Its error is that it was closed here.
// One goroutine at a time may wait, while others read, after NoWait.
func (c *Polled) Wait() error { return c.s.raw.Read(c.fill) }

// filled reads what there is, and does not only look: the poller tells of what comes after a read that found nothing.
func (c *Polled) filled(fd uintptr) bool {
	w := &c.s.in
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(c.rest) > 0 {
		return true
	}
	w.p, w.n, w.err = c.first[:], 0, 0
	there := w.read(fd)
	w.p = nil
	c.rest, c.empty = c.first[:w.n], there && 0 < w.n && w.n < len(c.first)
	return there
}

// Yield lets other programs run on this processor, if one waits for it.
func Yield() { _, _, _ = syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0) }
