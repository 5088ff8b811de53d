package listener

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/locum-ha/locum/internal/quickio"
)

// conn is a client's connection. It reads the PROXY header before anything else, in the goroutine that serves the
// connection and not in the one that accepts, and lets no write wait for ever.
type conn struct {
	net.Conn
	io    io.ReadWriter // of the Conn
	l     *Listener
	since time.Time

	proxied  bool      // a PROXY header comes first
	settle   sync.Once // over the reading of it
	settled  error     // why the connection is not served
	client   net.Addr  // nil: the other end of the connection
	rest     []byte    // what was read behind the header
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
	if !c.proxied {
		return c.io.Read(p)
	}
	c.settle.Do(c.readProxy)
	if c.settled != nil {
		return 0, c.settled
	}
	if len(c.rest) > 0 {
		n := copy(p, c.rest)
		if c.rest = c.rest[n:]; len(c.rest) == 0 {
			c.rest = nil
		}
		return n, nil
	}
	return c.io.Read(p)
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
			c.rest = buf[size:]
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
