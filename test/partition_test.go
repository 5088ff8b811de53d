package test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// P1, P3, P4, P6 with links that fail: a node cut off from the others, both ways and one way, while clients reach
// every node.
func TestPartitions(t *testing.T) {
	network := cluster.NetworkFor(t, 3)
	c := cluster.New(t, cluster.Options{Network: network})
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	run(t, c, *chaos, seed, func(ctx context.Context, random *rand.Rand) {
		for ctx.Err() == nil {
			victim := c.Nodes[random.IntN(3)]
			if active, _ := c.Active(ctx); active != nil && random.IntN(3) != 0 {
				victim = active
			}
			cutOff(ctx, t, network, victim.Index, random)
			healthy, cancel := context.WithTimeout(ctx, 20*time.Second)
			if err := c.WaitHealthy(healthy); err != nil && ctx.Err() == nil {
				t.Errorf("after the links were healed: %v", err)
			}
			cancel()
		}
	})
}

// cutOff cuts some of a node's links for a few seconds.
func cutOff(ctx context.Context, t *testing.T, network *cluster.Network, node int, random *rand.Rand) {
	length := time.Duration(500+random.IntN(4500)) * time.Millisecond
	a, b := (node+1)%3, (node+2)%3
	var cuts [][2]int
	var what string
	switch random.IntN(4) {
	case 0:
		what, cuts = "both ways from both", [][2]int{{node, a}, {a, node}, {node, b}, {b, node}}
	case 1:
		what, cuts = "what it sends", [][2]int{{node, a}, {node, b}}
	case 2:
		what, cuts = "what it receives", [][2]int{{a, node}, {b, node}}
	case 3:
		what, cuts = "both ways from one", [][2]int{{node, a}, {a, node}}
	}
	t.Logf("n%d: cut %s for %v", node+1, what, length)
	for _, cut := range cuts {
		if err := network.Cut(cut[0], cut[1]); err != nil {
			t.Error(err)
		}
	}
	after(ctx, length)
	if err := network.HealAll(); err != nil {
		t.Error(err)
	}
}

// P10 and the status codes: a standby that cannot reach the active node says 474, at once; a node cut off from
// the majority says that it is not active, and nobody's status hangs meanwhile.
func TestStatusOfACutOffNode(t *testing.T) {
	network := cluster.NetworkFor(t, 3)
	c := cluster.New(t, cluster.Options{Network: network})
	ctx := within(t, time.Minute)
	active, _ := findActive(t, c)
	if err := network.Isolate(active.Index); err != nil {
		t.Fatal(err)
	}
	// What Health says, with more patience.
	health := func(n *cluster.Node) int {
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		err := c.Call(call, n, http.MethodGet, "/v1/sys/health", nil, nil)
		if status := (*cluster.StatusError)(nil); errors.As(err, &status) {
			return status.Code
		} else if err != nil {
			return 0
		}
		return http.StatusOK
	}
	speed := make([]quick, len(c.Nodes))
	err := cluster.Poll(ctx, "the cut-off node is a standby that reaches nobody", func() error {
		for _, n := range c.Nodes {
			start := time.Now()
			code, took := health(n), time.Since(start)
			if code == 0 || !speed[n.Index].enough(took) {
				t.Errorf("health of %s: %d after %v", n.Name, code, took)
			}
		}
		if code := health(active); code != 474 {
			return &cluster.StatusError{Code: code}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := network.HealAll(); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitHealthy(ctx); err != nil {
		t.Error(err)
	}
	if code := health(active); code != http.StatusTooManyRequests && code != http.StatusOK {
		t.Errorf("healed, its health is %d", code)
	}
}
