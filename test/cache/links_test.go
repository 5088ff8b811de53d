package cache_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
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
	timeout time.Duration // ElectionTimeout
	mu      sync.Mutex
	members map[string]*member
}

func newGroup(t *testing.T, n int, timeout time.Duration) *group {
	g := &group{t: t, timeout: timeout, all: &links{addrs: map[string]string{}, cut: map[[2]string]bool{}, conns: map[*link]struct{}{}}, members: map[string]*member{}}
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
		ElectionTimeout: g.timeout, QuorumLossTimeout: g.timeout * 16 / 3,
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

func (g *group) node(host string) *cache.Node {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.members[host].node
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
// cuts and orderly restarts, the leader's most often, of a minority at a time (P11). Five hosts commit in another way than three.
func TestHistoriesOverLinks(t *testing.T) {
	for _, size := range []int{3, 5} {
		t.Run(fmt.Sprint(size), func(t *testing.T) { historiesOverLinks(t, size) })
	}
}

func historiesOverLinks(t *testing.T, size int) {
	g := newGroup(t, size, 300*time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	s := &sessions{t: t, find: g.node}
	alone := s.run(ctx, g.hosts)
	r := newRecorder(size)
	wg := r.clients(ctx, 8, g.nodes)
	rnd := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 2))
	end := time.Now().Add(duration(4*time.Second, time.Minute))
	lost := 0 // hosts that lost their data, at one time
	for i := 0; time.Now().Before(end); i++ {
		leads := g.leads()
		victims, what, lasts := g.choose(rnd, leads), fault(rnd.IntN(5)), time.Duration(50+rnd.IntN(2000))*time.Millisecond
		switch {
		case i < size-2: // a leader hands over, with much under way
			victims, what, lasts = []string{leads}, restarted, 0
		case i == size-2: // a follower does not reach the leader for a while, and keeps its data
			victims, what, lasts = []string{g.others(leads)[0]}, oneLink, time.Second
		}
		others := g.others(victims...)
		before := g.emptied(others)
		g.suffer(ctx, what, victims, lasts)
		g.await(cache.Good)
		if lost = len(victims) + g.emptied(others) - before; lost > (size-1)/2 {
			break
		}
	}
	cancel()
	wg.Wait()
	alone()
	if lost > (size-1)/2 { // then the contents are lost, too
		t.Skipf("no verdict: a minority was cut off, and this machine stood still for so long that %d of %d hosts gave up", lost, size)
	}
	r.check(t, 50)
}

// emptied counts how often hosts gave their data up.
func (g *group) emptied(hosts []string) (n int) {
	for _, h := range hosts {
		n += int(g.node(h).Stats().Emptied)
	}
	return n
}

// leads returns the leader, anyone if there is none.
func (g *group) leads() string {
	return g.hosts[max(0, slices.IndexFunc(g.hosts, func(h string) bool { return g.node(h).IsLeader() }))]
}

func (g *group) others(hosts ...string) []string {
	return slices.DeleteFunc(slices.Clone(g.hosts), func(h string) bool { return slices.Contains(hosts, h) })
}

// choose returns a minority, every other time with the leader in it.
func (g *group) choose(rnd *rand.Rand, leads string) []string {
	hosts := slices.Clone(g.hosts)
	rnd.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	if rnd.IntN(2) == 0 {
		hosts = append([]string{leads}, slices.DeleteFunc(hosts, func(h string) bool { return h == leads })...)
	}
	return hosts[:1+rnd.IntN((len(hosts)-1)/2)]
}

type fault int

const (
	isolated  fault = iota
	mute            // nothing comes from the victims
	deaf            // nothing comes to them
	oneLink         // of the first victim, to the leader if it is another
	restarted       // in an orderly way: a leader hands over
)

// suffer does something to the victims for a while.
func (g *group) suffer(ctx context.Context, what fault, victims []string, lasts time.Duration) {
	cut := func(on bool, from, to []string) {
		for _, a := range from {
			for _, b := range to {
				g.all.set(a, b, on)
			}
		}
	}
	others := g.others(victims...)
	switch what {
	case isolated:
		cut(true, victims, others)
		cut(true, others, victims)
	case mute:
		cut(true, victims, others)
	case deaf:
		cut(true, others, victims)
	case oneLink:
		one, other := victims[:1], others[:1]
		if leads := g.leads(); !slices.Contains(victims, leads) {
			other = []string{leads}
		}
		cut(true, one, other)
		cut(true, other, one)
	case restarted:
		for _, h := range victims {
			g.stop(h)
		}
		pace(ctx, min(lasts, 400*time.Millisecond))
		for _, h := range victims {
			g.start(h)
		}
	}
	pace(ctx, lasts)
	cut(false, victims, others)
	cut(false, others, victims)
}

// TestShortCut: a short cut of one link changes nothing: no election, nobody empties itself, no error.
func TestShortCut(t *testing.T) {
	g := newGroup(t, 3, time.Second) // ten times as long as the cuts
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
