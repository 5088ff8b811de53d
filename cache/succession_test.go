package cache

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// TestLeaderGone: a leader whose process has ended is not waited for (P7), and no write acknowledged at quorum is lost (P11). One that only
// a minority cannot reach stays.
func TestLeaderGone(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := newCluster(t, 3, Config{ElectionTimeout: 10 * time.Second, OperationTimeout: 9 * time.Second})
	ctx := t.Context()
	leader := c.leader()
	others := c.others(leader)
	id := c.nodes[leader].member.Load().id
	for i := range 100 {
		if _, err := c.nodes[others[i%2]].Cache("c").Put(ctx, fmt.Sprint(i), []byte("v"), NoExpiry, Quorum); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range others {
		if m := c.nodes[h].member.Load(); m.gone(id) || m.agreeGone(id) {
			t.Fatal("the leader is said to be gone, and it is there")
		}
	}
	c.nw.mu.Lock()
	addr := c.nw.addrs[leader]
	delete(c.nw.addrs, leader)
	c.nw.mu.Unlock()
	m := c.nodes[others[0]].member.Load()
	if !m.gone(id) {
		t.Fatal("its port refuses connections, and it is not said to be gone")
	}
	c.nw.mu.Lock()
	c.nw.addrs[leader] = addr
	c.nw.mu.Unlock()
	if m.agreeGone(id) {
		t.Fatal("one node finds the leader gone, the other does not: that is no majority")
	}

	c.nw.kill(leader)
	for _, h := range others { // less than an election timeout
		if _, err := c.nodes[h].Cache("c").Put(ctx, "after", []byte(h), NoExpiry, Quorum); err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			if _, err := c.nodes[h].Cache("c").Get(ctx, fmt.Sprint(i), Consistent); err != nil {
				t.Fatalf("write %d on %s: %v", i, h, err)
			}
		}
	}
	c.nodes[leader].member.Load().cancel(ErrNoQuorum) // as it is, its end would wait for a hand-over
	c.await(10*time.Second, Bad, leader)
}

// TestLeaderVanished: the leader's host is gone, and does not even refuse connections. Many writers of a follower that has no connection do
// not wait for it one after the other: they write through the next leader as soon as there is one ("writes flow again"); and who waited for
// an answer of the old one is told that the outcome is unknown.
func TestLeaderVanished(t *testing.T) {
	t.Parallel()       // it waits more than it works
	const writers = 64 // one after the other they would wait for 64 election timeouts, more than an operation may take
	c := newCluster(t, 3, Config{ElectionTimeout: 250 * time.Millisecond, QuorumLossTimeout: 9 * time.Second})
	ctx := t.Context()
	leader := c.leader()
	asked, fresh := c.nodes[c.others(leader)[0]].Cache("c"), c.nodes[c.others(leader)[1]].Cache("c")
	if _, err := asked.Put(ctx, "before", []byte("v"), NoExpiry, Quorum); err != nil {
		t.Fatal(err)
	}
	c.nw.isolate(leader, c.hosts, true)
	began := time.Now()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := asked.Put(ctx, "on its way", []byte("v"), NoExpiry, Quorum)
		if took := time.Since(began); took > 7*time.Second || err != nil && !errors.Is(err, ErrUnknown) {
			t.Errorf("a write that was on its way to the old leader: after %v: %v", took, err)
		}
	})
	for i := range writers {
		wg.Go(func() {
			if _, err := fresh.Put(ctx, fmt.Sprint(i), []byte("v"), NoExpiry, Quorum); err != nil {
				t.Errorf("writer %d, after %v: %v", i, time.Since(began), err)
			}
		})
	}
	wg.Wait()
}
