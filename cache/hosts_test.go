package cache

import (
	"fmt"
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
