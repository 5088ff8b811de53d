package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/locum-ha/locum/cluster"
	"github.com/locum-ha/locum/physical"
)

// cacheLayer carries the cache of a full node over the cluster port, between the members of the cluster: with their identities, so that
// it needs no token and no list of hosts. While the node is sealed it carries nothing, and the cache empties itself.
type cacheLayer struct {
	port    *cluster.Port
	self    string                          // host:port of this node's cluster port
	members func() ([]physical.Peer, error) // of the embedded store

	incoming chan net.Conn
	ended    chan struct{}
	end      func()

	mu       sync.Mutex
	identity *cluster.PeerIdentity // nil while sealed
	remove   func()
	ids      map[string]string // of the members, by address
	dialled  map[*cacheConn]struct{}
}

// membersEvery is how often the cache's list of hosts is compared with the members.
const membersEvery = 500 * time.Millisecond

func newCacheLayer(port *cluster.Port, self string, members func() ([]physical.Peer, error)) *cacheLayer {
	l := &cacheLayer{port: port, self: self, members: members, incoming: make(chan net.Conn), ended: make(chan struct{}), dialled: map[*cacheConn]struct{}{}}
	l.end = sync.OnceFunc(func() { close(l.ended) })
	return l
}

// attach begins to carry, as the node with this identity. A nil layer carries nothing.
func (l *cacheLayer) attach(identity *cluster.PeerIdentity) error {
	if l == nil {
		return nil
	}
	remove, err := l.port.Handle(cluster.Protocol{ALPN: cluster.ALPNCache, TLS: identity.ServerTLS, Serve: l.serve})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.identity, l.remove = identity, remove
	return nil
}

// detach ends carrying: the node is to be sealed.
func (l *cacheLayer) detach() {
	if l == nil {
		return
	}
	l.mu.Lock()
	remove := l.remove
	l.identity, l.remove = nil, nil
	dialled := l.dialled
	l.dialled = map[*cacheConn]struct{}{}
	l.mu.Unlock()
	for c := range dialled {
		_ = c.Close()
	}
	if remove != nil {
		remove()
	}
}

func (l *cacheLayer) serve(ctx context.Context, conn *tls.Conn) {
	c := newCacheConn(conn)
	select {
	case l.incoming <- c:
	case <-l.ended:
		return
	case <-ctx.Done():
		return
	}
	select {
	case <-c.closed:
	case <-ctx.Done():
	}
}

// Accept returns the next connection of a member, net.ErrClosed after Close.
func (l *cacheLayer) Accept() (net.Conn, error) {
	select {
	case c := <-l.incoming:
		return c, nil
	case <-l.ended:
		return nil, net.ErrClosed
	}
}

// Dial connects to the member with this address, and to no other node.
func (l *cacheLayer) Dial(ctx context.Context, host string) (net.Conn, error) {
	l.mu.Lock()
	identity, id := l.identity, l.ids[host]
	l.mu.Unlock()
	if identity == nil {
		return nil, errors.New("the node is sealed")
	}
	if id == "" {
		return nil, fmt.Errorf("%s is no member of the cluster", host)
	}
	conn, err := cluster.Dial(ctx, host, identity.ClientTLS(cluster.ALPNCache, id))
	if err != nil {
		return nil, err
	}
	c := newCacheConn(conn)
	c.ended = func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.dialled, c)
	}
	l.mu.Lock()
	sealed := l.identity != identity
	if !sealed {
		l.dialled[c] = struct{}{}
	}
	l.mu.Unlock()
	if sealed {
		return nil, errors.Join(errors.New("the node is sealed"), c.Close())
	}
	return c, nil
}

// Close makes Accept end.
func (l *cacheLayer) Close() error {
	l.end()
	l.detach()
	return nil
}

// Addr returns the address of the cluster port.
func (l *cacheLayer) Addr() net.Addr {
	if addr := l.port.Addr(); addr != nil {
		return addr
	}
	return &net.TCPAddr{}
}

// cacheConn is a connection whose Close does not wait for a peer that does not read.
type cacheConn struct {
	*tls.Conn
	closed chan struct{}
	ended  func() // may be nil
	once   func() error
}

func newCacheConn(conn *tls.Conn) *cacheConn {
	c := &cacheConn{Conn: conn, closed: make(chan struct{})}
	c.once = sync.OnceValue(func() error {
		close(c.closed)
		if c.ended != nil {
			c.ended()
		}
		return conn.NetConn().Close()
	})
	return c
}

// Close cuts the connection.
func (c *cacheConn) Close() error { return c.once() }

// hosts returns the members' addresses, in the same order on every node; nil while they are not known, or this node is not one.
func (l *cacheLayer) hosts() []string {
	peers, err := l.members()
	if err != nil {
		return nil
	}
	slices.SortFunc(peers, func(a, b physical.Peer) int { return strings.Compare(a.ID, b.ID) })
	var hosts []string
	ids := map[string]string{}
	for _, p := range peers {
		if p.Addr == "" {
			return nil // a member was taken in, and where it is has not come here yet
		}
		if ids[p.Addr] == "" {
			hosts = append(hosts, p.Addr)
		}
		ids[p.Addr] = p.ID
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ids = ids
	if l.identity == nil || !slices.Contains(hosts, l.self) {
		return nil
	}
	return hosts
}

// await returns the members as soon as the node is one of them and unsealed; nil if ctx ends first.
func (l *cacheLayer) await(ctx context.Context) []string {
	for {
		if hosts := l.hosts(); hosts != nil {
			return hosts
		}
		if !pauseFor(ctx, membersEvery/5) {
			return nil
		}
	}
}

// followMembers keeps the cache's hosts those that are members, until ctx ends.
func (p *cachePart) followMembers(ctx context.Context) {
	for pauseFor(ctx, membersEvery) {
		if hosts := p.layer.hosts(); hosts != nil {
			if err := p.node.SetHosts(hosts); err != nil {
				p.log.Warn("the cache could not take the members over", "error", err)
			}
		}
	}
}
