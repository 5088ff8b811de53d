package election

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locum-ha/locum/physical/memory"
)

// Five nodes on the memory store for an hour: they step down, stop and start again, and never do two of them have a lease (P2), nor is
// nobody active for long.
func TestOnMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore()
		rng := rand.New(rand.NewPCG(1, 2))
		var mu sync.Mutex
		leases := map[string]*Leadership{}
		start := func(id string) *testNode {
			handle := store.Open()
			n := newNode(t, id, handle, nil)
			n.activate = func(_ context.Context, l *Leadership) error {
				mu.Lock()
				defer mu.Unlock()
				for other, o := range leases {
					if other != id && o.Lease.Valid() {
						t.Errorf("%s and %s have a lease", id, other)
					}
				}
				leases[id] = l
				return nil
			}
			return n.start(t)
		}
		ids := []string{"a", "b", "c", "d", "e"}
		nodes := map[string]*testNode{}
		for _, id := range ids {
			nodes[id] = start(id)
		}
		active := func() *testNode {
			for _, n := range nodes {
				if n.State().Active() {
					return n
				}
			}
			return nil
		}
		terms := uint64(0)
		for range 500 {
			time.Sleep(time.Duration(rng.Int64N(int64(10 * time.Second))))
			id := ids[rng.IntN(len(ids))]
			switch n := active(); {
			case n == nil:
				t.Fatal("nobody is active")
			case rng.IntN(2) == 0:
				if err := n.StepDown(t.Context(), id); err != nil && id != n.State().Holder.Holder && id != n.cfg.ID {
					t.Errorf("step down: %v", err)
				}
			default:
				nodes[id].stop(t)
				nodes[id] = start(id)
			}
			// The store has no latency, so neither has a change.
			time.Sleep(10 * time.Millisecond)
			n := active()
			if n == nil {
				t.Fatal("nobody took over")
			}
			if n.State().Term < terms {
				t.Errorf("term %d after %d", n.State().Term, terms)
			}
			terms = n.State().Term
		}
		for _, n := range nodes {
			n.stop(t)
		}
		if terms < 200 {
			t.Errorf("only %d terms", terms)
		}
	})
}
