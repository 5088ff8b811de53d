// Package conns keeps hold of the network connections that a client library dials. Libraries end calls and
// connections in their own time, after time-outs of their own when the network swallows everything; whoever
// dials through a [Set] can end them all at once, and so owns what the library has started on them.
package conns

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
)

// Set is the connections dialled through it that are still open. The zero Set is ready for use.
type Set struct {
	mu     sync.Mutex
	open   map[*conn]struct{}
	closed bool
}

// Dial dials as a net.Dialer without settings does, which keeps connections alive by probes. After Close it returns net.ErrClosed.
func (s *Set) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if s.isClosed() {
		return nil, net.ErrClosed
	}
	raw, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return s.keep(raw)
}

func (s *Set) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *Set) keep(raw net.Conn) (net.Conn, error) {
	c := &conn{Conn: raw, set: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = raw.Close()
		return nil, net.ErrClosed
	}
	if s.open == nil {
		s.open = make(map[*conn]struct{})
	}
	s.open[c] = struct{}{}
	return c, nil
}

// Close closes all connections, and those that are just being dialled as soon as they are there.
func (s *Set) Close() {
	s.mu.Lock()
	s.closed = true
	open := s.open
	s.open = nil
	s.mu.Unlock()
	for c := range open {
		_ = c.Conn.Close()
	}
}

type conn struct {
	net.Conn
	set *Set
}

func (c *conn) Close() error {
	c.set.mu.Lock()
	delete(c.set.open, c)
	c.set.mu.Unlock()
	return c.Conn.Close()
}

// SyscallConn lets libraries look whether the other side has closed before they use a connection again: what they send on a
// dead one has no clear outcome.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	raw, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return raw.SyscallConn()
}

var _ syscall.Conn = (*conn)(nil)
