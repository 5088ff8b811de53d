package cache

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fill writes n entries, many at a time.
func fill(t *testing.T, n *Node, count, size int) {
	t.Helper()
	const each = 1000
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for from := w * each; from < count; from += 4 * each {
				var txn Txn
				for i := from; i < min(from+each, count); i++ {
					txn.Ops = append(txn.Ops, Op{Kind: OpPut, Cache: "c", Key: fmt.Sprintf("key-%07d", i), Value: make([]byte, size), TTL: NoExpiry})
				}
				if _, err := n.Do(t.Context(), Quorum, txn); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestTransfer: a node that comes back receives the whole state while writes go on, and catches up. With
// LOCUM_FAULTS it is a million entries, in ten seconds at most.
func TestTransfer(t *testing.T) {
	count, limit := 50_000, 30*time.Second
	if os.Getenv("LOCUM_FAULTS") != "" {
		count, limit = 1_000_000, 10*time.Second
	}
	var sent atomic.Int64
	c := newCluster(t, 3, Config{
		ElectionTimeout: time.Second, QuorumLossTimeout: 5 * time.Second, Default: Options{MaxEntries: 3_000_000, MaxBytes: 4 << 30},
		Observer: Observer{Transfer: func(received bool, entries, bytes int64, took time.Duration) {
			if !received && entries >= int64(count) && bytes > 100*entries && took > 0 {
				sent.Add(1)
			}
		}},
	})
	leader := c.leader()
	fill(t, c.nodes[leader].Node, count, 100)
	m := c.nodes[leader].member.Load()
	rc := m.raft.ReloadableConfig()
	rc.TrailingLogs = 10 // so that the log does not do
	if err := m.raft.ReloadConfig(rc); err != nil {
		t.Fatal(err)
	}
	if err := m.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	host := c.others(leader)[0]
	c.crash(host)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	busy := c.nodes[leader].Cache("c")
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key := fmt.Sprintf("more-%d-%d", w, i%1000)
				if _, err := busy.Put(ctx, key, make([]byte, 100), NoExpiry, Quorum); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	began := time.Now()
	c.start(host, c.hosts)
	c.await(limit+20*time.Second, Good, c.hosts...)
	took := time.Since(began)
	cancel()
	wg.Wait()
	back := c.nodes[host]
	t.Logf("%d entries: good again after %v, of which the transfer %v", count, took, back.Stats().LastTransfer)
	if took > limit {
		t.Errorf("%v is more than %v", took, limit)
	}
	if back.Stats().TransfersIn == 0 {
		t.Error("the state did not come as a whole")
	}
	if sent.Load() == 0 {
		t.Error("the observer was not told how long it took to send the state")
	}
	if _, err := back.Cache("c").Get(t.Context(), "none", Consistent); err == nil {
		t.Error("found what is not there")
	}
	for _, n := range []*Node{back.Node, c.nodes[leader].Node} {
		if has, err := n.Cache("c").Len(t.Context()); err != nil || has < int64(count) {
			t.Errorf("%d entries came back of %d, %v", has, count, err)
		}
	}
}

// TestMemory: at most 200 bytes per entry beyond key and value.
func TestMemory(t *testing.T) {
	n := start(t, Config{Default: Options{MaxEntries: 3_000_000, MaxBytes: 4 << 30}})
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	const count, size = 200_000, 100
	fill(t, n, count, size)
	per := (int64(heap()) - int64(before)) / count
	if beyond := per - size - int64(len("key-0000000")); beyond > 200 {
		t.Errorf("%d bytes per entry beyond key and value", beyond)
	} else {
		t.Logf("%d bytes per entry beyond key and value", beyond)
	}
}

// TestLogAtRest: on no node is more of the log kept than somebody may still need, also after the state was sent: else a small cache would
// cost several times its entries ("memory per entry").
func TestLogAtRest(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := newCluster(t, 3, Config{ElectionTimeout: 2 * time.Second, QuorumLossTimeout: 4 * time.Second})
	leader := c.leader()
	fill(t, c.nodes[leader].Node, 5000, 100)
	if err := c.nodes[leader].member.Load().raft.Snapshot().Error(); err != nil { // who begins anew gets the state
		t.Fatal(err)
	}
	host := c.others(leader)[0]
	c.crash(host)
	c.start(host, c.hosts)
	c.await(30*time.Second, Good, c.hosts...)
	fill(t, c.nodes[leader].Node, 5000, 100)
	for _, h := range c.hosts {
		waitFor(t, logTransfer/2, "the log to be cut", func() bool {
			stats := c.nodes[h].Stats()
			return stats.LogSize < logCalm || stats.LogEntries == 1
		})
	}
}
