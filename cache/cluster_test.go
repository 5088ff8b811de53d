package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// network joins nodes over loopback TCP and can cut them off from one another.
type network struct {
	mu    sync.Mutex
	addrs map[string]string
	cut   map[[2]string]bool // from, to
	conns map[*netConn]struct{}
	dead  string // nobody reaches it, and it nobody
}

func newNetwork() *network {
	return &network{addrs: map[string]string{}, cut: map[[2]string]bool{}, conns: map[*netConn]struct{}{}}
}

// netConn drops what is written in a direction that is cut.
type netConn struct {
	net.Conn
	nw       *network
	from, to string
}

func (c *netConn) Write(b []byte) (int, error) {
	if c.nw.isCut(c.from, c.to) {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *netConn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.nw.isCut(c.to, c.from) {
			return n, err
		}
	}
}

func (nw *network) isCut(from, to string) bool {
	nw.mu.Lock()
	defer nw.mu.Unlock()
	return nw.cut[[2]string{from, to}]
}

// set cuts or mends the way from one host to another. Connections that lost something are broken when mended.
func (nw *network) set(from, to string, cut bool) {
	nw.mu.Lock()
	defer nw.mu.Unlock()
	if nw.cut[[2]string{from, to}] == cut {
		return
	}
	nw.cut[[2]string{from, to}] = cut
	for c := range nw.conns {
		if !cut && (c.from == from && c.to == to || c.from == to && c.to == from) {
			_ = c.Conn.Close()
			delete(nw.conns, c)
		}
	}
}

func (nw *network) isolate(host string, hosts []string, cut bool) {
	for _, h := range hosts {
		if h != host {
			nw.set(host, h, cut)
			nw.set(h, host, cut)
		}
	}
}

// kill makes it look as if a host's process had ended: its connections end, and its port refuses new ones.
func (nw *network) kill(host string) {
	nw.mu.Lock()
	defer nw.mu.Unlock()
	nw.dead = host
	for c := range nw.conns {
		if c.from == host || c.to == host {
			_ = c.Conn.Close()
			delete(nw.conns, c)
		}
	}
}

type netLayer struct {
	nw   *network
	self string
	net.Listener
}

func (nw *network) layer(t *testing.T, host string) *netLayer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nw.mu.Lock()
	nw.addrs[host] = ln.Addr().String()
	nw.mu.Unlock()
	return &netLayer{nw: nw, self: host, Listener: ln}
}

func (l *netLayer) Dial(ctx context.Context, host string) (net.Conn, error) {
	l.nw.mu.Lock()
	addr, dead, cut := l.nw.addrs[host], l.nw.dead == host || l.nw.dead == l.self, l.nw.cut[[2]string{l.self, host}] || l.nw.cut[[2]string{host, l.self}]
	l.nw.mu.Unlock()
	if addr == "" || dead {
		return nil, fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
	}
	if cut {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &netConn{Conn: conn, nw: l.nw, from: l.self, to: host}
	l.nw.mu.Lock()
	l.nw.conns[c] = struct{}{}
	l.nw.mu.Unlock()
	return c, nil
}

// testNode is a node that can be ended and started again.
type testNode struct {
	*Node
	host   string
	cancel context.CancelFunc
	done   chan error
}

type testCluster struct {
	t     *testing.T
	nw    *network
	hosts []string
	nodes map[string]*testNode
	cfg   Config
}

func testLogger(t *testing.T, host string) *slog.Logger {
	if os.Getenv("CACHE_TEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo})).With("node", host)
}

func hostNames(n int) []string {
	var hosts []string
	for i := range n {
		hosts = append(hosts, fmt.Sprintf("n%d:1", i))
	}
	return hosts
}

// newCluster starts a cluster and waits until it is good. Timeouts are short unless cfg says otherwise.
func newCluster(t *testing.T, n int, cfg Config) *testCluster {
	t.Helper()
	if cfg.ElectionTimeout == 0 {
		cfg.ElectionTimeout, cfg.QuorumLossTimeout = 250*time.Millisecond, time.Second
	}
	c := &testCluster{t: t, nw: newNetwork(), hosts: hostNames(n), nodes: map[string]*testNode{}, cfg: cfg}
	t.Cleanup(func() {
		var wg sync.WaitGroup
		for _, n := range c.nodes {
			wg.Go(func() { c.wait(n) })
		}
		wg.Wait()
	})
	for i, h := range c.hosts {
		c.start(h, slices.Concat(c.hosts[i:], c.hosts[:i])) // the order of a list means nothing
	}
	c.await(20*time.Second, Good, c.hosts...)
	return c
}

func (c *testCluster) start(host string, hosts []string) *testNode {
	c.t.Helper()
	cfg := c.cfg
	cfg.Hosts, cfg.Self, cfg.Layer, cfg.Logger = hosts, host, c.nw.layer(c.t, host), testLogger(c.t, host)
	n, err := New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	tn := &testNode{Node: n, host: host, cancel: cancel, done: make(chan error, 1)}
	go func() { tn.done <- n.Run(ctx) }()
	c.nodes[host] = tn
	return tn
}

func (c *testCluster) wait(n *testNode) {
	n.cancel()
	if err := <-n.done; err != nil {
		c.t.Error(err)
	}
	n.done <- nil
}

// stop ends a node in an orderly way.
func (c *testCluster) stop(host string) {
	c.nw.mu.Lock()
	delete(c.nw.addrs, host)
	c.nw.mu.Unlock()
	c.wait(c.nodes[host])
}

// crash ends a node without a word to the others.
func (c *testCluster) crash(host string) {
	c.nw.isolate(host, c.all(), true)
	c.stop(host)
	c.nw.isolate(host, c.all(), false)
}

func (c *testCluster) all() []string {
	var all []string
	for h := range c.nodes {
		all = append(all, h)
	}
	return all
}

func (c *testCluster) await(limit time.Duration, status Status, hosts ...string) {
	c.t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(limit); ; <-ticker.C {
		ok := true
		for _, h := range hosts {
			ok = ok && c.nodes[h].Health().Status == status
		}
		if ok {
			return
		}
		if time.Now().After(deadline) {
			for _, h := range hosts {
				c.t.Logf("%s: %+v", h, c.nodes[h].Health())
			}
			c.t.Fatalf("not all of %q are %v after %v", hosts, status, limit)
		}
	}
}

func (c *testCluster) leader() string {
	c.t.Helper()
	var leader string
	waitFor(c.t, 10*time.Second, "a leader", func() bool {
		for h, n := range c.nodes {
			if n.IsLeader() && n.Health().Status != Bad {
				leader = h
				return true
			}
		}
		return false
	})
	return leader
}

func (c *testCluster) others(host string) []string {
	return slices.DeleteFunc(slices.Clone(c.hosts), func(h string) bool { return h == host })
}

// TestClusterOperations: the same answers wherever the call is made.
func TestClusterOperations(t *testing.T) {
	c := newCluster(t, 3, Config{})
	for _, h := range c.hosts {
		testOperations(t, c.nodes[h].Cache("c-"+h))
	}
}

// TestSizes: 2, 4, 5 and 7 hosts form, and write at quorum.
func TestSizes(t *testing.T) {
	for _, n := range []int{2, 4, 5, 7} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			c := newCluster(t, n, Config{})
			for i, h := range c.hosts {
				if _, err := c.nodes[h].Cache("c").Put(t.Context(), fmt.Sprint(i), []byte("x"), NoExpiry, Quorum); err != nil {
					t.Fatal(err)
				}
				has := 0
				for _, o := range c.hosts {
					if _, err := c.nodes[o].Cache("c").Get(t.Context(), fmt.Sprint(i), Local); err == nil {
						has++
					}
				}
				if has < n/2+1 {
					t.Fatalf("acknowledged at quorum, and %d of %d nodes have it", has, n)
				}
			}
		})
	}
}

// TestRestarts: a restarted node gets the state back from the others, again and again, leader or not (P11).
func TestRestarts(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := newCluster(t, 3, Config{})
	put := func(host, key string) {
		t.Helper()
		waitFor(t, 10*time.Second, "a put", func() bool {
			_, err := c.nodes[host].Cache("c").Put(t.Context(), key, []byte(key), NoExpiry, Quorum)
			if err != nil && !errors.Is(err, ErrUnknown) { // the leader was stopped a moment ago, and had the put perhaps
				t.Fatal(err)
			}
			return err == nil
		})
	}
	put(c.hosts[0], "first")
	for i := range 6 {
		host := c.hosts[i%3]
		if i%2 == 0 {
			c.stop(host)
		} else {
			c.crash(host)
		}
		put(c.others(host)[0], fmt.Sprint("during", i))
		c.start(host, c.hosts)
		c.await(15*time.Second, Good, c.hosts...)
		for _, key := range []string{"first", fmt.Sprint("during", i)} {
			if item, err := c.nodes[host].Cache("c").Get(t.Context(), key, Consistent); err != nil || string(item.Value) != key {
				t.Fatalf("round %d: %s on %s is %q, %v", i, key, host, item.Value, err)
			}
		}
	}
	config := c.nodes[c.leader()].member.Load().config()
	if len(config.Servers) != 3 {
		t.Fatalf("leftover members: %+v", config.Servers)
	}
}

// TestQuorumLost: within a bounded time a node without the others is empty, refuses, says so, and comes back.
func TestQuorumLost(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := newCluster(t, 3, Config{})
	ctx := t.Context()
	leader := c.leader()
	other := c.others(leader)[0]
	cache := c.nodes[other].Cache("c")
	if _, err := cache.Put(ctx, "k", []byte("v"), NoExpiry, Quorum); err != nil {
		t.Fatal(err)
	}
	sub := cache.Subscribe("")
	defer sub.Close()
	c.nw.isolate(other, c.hosts, true)
	c.await(5*time.Second, Bad, other)
	if _, err := cache.Get(ctx, "k", Local); !errors.Is(err, ErrNoQuorum) {
		t.Fatalf("a read without quorum: %v", err)
	}
	if _, err := cache.Put(ctx, "k", nil, NoExpiry, Direct); !errors.Is(err, ErrNoQuorum) || !errors.Is(err, ErrNotDone) {
		t.Fatalf("a write without quorum: %v", err)
	}
	if n, err := cache.Len(ctx); !errors.Is(err, ErrNoQuorum) || c.nodes[other].Health().Reason == "" {
		t.Fatalf("%d entries are left, %v, health %+v", n, err, c.nodes[other].Health())
	}
	ev, err := sub.Next(ctx)
	if err == nil && ev.Kind == Changed && ev.Key == "k" { // the put above: the others are a quorum, this node may carry it out later
		ev, err = sub.Next(ctx)
	}
	if err != nil || ev.Kind != Missed {
		t.Fatalf("subscriber was told %+v, %v", ev, err)
	}
	waitFor(t, 20*time.Second, "the majority to go on", func() bool { // on a busy machine its leader may change
		_, err := c.nodes[leader].Cache("c").Put(ctx, "k", []byte("v2"), NoExpiry, Quorum)
		return err == nil
	})
	c.nw.isolate(other, c.hosts, false)
	c.await(15*time.Second, Good, c.hosts...)
	if item, err := cache.Get(ctx, "k", Consistent); err != nil || string(item.Value) != "v2" {
		t.Fatalf("after coming back: %q, %v", item.Value, err)
	}
}

// TestTotalRestart: when all, or a majority, is restarted at once, a new and empty cache forms by itself.
func TestTotalRestart(t *testing.T) {
	t.Parallel() // it waits more than it works
	for _, n := range []int{2, 3} {
		t.Run(fmt.Sprint(n, " of 3"), func(t *testing.T) {
			c := newCluster(t, 3, Config{})
			if _, err := c.nodes[c.hosts[0]].Cache("c").Put(t.Context(), "k", []byte("v"), NoExpiry, Quorum); err != nil {
				t.Fatal(err)
			}
			for _, h := range c.hosts[:n] {
				c.crash(h)
			}
			for _, h := range c.hosts[:n] {
				c.start(h, c.hosts)
			}
			waitFor(t, 20*time.Second, "a new cache on all", func() bool {
				for _, h := range c.hosts {
					if c.nodes[h].Health().Status != Good || c.nodes[h].member.Load().cluster != c.nodes[c.hosts[0]].member.Load().cluster {
						return false
					}
				}
				return true
			})
			for _, h := range c.hosts {
				if _, err := c.nodes[h].Cache("c").Get(t.Context(), "k", Consistent); !errors.Is(err, ErrNotFound) {
					t.Fatalf("%s: %v", h, err)
				}
			}
		})
	}
}

// TestLatePulse: a pulse that lay somewhere while the node stood still does not make its data fresh (P11): it is counted from when the
// leader is known to have led, by the node's own clock.
func TestLatePulse(t *testing.T) {
	c := newCluster(t, 3, Config{ElectionTimeout: time.Second, QuorumLossTimeout: 10 * time.Second})
	leader := c.leader()
	node := c.nodes[c.others(leader)[0]]
	c.nw.isolate(node.host, c.hosts, true)
	m := node.member.Load()
	p := pulse{term: m.raft.CurrentTerm(), open: true, commit: m.fsm.progress.at.Load(), clock: m.fsm.st.clock.Load()}
	for _, one := range []struct {
		age   time.Duration
		fresh bool
	}{{6 * time.Second, false}, {time.Minute, false}, {3 * time.Second, true}} {
		m.fresh.Store(0)
		p.echo = now() - int64(one.age)
		if ok, _ := m.pulsed(c.nodes[leader].member.Load().id, p); !ok {
			t.Fatal("the pulse is of another term")
		}
		if fresh := node.view() != nil; fresh != one.fresh {
			t.Errorf("a pulse that is %v old: the data are fresh: %v", one.age, fresh)
		}
		if left := m.fresh.Load() - now(); one.fresh && left > int64(node.cfg.QuorumLossTimeout-one.age) {
			t.Errorf("a pulse that is %v old: fresh for %v", one.age, time.Duration(left))
		}
	}
}

// TestLostDial: "a short cut of one link changes nothing", also when a connection breaks meanwhile and the first packets of the next
// one are lost: a pulse comes through before the data are too old to be shown.
func TestLostDial(t *testing.T) {
	c := newCluster(t, 3, Config{ElectionTimeout: 250 * time.Millisecond, QuorumLossTimeout: time.Second})
	leader := c.leader()
	node := c.nodes[c.others(leader)[0]]
	c.nw.set(leader, node.host, true)
	c.nw.mu.Lock()
	for conn := range c.nw.conns {
		if conn.from == leader && conn.to == node.host {
			_ = conn.Conn.Close()
		}
	}
	c.nw.mu.Unlock()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for began := time.Now(); time.Since(began) < 2*c.cfg.QuorumLossTimeout; <-ticker.C {
		if time.Since(began) > 100*time.Millisecond {
			c.nw.set(leader, node.host, false)
		}
		if node.view() == nil {
			t.Fatalf("the data are not shown after %v", time.Since(began))
		}
	}
}
