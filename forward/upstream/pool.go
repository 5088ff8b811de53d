package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/locum-ha/locum/internal/quickio"
)

// readBuffer is what one Read of the application's answer may bring.
const readBuffer = 16 << 10

var errBusy = errors.New("upstream: the application has as many connections as it may")

// errUpgraded: the application speaks HTTP/2 now. Nothing was sent.
var errUpgraded = errors.New("upstream: the application has changed to HTTP/2")

// errHead: an answer's head is longer than Config.MaxHeaderBytes.
var errHead = errors.New("the head of the answer is too long")

// conn is a connection to the application, used by one request at a time.
type conn struct {
	net.Conn
	io   io.ReadWriter // of the Conn
	u    *Upstream
	raw  syscall.RawConn // nil where the system cannot be asked about it
	br   *bufio.Reader
	wbuf []byte // the request's head, and what goes with it
	idle time.Time

	head  int   // how many bytes of a head may still be read; -1: no limit
	ended error // why nothing more can be read; nil while something can

	peek func(fd uintptr) bool
	dead bool
}

// Read counts the head's bytes.
func (c *conn) Read(p []byte) (int, error) {
	if c.head == 0 {
		return 0, errHead
	}
	if c.head > 0 && len(p) > c.head {
		p = p[:c.head]
	}
	n, err := c.io.Read(p)
	if err != nil {
		c.ended = err
	}
	if c.head > 0 {
		c.head -= n
	}
	return n, err
}

func (c *conn) Write(p []byte) (int, error) { return c.io.Write(p) }

// interrupt ends whatever waits on the connection.
func (c *conn) interrupt() { _ = c.Conn.SetDeadline(time.Unix(1, 0)) }

// alive asks the system whether the application has closed the connection, or has said anything unasked.
func (c *conn) alive() bool {
	if c.raw == nil {
		return true
	}
	c.dead = false
	if c.raw.Read(c.peek) != nil {
		return false
	}
	return !c.dead
}

func (c *conn) look(fd uintptr) bool {
	var b [1]byte
	_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	switch {
	case errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR):
	default: // the end; or something unasked, which with TLS is the end announced, or else a ticket that is not missed
		c.dead = true
	}
	return true
}

// pool keeps connections for the next requests, the last used first.
type pool struct {
	u *Upstream

	mu     sync.Mutex
	idle   []*conn
	open   int
	timer  *time.Timer // runs while there are idle ones
	closed bool
}

// get returns a connection that waits, or a new one. The error says that nothing was sent.
func (p *pool) get(ctx context.Context) (*conn, error) {
	for {
		p.mu.Lock()
		if n := len(p.idle); n > 0 {
			c := p.idle[n-1]
			p.idle[n-1] = nil
			p.idle = p.idle[:n-1]
			p.mu.Unlock()
			if c.alive() {
				return c, nil
			}
			p.discard(c)
			continue
		}
		if p.open >= p.u.cfg.MaxConns {
			p.mu.Unlock()
			return nil, errBusy
		}
		p.open++
		p.mu.Unlock()
		c, err := p.dial(ctx)
		if err != nil {
			p.mu.Lock()
			p.open--
			p.mu.Unlock()
		}
		return c, err
	}
}

func (p *pool) dial(ctx context.Context) (*conn, error) {
	nc, err := p.u.dial(ctx)
	if err != nil {
		return nil, err
	}
	c := &conn{u: p.u, head: -1}
	c.peek = c.look
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw = raw
		}
	}
	c.Conn, c.io = nc, nc
	if s := quickio.Of(nc); s != nil {
		c.io = s
	}
	if p.u.tls != nil {
		secure, err := p.u.secure(ctx, nc)
		if err != nil {
			return nil, err
		}
		if secure.ConnectionState().NegotiatedProtocol == "h2" { // it spoke HTTP/1.1 once, and was upgraded
			_ = secure.Close()
			p.u.negotiated.Store(0) // the request comes again, and asks anew
			return nil, errUpgraded
		}
		c.Conn, c.io = secure, secure
	}
	c.br = bufio.NewReaderSize(c, readBuffer)
	return c, nil
}

// put takes back a connection whose answer was read to its end, if it may be used again.
func (p *pool) put(c *conn, again bool) {
	if !again || c.br.Buffered() > 0 {
		p.discard(c)
		return
	}
	if cap(c.wbuf) > 64<<10 {
		c.wbuf = nil
	}
	c.idle = time.Now()
	p.mu.Lock()
	if p.closed || len(p.idle) >= p.u.cfg.MaxIdle {
		p.mu.Unlock()
		p.discard(c)
		return
	}
	p.idle = append(p.idle, c)
	if p.timer == nil {
		p.timer = time.AfterFunc(p.u.cfg.IdleTimeout, p.expire)
	}
	p.mu.Unlock()
}

// discard closes a connection for good.
func (p *pool) discard(c *conn) {
	_ = c.Close()
	p.release()
}

// release forgets a connection that somebody else closes, or has closed.
func (p *pool) release() {
	p.mu.Lock()
	p.open--
	p.mu.Unlock()
}

// expire closes those that were not used for too long: they lie at the bottom.
func (p *pool) expire() {
	p.mu.Lock()
	now, n := time.Now(), 0
	for n < len(p.idle) && now.Sub(p.idle[n].idle) >= p.u.cfg.IdleTimeout {
		n++
	}
	old := append([]*conn(nil), p.idle[:n]...)
	p.idle = append(p.idle[:0], p.idle[n:]...)
	p.timer = nil
	if len(p.idle) > 0 && !p.closed {
		p.timer = time.AfterFunc(p.u.cfg.IdleTimeout-now.Sub(p.idle[0].idle), p.expire)
	}
	p.mu.Unlock()
	for _, c := range old {
		p.discard(c)
	}
}

func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	old := p.idle
	p.idle = nil
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	p.mu.Unlock()
	for _, c := range old {
		p.discard(c)
	}
}

// closeWrite is the half-close of whatever connection it is; one that has none is closed.
func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		return
	}
	_ = c.Close()
}

// abort closes so that the other end does not take what it got for whole.
func abort(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}
