package cache

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// roll restarts the hosts one after the other with another list, and waits for each.
func (c *testCluster) roll(hosts []string, restart ...string) {
	c.t.Helper()
	for _, h := range restart {
		if c.nodes[h] != nil {
			c.stop(h)
		}
		c.start(h, hosts)
		waitFor(c.t, 20*time.Second, h+" to take part", func() bool { return c.nodes[h].Health().Status != Bad })
	}
}

func (c *testCluster) servers() int {
	return len(c.nodes[c.leader()].member.Load().config().Servers)
}

// TestHostsChange: a list that changes with a restart is the truth: grow, shrink, replace; the data stay, no
// leftover membership.
func TestHostsChange(t *testing.T) {
	c := newCluster(t, 3, Config{})
	ctx := t.Context()
	if _, err := c.nodes[c.hosts[0]].Cache("c").Put(ctx, "k", []byte("v"), NoExpiry, Quorum); err != nil {
		t.Fatal(err)
	}
	check := func(hosts []string, servers int) {
		t.Helper()
		c.hosts = hosts
		c.await(20*time.Second, Good, hosts...)
		for _, h := range hosts {
			if item, err := c.nodes[h].Cache("c").Get(ctx, "k", Consistent); err != nil || string(item.Value) != "v" {
				t.Fatalf("%s: %q, %v", h, item.Value, err)
			}
		}
		waitFor(t, 20*time.Second, fmt.Sprint(servers, " members"), func() bool { return c.servers() == servers })
	}
	three, five := hostNames(3), hostNames(5)
	c.roll(five, three...)
	c.roll(five, five[3:]...)
	check(five, 5)
	replaced := append([]string{"other:1"}, five[1:]...)
	c.roll(replaced, replaced[1:]...)
	c.stop(five[0])
	delete(c.nodes, five[0])
	c.roll(replaced, "other:1")
	check(replaced, 5)
	less := replaced[:3]
	c.roll(less, less...)
	for _, h := range replaced[3:] {
		c.stop(h)
		delete(c.nodes, h)
	}
	check(less, 3)
}

// TestOtherLists: nodes whose lists differ form no cache of half of each list, and say why.
func TestOtherLists(t *testing.T) {
	c := &testCluster{t: t, nw: newNetwork(), nodes: map[string]*testNode{}, cfg: Config{ElectionTimeout: 250 * time.Millisecond, QuorumLossTimeout: time.Second}}
	hosts := hostNames(4)
	c.start(hosts[0], hosts[:3])
	c.start(hosts[1], hosts)
	t.Cleanup(func() {
		for _, n := range c.nodes {
			c.wait(n)
		}
	})
	waitFor(t, 10*time.Second, "the reason to be said", func() bool {
		return c.nodes[hosts[0]].Health().Reason == "host n1:1 has another list of hosts; give all nodes the same"
	})
}

// TestSetHosts: a cache of one host grows to three without a restart of the first, and its data are there on
// all.
func TestSetHosts(t *testing.T) {
	hosts := hostNames(3)
	c := &testCluster{t: t, nw: newNetwork(), nodes: map[string]*testNode{}, hosts: hosts[:1], cfg: Config{ElectionTimeout: 250 * time.Millisecond, QuorumLossTimeout: time.Second}}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			c.wait(n)
		}
	})
	first := c.start(hosts[0], hosts[:1])
	c.await(10*time.Second, Good, hosts[0])
	if _, err := first.Cache("c").Put(t.Context(), "k", []byte("v"), NoExpiry, Quorum); err != nil {
		t.Fatal(err)
	}
	for n := 2; n <= 3; n++ {
		for h, node := range c.nodes {
			if err := node.SetHosts(hosts[:n]); err != nil {
				t.Fatal(h, err)
			}
		}
		c.hosts = hosts[:n]
		c.start(hosts[n-1], hosts[:n])
		waitFor(t, 20*time.Second, fmt.Sprint(n, " hosts"), func() bool {
			for _, h := range c.hosts {
				if health := c.nodes[h].Health(); health.Status != Good || len(health.Hosts) != n {
					return false
				}
			}
			return true
		})
	}
	for _, h := range hosts {
		if item, err := c.nodes[h].Cache("c").Get(t.Context(), "k", Consistent); err != nil || string(item.Value) != "v" {
			t.Fatalf("%s: %q, %v", h, item.Value, err)
		}
	}
}

// TestEvictionAlike: "an eviction that is the same on every node", also on one that got the state from the others: what is there, what went
// for want of room and what expired is the same, whichever nodes wrote, and at whatever level.
func TestEvictionAlike(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := newCluster(t, 3, Config{ElectionTimeout: time.Second, QuorumLossTimeout: 4 * time.Second, Caches: map[string]Options{"few": {MaxEntries: 40}, "small": {MaxBytes: 10_000}}})
	ctx := t.Context()
	write := func(hosts []string, rounds int) {
		t.Helper()
		var wg sync.WaitGroup
		for w, h := range hosts {
			rnd := rand.New(rand.NewPCG(uint64(w), uint64(rounds)))
			wg.Go(func() {
				for i := range rounds {
					cache := c.nodes[h].Cache([]string{"few", "small"}[i%2])
					ttl := []time.Duration{NoExpiry, 20 * time.Millisecond, time.Hour}[rnd.IntN(3)]
					level := []Level{Quorum, Once, Leader, Direct}[rnd.IntN(4)]
					if _, err := cache.Put(ctx, fmt.Sprint(rnd.IntN(120)), make([]byte, rnd.IntN(300)), ttl, level); err != nil && !errors.Is(err, ErrUnknown) { // a busy machine may lose its leader
						t.Errorf("%s: %v", h, err)
					}
				}
			})
		}
		wg.Wait()
	}
	alike := func() {
		t.Helper()
		for _, h := range c.hosts {
			if err := c.nodes[h].Settle(ctx); err != nil && !errors.Is(err, ErrUnknown) {
				t.Fatal(err)
			}
		}
		waitFor(t, 30*time.Second, "all nodes to be alike", func() bool {
			var first string
			for i, h := range c.hosts {
				said := ""
				for _, name := range []string{"few", "small"} {
					keys, err := c.nodes[h].Cache(name).List(ctx, "", "", 0, Consistent)
					if err != nil {
						return false
					}
					one := c.nodes[h].Stats().Caches[name]
					said += fmt.Sprintln(name, keys, one.Entries, one.Bytes, one.Evictions, one.Expired)
					if one.Evictions == 0 || one.Expired == 0 {
						return false
					}
					if len(keys) > 40 && name == "few" || one.Bytes > 10_000 && name == "small" {
						t.Fatalf("%s: %+v", h, one)
					}
				}
				if i > 0 && said != first { // or something expired in between
					return false
				}
				first = said
			}
			return true
		})
	}
	write(c.hosts, 300)
	alike()
	leader := c.leader()
	if err := c.nodes[leader].member.Load().raft.Snapshot().Error(); err != nil { // who begins anew gets the state
		t.Fatal(err)
	}
	host := c.others(leader)[0]
	c.crash(host)
	c.start(host, c.hosts)
	c.await(30*time.Second, Good, c.hosts...)
	write(c.hosts, 300)
	alike()
}
