package listener

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locum-ha/locum/internal/gather"
	"github.com/locum-ha/locum/internal/quickio"
)

// conn is a client's connection. It reads the PROXY header before anything else, in the goroutine that serves the
// connection and not in the one that accepts, and lets no write wait for ever.
type conn struct {
	net.Conn
	io    io.ReadWriter // of the Conn
	l     *Listener
	since time.Time
	in    *reads
	out   atomic.Pointer[gather.Writer] // nil: writes leave one by one

	proxied  bool      // a PROXY header comes first
	settle   sync.Once // over the reading of it
	settled  error     // why the connection is not served
	client   net.Addr  // nil: the other end of the connection
	believed bool      // X-Forwarded-* are

	mu    sync.Mutex
	limit time.Time // of writes, as the server wishes; zero: none
	armed time.Time // the deadline in force that is ours; zero: not ours
}

func (l *Listener) newConn(nc net.Conn) *conn {
	c := &conn{Conn: nc, io: nc, l: l, since: time.Now()}
	if s := quickio.Of(nc); s != nil {
		c.io = s
	}
	c.in = &reads{Conn: nc, io: c.io}
	if l.cfg.Proxies != nil && l.cfg.Proxies.has(nc.RemoteAddr()) {
		c.proxied = true
	} else {
		c.believed = l.cfg.Forwarders.has(nc.RemoteAddr())
	}
	return c
}

// RemoteAddr is the client's address. The first call may wait for the PROXY header.
func (c *conn) RemoteAddr() net.Addr {
	if c.proxied {
		c.settle.Do(c.readProxy)
		if c.client != nil {
			return c.client
		}
	}
	return c.Conn.RemoteAddr()
}

func (c *conn) authorized() bool {
	if c.proxied {
		c.settle.Do(c.readProxy)
	}
	return c.believed
}

func (c *conn) Read(p []byte) (int, error) {
	if c.proxied {
		c.settle.Do(c.readProxy)
		if c.settled != nil {
			return 0, c.settled
		}
	}
	return c.in.Read(p)
}

// readProxy reads the PROXY header, within a time and a length.
func (c *conn) readProxy() {
	peer := c.Conn.RemoteAddr()
	err := c.Conn.SetReadDeadline(time.Now().Add(c.l.cfg.ReadHeaderTimeout))
	buf := make([]byte, 0, 512)
	for err == nil {
		if len(buf) == cap(buf) { // errProxyMore is never said of so much
			buf = append(make([]byte, 0, maxProxyHeader), buf...)
		}
		var n int
		n, err = c.Conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if n == 0 {
			continue
		}
		source, size, bad := parseProxy(buf)
		if errors.Is(bad, errProxyMore) {
			continue
		}
		if err = bad; err == nil {
			if source.IsValid() {
				c.client = net.TCPAddrFromAddrPort(source)
			}
			c.in.rest = buf[size:]
			break
		}
	}
	if err == nil {
		err = c.Conn.SetReadDeadline(time.Time{})
	}
	if err != nil {
		if len(buf) > 0 || !errors.Is(err, io.EOF) { // else a health check that only connects
			c.l.log.Warn("connection refused: no PROXY header", "listener", c.l.cfg.Address, "peer", peer.String(), "error", err)
		}
		// As a failed read: the server then closes without an answer.
		c.settled = &net.OpError{Op: "read", Net: peer.Network(), Addr: peer, Err: err}
		return
	}
	from := c.client
	if from == nil {
		from = peer
	}
	c.believed = c.l.cfg.Forwarders.has(from)
}

// writePart is how much may be written under one deadline: with it, a minute means a kilobyte each second.
const writePart = 64 << 10

// Write gives up when the client has taken nothing for writeStall.
func (c *conn) Write(p []byte) (int, error) {
	if g := c.out.Load(); g != nil {
		return g.Write(p)
	}
	return c.write(p)
}

// gather has the writes of a connection that speaks HTTP/2 leave together from now on.
func (c *conn) gather() {
	if c.out.Load() == nil {
		c.out.CompareAndSwap(nil, gather.New(writeFunc(c.write)))
	}
}

type writeFunc func(p []byte) (int, error)

func (f writeFunc) Write(p []byte) (int, error) { return f(p) }

// Close sends what was gathered, if the client takes it, and closes.
func (c *conn) Close() error {
	if g := c.out.Load(); g != nil {
		_ = c.SetWriteDeadline(time.Now().Add(gather.LastWords)) // of a closed connection: then nothing waits
		g.Close()
	}
	return c.Conn.Close()
}

func (c *conn) write(p []byte) (int, error) {
	done := 0
	for {
		part := p[done:min(len(p), done+writePart)]
		c.arm()
		n, err := c.io.Write(part)
		done += n
		if err != nil || done == len(p) {
			return done, err
		}
	}
}

// arm moves the deadline of writes on, not at each write. One that the server has set for itself is never passed.
func (c *conn) arm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.armed.Sub(now) > c.l.writeStall/2 {
		return
	}
	until := now.Add(c.l.writeStall)
	if !c.limit.IsZero() && c.limit.Before(until) {
		until = c.limit
	}
	c.armed = until
	_ = c.Conn.SetWriteDeadline(until) // fails on a closed connection, as the write will
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit, c.armed = t, time.Time{}
	return c.Conn.SetWriteDeadline(t)
}

// SetReadDeadline is that of reads.
func (c *conn) SetReadDeadline(t time.Time) error { return c.in.SetReadDeadline(t) }

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetLinger is that of what lies under it.
func (c *conn) SetLinger(sec int) error {
	if t, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		return t.SetLinger(sec)
	}
	return errors.ErrUnsupported
}

// CloseWrite is the half-close of what lies under it.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
