package cluster

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
)

// RaftLayer carries the embedded store's messages over the cluster port: each dialled connection reaches
// exactly the identity that it is meant for, and each accepted one knows who sent it.
type RaftLayer struct {
	port     *Port
	identity *PeerIdentity
	incoming chan *Conn
	closing  chan struct{}
	close    func()
}

// NewRaftLayer registers [ALPNRaft] on the port, which opens it if it was not. Close removes it.
func NewRaftLayer(port *Port, identity *PeerIdentity) (*RaftLayer, error) {
	l := &RaftLayer{
		port:     port,
		identity: identity,
		incoming: make(chan *Conn),
		closing:  make(chan struct{}),
	}
	remove, err := port.Handle(Protocol{ALPN: ALPNRaft, TLS: identity.ServerTLS, Serve: l.serve})
	if err != nil {
		return nil, err
	}
	l.close = sync.OnceFunc(func() {
		close(l.closing)
		remove()
	})
	return l, nil
}

// serve offers the connection to Accept and keeps it until it is closed.
func (l *RaftLayer) serve(ctx context.Context, tlsConn *tls.Conn) {
	conn := newConn(tlsConn)
	select {
	case l.incoming <- conn:
	case <-ctx.Done():
		return
	}
	select {
	case <-conn.closed:
	case <-ctx.Done():
	}
}

// Accept returns the next connection of a peer, or net.ErrClosed after Close.
func (l *RaftLayer) Accept() (net.Conn, error) {
	select {
	case conn := <-l.incoming:
		return conn, nil
	case <-l.closing:
		return nil, net.ErrClosed
	}
}

// Dial connects to the node with this identity at addr (host:port). [ErrPeer] if another node answers there.
func (l *RaftLayer) Dial(ctx context.Context, id, addr string) (net.Conn, error) {
	conn, err := Dial(ctx, addr, l.identity.ClientTLS(ALPNRaft, id))
	if err != nil {
		return nil, err
	}
	return newConn(conn), nil
}

// Close removes the protocol from the port and cuts the accepted connections. Dialled ones are their
// dialler's to close.
func (l *RaftLayer) Close() error {
	l.close()
	return nil
}

// Addr returns the address of the cluster port.
func (l *RaftLayer) Addr() net.Addr { return l.port.Addr() }

// Conn is a connection between two nodes that knows its peer. Its Close does not wait for a peer that does
// not read.
type Conn struct {
	net.Conn
	peer   string
	closed chan struct{}
	once   func() error
}

func newConn(conn *tls.Conn) *Conn {
	c := &Conn{Conn: conn, peer: PeerID(conn), closed: make(chan struct{})}
	c.once = sync.OnceValue(func() error {
		close(c.closed)
		return conn.NetConn().Close()
	})
	return c
}

// PeerID returns the identity that the other side proved.
func (c *Conn) PeerID() string { return c.peer }

// Close cuts the connection. A second Close does nothing.
func (c *Conn) Close() error { return c.once() }
