package cache_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/cache"
)

// links join the nodes of a test over loopback and can be cut, in one direction or both: what is sent then
// is lost, as on a network.
type links struct {
	mu    sync.Mutex
	addrs map[string]string
	cut   map[[2]string]bool
	conns map[*link]struct{}
}

type link struct {
	net.Conn
	all      *links
	from, to string
}

func (l *link) Write(b []byte) (int, error) {
	if l.all.isCut(l.from, l.to) {
		return len(b), nil
	}
	return l.Conn.Write(b)
}

func (l *link) Read(b []byte) (int, error) {
	for {
		n, err := l.Conn.Read(b)
		if err != nil || !l.all.isCut(l.to, l.from) {
			return n, err
		}
	}
}

func (l *links) isCut(from, to string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut[[2]string{from, to}]
}

// set cuts or mends a direction. A connection that lost something does not live on.
func (l *links) set(from, to string, cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut[[2]string{from, to}] == cut {
		return
	}
	l.cut[[2]string{from, to}] = cut
	for c := range l.conns {
		if !cut && (c.from == from && c.to == to || c.from == to && c.to == from) {
			_ = c.Conn.Close()
			delete(l.conns, c)
		}
	}
}

type layer struct {
	net.Listener
	all  *links
	self string
}

func (l *layer) Dial(ctx context.Context, host string) (net.Conn, error) {
	l.all.mu.Lock()
	addr, cut := l.all.addrs[host], l.all.cut[[2]string{l.self, host}] || l.all.cut[[2]string{host, l.self}]
	l.all.mu.Unlock()
	if cut {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	if addr == "" {
		return nil, errors.New("connection refused")
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &link{Conn: conn, all: l.all, from: l.self, to: host}
	l.all.mu.Lock()
	l.all.conns[c] = struct{}{}
	l.all.mu.Unlock()
	return c, nil
}

type member struct {
	node   *cache.Node
	cancel context.CancelFunc
	done   chan error
}

type group struct {
	t       *testing.T
	all     *links
	hosts   []string
	mu      sync.Mutex
	members map[string]*member
}

func newGroup(t *testing.T, n int) *group {
	g := &group{t: t, all: &links{addrs: map[string]string{}, cut: map[[2]string]bool{}, conns: map[*link]struct{}{}}, members: map[string]*member{}}
	for i := range n {
		g.hosts = append(g.hosts, fmt.Sprintf("n%d:1", i))
	}
	for _, h := range g.hosts {
		g.start(h)
	}
	t.Cleanup(func() {
		for _, h := range g.hosts {
			g.stop(h)
		}
	})
	g.await(cache.Good)
	return g
}

func (g *group) start(host string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		g.t.Fatal(err)
	}
	g.all.mu.Lock()
	g.all.addrs[host] = ln.Addr().String()
	g.all.mu.Unlock()
	n, err := cache.New(cache.Config{
		Hosts: g.hosts, Self: host, Layer: &layer{Listener: ln, all: g.all, self: host},
		ElectionTimeout: 300 * time.Millisecond, QuorumLossTimeout: 1200 * time.Millisecond,
	})
	if err != nil {
		g.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{node: n, cancel: cancel, done: make(chan error, 1)}
	go func() { m.done <- n.Run(ctx) }()
	g.mu.Lock()
	g.members[host] = m
	g.mu.Unlock()
}

func (g *group) stop(host string) {
	g.all.mu.Lock()
	delete(g.all.addrs, host)
	g.all.mu.Unlock()
	g.mu.Lock()
	m := g.members[host]
	g.mu.Unlock()
	m.cancel()
	if err := <-m.done; err != nil {
		g.t.Error(err)
	}
	m.done <- nil
}

func (g *group) nodes() []node {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []node
	for host, m := range g.members {
		all = append(all, local{m.node, host})
	}
	return all
}

func (g *group) await(status cache.Status) {
	g.t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; <-ticker.C {
		ok := true
		for _, h := range g.hosts {
			ok = ok && g.members[h].node.Health().Status == status
		}
		if ok {
			return
		}
		if time.Now().After(deadline) {
			for _, h := range g.hosts {
				g.t.Logf("%s: %+v", h, g.members[h].node.Health())
			}
			g.t.Fatalf("the nodes are not all %v", status)
		}
	}
}

func duration(short, long time.Duration) time.Duration {
	if os.Getenv("LOCUM_FAULTS") != "" {
		return long
	}
	return short
}

// TestHistoriesOverLinks: linearizable for quorum and consistent reads, under partitions, one-way links, short
// cuts and orderly restarts, of a minority at a time (P11).
func TestHistoriesOverLinks(t *testing.T) {
	g := newGroup(t, 3)
	ctx, cancel := context.WithCancel(t.Context())
	r := newRecorder()
	wg := r.clients(ctx, 8, g.nodes)
	rnd := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 2))
	end := time.Now().Add(duration(8*time.Second, 2*time.Minute))
	for i := 0; time.Now().Before(end); i++ {
		a := g.hosts[rnd.IntN(3)]
		others := make([]string, 0, 2)
		for _, h := range g.hosts {
			if h != a {
				others = append(others, h)
			}
		}
		cut := func(on bool, pairs ...[2]string) {
			for _, p := range pairs {
				g.all.set(p[0], p[1], on)
			}
		}
		b, c := others[0], others[1]
		var pairs [][2]string
		switch rnd.IntN(5) {
		case 0: // alone
			pairs = [][2]string{{a, b}, {b, a}, {a, c}, {c, a}}
		case 1: // one way to all
			pairs = [][2]string{{a, b}, {a, c}}
		case 2: // one way from all
			pairs = [][2]string{{b, a}, {c, a}}
		case 3: // one link
			pairs = [][2]string{{a, b}, {b, a}}
		case 4:
			g.stop(a)
			pace(ctx, time.Duration(rnd.IntN(400))*time.Millisecond)
			g.start(a)
		}
		cut(true, pairs...)
		pace(ctx, time.Duration(50+rnd.IntN(2000))*time.Millisecond)
		cut(false, pairs...)
		g.await(cache.Good)
	}
	cancel()
	wg.Wait()
	r.check(t, 300)
}

// TestShortCut: a short cut of one link changes nothing: no election, nobody empties itself, no error.
func TestShortCut(t *testing.T) {
	g := newGroup(t, 3)
	terms := map[string]uint64{}
	for h, m := range g.members {
		terms[h] = m.node.Health().Term
	}
	for _, h := range g.hosts[1:] {
		for _, way := range [][2]string{{g.hosts[0], h}, {h, g.hosts[0]}} {
			g.all.set(way[0], way[1], true)
			pace(t.Context(), 100*time.Millisecond)
			g.all.set(way[0], way[1], false)
			for host, m := range g.members {
				if _, err := m.node.Cache("c").Put(t.Context(), "k", nil, cache.NoExpiry, cache.Quorum); err != nil && !errors.Is(err, cache.ErrUnknown) {
					t.Fatal(host, err)
				}
			}
		}
	}
	for h, m := range g.members {
		if m.node.Health().Term != terms[h] || m.node.Stats().Emptied != 0 {
			t.Errorf("%s: term %d after %d, emptied %d times", h, m.node.Health().Term, terms[h], m.node.Stats().Emptied)
		}
	}
}
