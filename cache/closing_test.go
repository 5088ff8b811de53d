package cache

import (
	"errors"
	"testing"
	"time"
)

// TestEmptyIsSaidAtOnce: a node that empties itself says so at once, however long that takes (P10, P11).
func TestEmptyIsSaidAtOnce(t *testing.T) {
	c := newCluster(t, 2, Config{})
	n := c.nodes[c.hosts[0]]
	end := make(chan struct{})
	if !n.member.Load().background(func() { <-end }) {
		t.Fatal("the member has ended")
	}
	defer close(end)
	c.nw.isolate(n.host, c.hosts, true)
	waitFor(t, 20*time.Second, "the node to say that it begins anew", func() bool {
		h := n.Health()
		return h.Status == Bad && h.State == Forming && h.Reason != ""
	})
}

// TestCloseHangsUp: a node that ends does not wait for a peer that answers nothing, and tells the others what it has not taken, so that
// they ask the next leader instead of giving their clients an unknown outcome.
func TestCloseHangsUp(t *testing.T) {
	c := newCluster(t, 3, Config{ElectionTimeout: 10 * time.Second, QuorumLossTimeout: time.Minute})
	leader := c.leader()
	silent, other := c.others(leader)[0], c.others(leader)[1]
	c.nw.isolate(silent, c.hosts, true)
	if _, err := c.nodes[other].Cache("c").Put(t.Context(), "k", nil, NoExpiry, Quorum); err != nil {
		t.Fatal(err)
	}
	link := c.nodes[other].member.Load().link.Load()
	untaken := make(chan outcome, 1)
	link.mu.Lock()
	link.last++
	link.waiting[link.last] = untaken
	link.mu.Unlock()
	began := time.Now()
	c.stop(leader)
	if took := time.Since(began); took > c.cfg.ElectionTimeout {
		t.Errorf("ending took %v", took)
	}
	if out := <-untaken; !errors.Is(out.err, errNotLeader) || errors.Is(out.err, ErrUnknown) {
		t.Errorf("a request that the leader had not taken when it ended: %v", out.err)
	}
}
