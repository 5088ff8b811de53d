package raft

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// testNet is a network of loopback connections that can be cut, in either direction. A cut direction is a
// black hole: nothing arrives and nobody is told. When it is healed, what was sent arrives late, as TCP
// would have it.
type testNet struct {
	any atomic.Bool // some direction is cut

	mu      sync.Mutex
	cuts    map[[2]string]int
	changed chan struct{}
	addrs   map[string]string // id -> the last address listened on
}

func newTestNet() *testNet {
	return &testNet{cuts: map[[2]string]int{}, changed: make(chan struct{}), addrs: map[string]string{}}
}

// cut makes from -> to a black hole until heal is called.
func (n *testNet) cut(from, to string) (heal func()) {
	n.adjust(from, to, 1)
	return sync.OnceFunc(func() { n.adjust(from, to, -1) })
}

func (n *testNet) adjust(from, to string, by int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cuts[[2]string{from, to}] += by
	on := false
	for _, c := range n.cuts {
		on = on || c > 0
	}
	n.any.Store(on)
	close(n.changed)
	n.changed = make(chan struct{})
}

// isolate cuts id off from all others, both ways.
func (n *testNet) isolate(id string, others ...string) (heal func()) {
	var heals []func()
	for _, other := range others {
		if other != id {
			heals = append(heals, n.cut(id, other), n.cut(other, id))
		}
	}
	return func() {
		for _, h := range heals {
			h()
		}
	}
}

// pass waits until from -> to is open.
func (n *testNet) pass(from, to string, deadline time.Time, closed <-chan struct{}) error {
	if !n.any.Load() {
		return nil
	}
	for {
		n.mu.Lock()
		cut, changed := n.cuts[[2]string{from, to}] > 0, n.changed
		n.mu.Unlock()
		if !cut {
			return nil
		}
		var timer <-chan time.Time
		if !deadline.IsZero() {
			timer = time.After(time.Until(deadline))
		}
		select {
		case <-changed:
		case <-timer:
			return os.ErrDeadlineExceeded
		case <-closed:
			return net.ErrClosed
		}
	}
}

// testLayer is one node's end of the network.
type testLayer struct {
	net *testNet
	id  string
	net.Listener
}

// listen opens node id's end. addr "" takes a free port.
func (n *testNet) listen(id, addr string) (*testLayer, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.addrs[id] = l.Addr().String()
	n.mu.Unlock()
	return &testLayer{net: n, id: id, Listener: l}, nil
}

// Dial reaches id at addr, or fails: the other end refuses a greeting for another.
func (l *testLayer) Dial(ctx context.Context, id, addr string) (net.Conn, error) {
	deadline, _ := ctx.Deadline()
	if err := l.net.pass(l.id, id, deadline, ctx.Done()); err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(conn, "%s %s\n", l.id, id); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return l.net.wrap(conn, conn, l.id, id), nil
}

// Accept takes the next connection whose greeting is for this node.
func (l *testLayer) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		r := bufio.NewReader(conn)
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		line, err := r.ReadString('\n')
		from, to, _ := strings.Cut(strings.TrimSpace(line), " ")
		if err != nil || to != l.id {
			_ = conn.Close()
			continue
		}
		_ = conn.SetReadDeadline(time.Time{})
		return l.net.wrap(conn, r, l.id, from), nil
	}
}

type readerFrom interface{ Read([]byte) (int, error) }

func (n *testNet) wrap(conn net.Conn, r readerFrom, self, peer string) *testConn {
	return &testConn{Conn: conn, r: r, net: n, self: self, peer: peer, closed: make(chan struct{})}
}

type testConn struct {
	net.Conn
	r          readerFrom
	net        *testNet
	self, peer string
	once       sync.Once
	closed     chan struct{}
	read       atomic.Pointer[time.Time]
	write      atomic.Pointer[time.Time]
}

func (c *testConn) PeerID() string { return c.peer }

func at(p *atomic.Pointer[time.Time]) time.Time {
	if t := p.Load(); t != nil {
		return *t
	}
	return time.Time{}
}

func (c *testConn) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if n > 0 {
		if err := c.net.pass(c.peer, c.self, at(&c.read), c.closed); err != nil {
			_ = c.Close() // what was read is gone: so is the connection
			return 0, err
		}
	}
	return n, err
}

func (c *testConn) Write(b []byte) (int, error) {
	if err := c.net.pass(c.self, c.peer, at(&c.write), c.closed); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *testConn) SetDeadline(t time.Time) error {
	c.read.Store(&t)
	c.write.Store(&t)
	return c.Conn.SetDeadline(t)
}

func (c *testConn) SetReadDeadline(t time.Time) error {
	c.read.Store(&t)
	return c.Conn.SetReadDeadline(t)
}

func (c *testConn) SetWriteDeadline(t time.Time) error {
	c.write.Store(&t)
	return c.Conn.SetWriteDeadline(t)
}

func (c *testConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
