package cache

import (
	"fmt"
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
