package raft

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
)

// wantHealthy waits until the cluster has n voters, one of them leads, and a write reaches every node.
func (c *cluster) wantHealthy(n int, key string) {
	c.t.Helper()
	c.voters(n)
	c.eventually(10*time.Second, func(ctx ctxT) error {
		return c.leader().Commit(ctx, nil, physical.Put(key, []byte("x")))
	})
	for _, node := range c.nodes {
		if node.Store != nil {
			wantValue(c.t, node.Store, key, "x")
		}
	}
}

func TestRestarts(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.wantHealthy(3, "before")
	for i := range c.nodes { // one after the other
		c.stop(i)
		c.open(i, false)
		wantValue(t, c.nodes[i].Store, "before", "x")
		c.wantHealthy(3, fmt.Sprint("one/", i))
	}
	for i := range c.nodes { // all at once
		c.stop(i)
	}
	for i := range c.nodes {
		c.open(i, false)
	}
	c.wantHealthy(3, "all")
}

// A node whose directory was emptied is a new one: it joins anew, and the old one goes once it votes.
func TestEmptiedDirectory(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.wantHealthy(3, "before")
	i := (c.leaderIndex() + 1) % 3
	old := c.nodes[i].ID()
	c.stop(i)
	must(t, removeAll(c.nodes[i].path))
	c.open(i, false)
	if c.nodes[i].ID() == old {
		t.Fatal("the emptied node has its old identity")
	}
	if c.nodes[i].Initialized() {
		t.Error("an emptied node says that it belongs to a cluster")
	}
	before, err := c.leader().Peers()
	must(t, err)
	c.eventually(5*time.Second, func(ctx ctxT) error { return c.leader().AddPeer(ctx, c.nodes[i].ID(), c.nodes[i].addr) })
	c.wantHealthy(3, "after")
	wantValue(t, c.nodes[i].Store, "before", "x")
	c.eventually(5*time.Second, func(ctxT) error {
		peers, err := c.leader().Peers()
		for _, p := range peers {
			if p.ID == old {
				return fmt.Errorf("the old node is still a member: %+v, before %+v", peers, before)
			}
		}
		return err
	})
	c.wantHealthy(3, "at the end")
}

// Messages for the old identity do not reach the new one: nothing but a join makes the node a member.
func TestEmptiedNodeDoesNotVoteAsItsPredecessor(t *testing.T) {
	c := newCluster(t, 3, nil)
	l := c.leaderIndex()
	i := (l + 1) % 3
	c.stop(i)
	must(t, removeAll(c.nodes[i].path))
	c.open(i, false)
	c.stop((l + 2) % 3)
	// Of the three voters one is left: it must not lead, or write.
	c.eventually(5*time.Second, func(ctx ctxT) error {
		if c.nodes[l].IsLeader() {
			return errors.New("it leads")
		}
		return nil
	})
	ctx, cancel := contextFor(t, time.Second)
	defer cancel()
	if err := c.nodes[l].Commit(ctx, nil, physical.Put("a", nil)); err == nil {
		t.Error("one voter of three wrote")
	}
}

// A node that comes back at another address is found there, and the configuration follows.
func TestChangedAddress(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.wantHealthy(3, "before")
	for round, i := range []int{(c.leaderIndex() + 1) % 3, c.leaderIndex()} {
		c.stop(i)
		was := c.nodes[i].addr
		c.nodes[i].addr = ""
		c.open(i, false)
		c.wantHealthy(3, fmt.Sprint("after/", round))
		c.eventually(5*time.Second, func(ctxT) error {
			// Agreed on everywhere, not only heard of: two nodes that both moved, and know each other's old
			// addresses only, cannot find each other without somebody who tells them.
			for _, n := range c.nodes {
				if got := n.state.header().addrs[c.nodes[i].ID()]; got != c.nodes[i].addr {
					return fmt.Errorf("the state says %s, was %s, is %s", got, was, c.nodes[i].addr)
				}
			}
			return nil
		})
	}
}

// All nodes come back at other addresses at once: whoever tells one of them is enough.
func TestAllAddressesChange(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.wantHealthy(3, "before")
	for i := range c.nodes {
		c.stop(i)
		c.nodes[i].addr = ""
	}
	for i := range c.nodes {
		c.open(i, false)
	}
	for i := range c.nodes {
		for j := range c.nodes {
			c.nodes[i].peers.learn(c.nodes[j].ID(), c.nodes[j].addr)
		}
	}
	c.wantHealthy(3, "after")
}

func TestRemovePeer(t *testing.T) {
	c := newCluster(t, 3, nil)
	l := c.leaderIndex()
	a, b := (l+1)%3, (l+2)%3
	if err := c.nodes[a].RemovePeer(t.Context(), c.nodes[b].ID()); !errors.Is(err, physical.ErrUnavailable) || !strings.Contains(err.Error(), c.nodes[l].ID()) {
		t.Errorf("a follower removes: %v", err)
	}
	if err := c.nodes[l].RemovePeer(t.Context(), "nobody"); !errors.Is(err, physical.ErrNotFound) {
		t.Errorf("a node that is not there: %v", err)
	}
	id := c.nodes[b].ID()
	c.stop(b)
	c.eventually(5*time.Second, func(ctxT) error { // the leader notices
		peers, err := c.nodes[l].Peers()
		for _, p := range peers {
			if p.ID == id && p.Healthy {
				return errors.New("still healthy")
			}
		}
		return err
	})
	// Without a the dead b would have to vote: {leader, b} has no majority that is there.
	if err := c.nodes[l].RemovePeer(t.Context(), c.nodes[a].ID()); !errors.Is(err, ErrQuorum) {
		t.Errorf("a removal that loses quorum: %v", err)
	}
	must(t, c.nodes[l].RemovePeer(t.Context(), id))
	c.wantHealthy(2, "two")
	c.open(b, false)
	c.eventually(10*time.Second, func(ctxT) error { // it was away, and hears of it all the same
		if !c.nodes[b].Removed() {
			return errors.New("it does not know that it was removed")
		}
		return nil
	})
	c.eventually(5*time.Second, func(ctx ctxT) error { return c.leader().AddPeer(ctx, id, c.nodes[b].addr) })
	c.wantHealthy(3, "three")
	if c.nodes[b].Removed() {
		t.Error("it thinks that it is removed although it has joined again")
	}

	// The leader removes itself: another leads, and it knows that it is out.
	l = c.leaderIndex()
	must(t, c.nodes[l].RemovePeer(t.Context(), c.nodes[l].ID()))
	c.eventually(5*time.Second, func(ctxT) error {
		if !c.nodes[l].Removed() {
			return errors.New("it does not know that it was removed")
		}
		return nil
	})
	c.eventually(5*time.Second, func(ctx ctxT) error {
		for i, n := range c.nodes {
			if i != l && n.IsLeader() {
				return n.Commit(ctx, nil, physical.Put("without", nil))
			}
		}
		return errors.New("nobody leads")
	})
}

// Members that are silent for long are removed, but never so that fewer than three voters or a voter that
// is not there would remain.
func TestSilentMembersAreRemoved(t *testing.T) {
	c := newCluster(t, 5, func(cfg *Config) { cfg.DeadPeerTimeout = testPace * time.Second })
	l := c.leaderIndex()
	dead := []int{(l + 1) % 5, (l + 2) % 5, (l + 3) % 5}
	c.stop(dead[0])
	c.wantHealthy(4, "four")
	c.stop(dead[1])
	c.wantHealthy(3, "three")
	c.stop(dead[2])
	// Two are left of three voters: the third stays a voter however long it is silent.
	quiet := time.NewTimer(testPace * 1500 * time.Millisecond)
	defer quiet.Stop()
	<-quiet.C
	c.wantHealthy(3, "still three")
}

// Three times five nodes come and go; every write that was acknowledged is there at the end.
func TestGrowAndShrink(t *testing.T) {
	c := newCluster(t, 1, nil)
	put(t, c.leader().Store, "n/0", "x")
	for i := 1; i < 5; i++ {
		c.nodes = append(c.nodes, &node{path: fmt.Sprint(c.dir, "/node-", i)})
		c.open(i, false)
		must(t, c.leader().AddPeer(t.Context(), c.nodes[i].ID(), c.nodes[i].addr))
		c.voters(i + 1)
		put(t, c.leader().Store, fmt.Sprint("n/", i), "x")
	}
	for i := 4; i > 0; i-- {
		l := c.leader()
		victim := c.nodes[0]
		if l == victim {
			victim = c.nodes[1]
		}
		id := victim.ID()
		c.eventually(5*time.Second, func(ctx ctxT) error { return c.leader().RemovePeer(ctx, id) })
		for j, n := range c.nodes {
			if n == victim {
				c.stop(j)
				c.nodes = append(c.nodes[:j], c.nodes[j+1:]...)
				break
			}
		}
	}
	for i := range 5 {
		wantValue(t, c.leader().Store, fmt.Sprint("n/", i), "x")
	}
}

// Many writers share entries, writes and syncs.
func TestGroupCommit(t *testing.T) {
	var mu sync.Mutex
	commits, entries, writes := 0, 0, 0
	c := newCluster(t, 3, func(cfg *Config) {
		calm(cfg)
		cfg.Observer.Committed = func(n, _ int, _ time.Duration) { mu.Lock(); commits += n; entries++; mu.Unlock() }
		cfg.Observer.Stored = func(int, time.Duration) { mu.Lock(); writes++; mu.Unlock() }
	})
	l := c.leader()
	var all sync.WaitGroup
	for w := range 64 {
		all.Go(func() {
			for i := range 20 {
				if err := l.Commit(t.Context(), nil, physical.Put(fmt.Sprintf("w/%d/%d", w, i), []byte("x"))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	mu.Lock()
	defer mu.Unlock()
	t.Logf("%d commits in %d entries, %d writes on three nodes", commits, entries, writes)
	if commits < 64*20 || entries > commits/4 || writes > commits {
		t.Error("commits do not share entries and writes")
	}
	for w := range 64 {
		wantValue(t, l.Store, fmt.Sprintf("w/%d/19", w), "x")
	}
}

// A member that is just being added, and has no address yet, is not taken for one that was replaced.
func TestMemberWithoutAddress(t *testing.T) {
	c := newCluster(t, 3, nil)
	l := c.leader()
	run := l.running()
	const id = "coming"
	must(t, run.raft.AddNonvoter(id, nominal(id), 0, time.Second).Error())
	tick := time.NewTicker(l.timing.heartbeat / 2)
	defer tick.Stop()
	for range 10 { // rounds of the keeper's rules
		<-tick.C
	}
	peers, err := l.Peers()
	must(t, err)
	if !slices.ContainsFunc(peers, func(p Peer) bool { return p.ID == id }) {
		t.Fatalf("the member was removed before its address was agreed on: %+v", peers)
	}
}
