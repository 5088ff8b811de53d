package raft

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
)

// Nodes are cut off, restarted, made to hand over and to take snapshots while writers write. In the end all
// nodes hold the same; what was acknowledged is there (P3); and what was refused with any error but
// ErrUnknown is not (physical.Backend).
func TestChaos(t *testing.T) {
	rounds := 25
	if testing.Short() {
		rounds = 8
	}
	c := newCluster(t, 3, func(cfg *Config) { cfg.SnapshotBytes = 128 << 10 })
	var mu sync.RWMutex // held by who stops a node, so that writers do not meet a closed one
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var results sync.Map // key -> error of its commit
	var acked, refused, unknown atomic.Int64
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 7))
			value := bytes.Repeat([]byte{byte(w)}, 900)
			for i := 0; ctx.Err() == nil; i++ {
				key := fmt.Sprintf("w/%d/%d", w, i)
				mu.RLock()
				n := c.nodes[r.IntN(3)] // mostly one that does not lead
				for _, other := range c.nodes {
					if other.Store != nil && r.IntN(3) > 0 && other.IsLeader() {
						n = other
					}
				}
				if n.Store == nil {
					mu.RUnlock()
					continue
				}
				limit, cancel := context.WithTimeout(ctx, time.Duration(1+r.IntN(300))*time.Millisecond)
				err := n.Commit(limit, nil, physical.RequireAbsent(key), physical.Put(key, value))
				cancel()
				mu.RUnlock()
				results.Store(key, err)
				switch {
				case err == nil:
					acked.Add(1)
				case errors.Is(err, physical.ErrUnknown):
					unknown.Add(1)
				default:
					if refused.Add(1)%64 == 0 {
						pauseFor(ctx, time.Millisecond)
					}
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	for range rounds {
		c.disturb(r, &mu)
	}
	stop()
	writers.Wait()
	t.Logf("%d acknowledged, %d refused, %d unknown", acked.Load(), refused.Load(), unknown.Load())
	if acked.Load() == 0 || refused.Load() == 0 {
		t.Error("nothing was put to the test")
	}
	c.wantHealthy(3, "end")
	results.Range(func(k, v any) bool {
		key, err := k.(string), error(nil)
		if v != nil {
			err = v.(error)
		}
		if errors.Is(err, physical.ErrUnknown) {
			return true
		}
		_, got := c.nodes[0].Get(t.Context(), key)
		if (err == nil) != (got == nil) {
			t.Errorf("%s: its commit returned %v, reading it %v", key, err, got)
		}
		return true
	})
	var want []byte
	for i, n := range c.nodes {
		var entries bytes.Buffer
		var snap bytes.Buffer
		must(t, n.Snapshot(t.Context(), &snap))
		must(t, readSnapshot(&snap, func(header) error { return nil }, func(k, v []byte) error {
			fmt.Fprintf(&entries, "%s=%x\n", k, v)
			return nil
		}))
		if i == 0 {
			want = entries.Bytes()
		} else if !bytes.Equal(want, entries.Bytes()) {
			t.Errorf("node %d holds something else than node 0", i)
		}
	}
}

func pauseFor(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// disturb does one harm, waits a moment, and mends it.
func (c *cluster) disturb(r *rand.Rand, mu *sync.RWMutex) {
	i := r.IntN(len(c.nodes))
	for k, n := range c.nodes {
		if r.IntN(2) == 0 && n.IsLeader() {
			i = k
		}
	}
	moment := func(limit int) { pauseFor(c.t.Context(), time.Duration(r.IntN(limit))*time.Millisecond) }
	switch r.IntN(6) {
	case 0:
		heal := c.net.isolate(c.nodes[i].ID(), c.ids()...)
		moment(1500)
		heal()
	case 1: // hears, and is not heard; or the other way
		from, to := c.nodes[i].ID(), c.nodes[(i+1)%3].ID()
		if r.IntN(2) == 0 {
			from, to = to, from
		}
		heal := c.net.cut(from, to)
		moment(1500)
		heal()
	case 2, 3:
		mu.Lock()
		c.stop(i)
		if r.IntN(2) == 0 {
			c.open(i, false)
		} else {
			mu.Unlock()
			moment(700)
			mu.Lock()
			c.open(i, false)
		}
		mu.Unlock()
	case 4:
		ctx, cancel := context.WithTimeout(c.t.Context(), time.Second)
		_ = c.nodes[i].Yield(ctx, "")
		cancel()
	case 5: // a quiet moment
	}
	moment(400)
}
