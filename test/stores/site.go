package stores

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/test/cluster"
)

// T is what a site needs of a test or a benchmark.
type T = storeserver.T

// Server is one data store that runs.
type Server struct {
	Addr string // host:port
	// Restart ends the server as a crash does, and starts it again on its data. nil: a fake, which seems to the nodes not to run
	// for a second.
	Restart func() error
	// Block is the label and body of the configuration block that leads to it through address.
	Block func(address string) (label, body string)
}

// Site is a data store, or two, with proxies.
type Site struct {
	TTL time.Duration // lock_ttl; 0: the store's default

	t       T
	entries Server
	lock    *Server // nil: the lock is kept where the entries are

	mu    sync.Mutex
	store map[int][]*storeserver.Proxy // by node: to the entries, and to the lock
	peers map[int]*storeserver.Proxy   // by node: before its cluster port
}

// NewSite makes a site of a store, and of another one for the lock where there is one.
func NewSite(t T, entries Server, lock *Server) *Site {
	return &Site{t: t, entries: entries, lock: lock, store: map[int][]*storeserver.Proxy{}, peers: map[int]*storeserver.Proxy{}}
}

// Direct is for a cluster without proxies: they would take their part of what a benchmark measures.
func (s Server) Direct() cluster.Options {
	return cluster.Options{Storage: func(*cluster.Node) string {
		label, body := s.Block(s.Addr)
		return fmt.Sprintf("storage %q {\n%s}\n", label, body)
	}}
}

// Options are for a cluster on this site.
func (s *Site) Options() cluster.Options {
	return cluster.Options{Storage: s.storage, Advertise: s.advertise, Extra: func(*cluster.Node) string {
		if s.TTL == 0 {
			return ""
		}
		return fmt.Sprintf("ha {\n  lock_ttl = %q\n}\n", s.TTL)
	}}
}

func (s *Site) storage(n *cluster.Node) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store[n.Index] == nil {
		s.store[n.Index] = append(s.store[n.Index], storeserver.NewProxy(s.t, s.entries.Addr))
		if s.lock != nil {
			s.store[n.Index] = append(s.store[n.Index], storeserver.NewProxy(s.t, s.lock.Addr))
		}
	}
	label, body := s.entries.Block(s.store[n.Index][0].Addr())
	text := fmt.Sprintf("storage %q {\n%s}\n", label, body)
	if s.lock != nil {
		label, body = s.lock.Block(s.store[n.Index][1].Addr())
		text += fmt.Sprintf("ha_storage %q {\n%s}\n", label, body)
	}
	return text
}

func (s *Site) advertise(n *cluster.Node) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.peers[n.Index] == nil {
		s.peers[n.Index] = storeserver.NewProxy(s.t, n.ClusterAddress())
	}
	return s.peers[n.Index].Addr()
}

// CutStore makes a black hole of everything between a node and the data stores.
func (s *Site) CutStore(n *cluster.Node) (heal func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	proxies := s.store[n.Index]
	for _, p := range proxies {
		p.Stall()
	}
	return func() {
		for _, p := range proxies {
			p.Heal()
		}
	}
}

// CutPeers makes a black hole of everything that the other nodes send to a node's cluster port.
func (s *Site) CutPeers(n *cluster.Node) (heal func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peers[n.Index]
	p.Stall()
	return p.Heal
}

// RestartStore restarts the store with the entries, and the lock's.
func (s *Site) RestartStore(ctx context.Context) error {
	for i, one := range []*Server{&s.entries, s.lock} {
		switch {
		case one == nil:
		case one.Restart == nil:
			s.seemRestarted(ctx, i)
		default:
			if err := one.Restart(); err != nil {
				return err
			}
		}
	}
	return nil
}

// seemRestarted refuses all connections to the entries' store (0) or the lock's (1) for a second.
func (s *Site) seemRestarted(ctx context.Context, which int) {
	s.mu.Lock()
	var proxies []*storeserver.Proxy
	for _, of := range s.store {
		proxies = append(proxies, of[which])
	}
	s.mu.Unlock()
	for _, p := range proxies {
		p.Refuse()
	}
	after(ctx, time.Second)
	for _, p := range proxies {
		p.Heal()
	}
}
