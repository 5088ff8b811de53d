package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestDirect: a direct put is there on its node at once, on the others soon, and gives way to a write of the
// key that the log had before: an older value never overwrites a newer one.
func TestDirect(t *testing.T) {
	c := newCluster(t, 3, Config{Caches: map[string]Options{"small": {MaxEntries: 1}}})
	ctx := t.Context()
	leader := c.leader()
	follower := c.others(leader)[0]
	here, there := c.nodes[follower].Cache("c"), c.nodes[leader].Cache("c")
	if _, err := here.Put(ctx, "k", []byte("v0"), NoExpiry, Quorum); err != nil {
		t.Fatal(err)
	}
	for i := range 50 { // one's own direct puts come in order
		value := fmt.Sprint("d", i)
		if _, err := here.Put(ctx, "k", []byte(value), NoExpiry, Direct); err != nil {
			t.Fatal(err)
		}
		if item, err := here.Get(ctx, "k", Local); err != nil || string(item.Value) != value {
			t.Fatalf("on its node at once: %q, %v", item.Value, err)
		}
	}
	waitFor(t, 5*time.Second, "the last direct put everywhere", func() bool {
		for _, h := range c.hosts {
			if item, err := c.nodes[h].Cache("c").Get(ctx, "k", Consistent); err != nil || string(item.Value) != "d49" {
				return false
			}
		}
		return true
	})

	// The follower cannot reach the leader for a moment; the leader's write is the newer one.
	c.nw.set(follower, leader, true)
	if _, err := here.Put(ctx, "k", []byte("old"), NoExpiry, Direct); err != nil {
		t.Fatal(err)
	}
	if _, err := there.Put(ctx, "k", []byte("new"), NoExpiry, Quorum); err != nil {
		t.Fatal(err)
	}
	c.nw.set(follower, leader, false)
	c.await(15*time.Second, Good, c.hosts...)
	waitFor(t, 5*time.Second, "the newer value", func() bool {
		item, err := here.Get(ctx, "k", Local)
		return err == nil && string(item.Value) == "new"
	})
	if item, err := there.Get(ctx, "k", Consistent); err != nil || string(item.Value) != "new" {
		t.Fatalf("the older value came through: %q, %v", item.Value, err)
	}
	// What was removed since is not brought back.
	var m *member
	waitFor(t, 10*time.Second, "the follower to serve", func() bool {
		m = c.nodes[follower].member.Load()
		return m != nil && c.nodes[follower].view() != nil
	})
	op := Op{Kind: OpPut, Cache: "c", Key: "k", Value: []byte("old"), base: m.fsm.st.rev.Load(), from: m.id}
	if _, err := there.Delete(ctx, "k", Quorum); err != nil {
		t.Fatal(err)
	}
	if out := m.submit(ctx, Quorum, request{ops: []Op{op}}); out.err != nil || out.resp.results[0].Done {
		t.Fatalf("a late direct put: %+v, %v", out.resp.results, out.err)
	}
	// Nor what was removed before it came to the log at all.
	late := func(cache, what string, remove func(c *Cache) error) {
		t.Helper()
		if _, err := here.Get(ctx, "none", Consistent); !errors.Is(err, ErrNotFound) { // the follower is up to date
			t.Fatal(err)
		}
		op := Op{Kind: OpPut, Cache: cache, Key: "never", Value: []byte("old"), base: m.fsm.st.rev.Load(), from: m.id}
		if err := remove(c.nodes[leader].Cache(cache)); err != nil && !errors.Is(err, ErrNotFound) {
			t.Fatal(what, err)
		}
		if out := m.submit(ctx, Quorum, request{ops: []Op{op}}); out.err != nil || out.resp.results[0].Done {
			t.Fatalf("a direct put after the %s of a key that was not there, in %s: %+v, %v", what, cache, out.resp.results, out.err)
		}
	}
	remove := func(c *Cache) error { _, err := c.Delete(ctx, "never", Quorum); return err }
	late("c", "delete", remove)
	late("c", "take", func(c *Cache) error { _, err := c.Take(ctx, "never"); return err })
	late("new", "delete", remove)
	late("newer", "clear", func(c *Cache) error { return c.Clear(ctx, Quorum) })
	// Nor what was overwritten by a value that has gone since.
	late("c", "expiry", func(c *Cache) error {
		if _, err := c.Put(ctx, "never", []byte("new"), time.Millisecond, Quorum); err != nil {
			return err
		}
		waitFor(t, 5*time.Second, "it to expire", func() bool {
			_, err := c.Get(ctx, "never", Consistent)
			return errors.Is(err, ErrNotFound)
		})
		return nil
	})
	late("small", "eviction", func(c *Cache) error {
		if _, err := c.Put(ctx, "never", []byte("new"), NoExpiry, Quorum); err != nil {
			return err
		}
		_, err := c.Put(ctx, "other", nil, NoExpiry, Quorum)
		return err
	})
}

// TestDirectAfterDelete: a direct put comes after what was acknowledged through its node before, at any level: an older delete does not
// take it away.
func TestDirectAfterDelete(t *testing.T) {
	c := newCluster(t, 3, Config{})
	ctx := t.Context()
	here := c.nodes[c.others(c.leader())[0]].Cache("c")
	for i := range 100 {
		key := fmt.Sprint(i)
		if _, err := here.Delete(ctx, key, Leader); err != nil {
			t.Fatal(err)
		}
		if _, err := here.Put(ctx, key, []byte("v"), NoExpiry, Direct); err != nil {
			t.Fatal(err)
		}
		if item, err := here.Get(ctx, key, OwnWrites); err != nil || string(item.Value) != "v" {
			t.Fatalf("own direct put: %q, %v", item.Value, err)
		}
	}
	if err := here.node.Settle(ctx); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if _, err := here.Get(ctx, fmt.Sprint(i), Consistent); err != nil {
			t.Fatalf("direct put %d: %v", i, err)
		}
	}
}

// TestDirectThenAsked: what depends on what is stored sees its own node's direct puts, which come before it ("own writes").
func TestDirectThenAsked(t *testing.T) {
	c := newCluster(t, 3, Config{})
	ctx := t.Context()
	n := c.nodes[c.others(c.leader())[0]]
	here := n.Cache("c")
	asked := []struct {
		what string
		sees func(key string) (bool, error)
	}{
		{"take", func(key string) (bool, error) {
			item, err := here.Take(ctx, key)
			return string(item.Value) == "5", err
		}},
		{"increment", func(key string) (bool, error) {
			sum, err := here.Increment(ctx, key, 1, NoExpiry)
			return sum == 6, err
		}},
		{"append", func(key string) (bool, error) {
			length, err := here.Append(ctx, key, []byte("0"), NoExpiry)
			return length == 2, err
		}},
		{"touch", func(key string) (bool, error) { return here.Touch(ctx, key, time.Hour) }},
		{"delete", func(key string) (bool, error) { return here.Delete(ctx, key, Quorum) }},
		{"put if absent", func(key string) (bool, error) {
			_, err := here.PutIfAbsent(ctx, key, []byte("6"), NoExpiry)
			if errors.Is(err, ErrConflict) {
				return true, nil
			}
			return false, err
		}},
		{"a transaction's read", func(key string) (bool, error) {
			get := Op{Kind: OpGet, Cache: "c", Key: key}
			results, err := n.Do(ctx, Quorum, Txn{Ops: []Op{get, {Kind: OpGet, Cache: "c", Key: "other"}}})
			return err == nil && string(results[0].Value) == "5", err
		}},
		{"a watch for absence", func(key string) (bool, error) {
			_, err := n.Do(ctx, Quorum, Txn{Watch: []Watch{{Cache: "c", Key: key}}, Ops: []Op{{Kind: OpPut, Cache: "c", Key: "other", TTL: NoExpiry}}})
			if errors.Is(err, ErrConflict) {
				return true, nil
			}
			return false, err
		}},
	}
	for i := range 20 {
		for _, one := range asked {
			key := fmt.Sprint(one.what, i)
			if _, err := here.Put(ctx, key, []byte("5"), NoExpiry, Direct); err != nil {
				t.Fatal(err)
			}
			if sees, err := one.sees(key); err != nil || !sees {
				t.Fatalf("%s %d does not see the direct put before it: %v", one.what, i, err)
			}
		}
	}
}

// TestDirectStays: on its node a direct put is seen from the moment of its answer, also while the log takes it.
func TestDirectStays(t *testing.T) {
	c := newCluster(t, 3, Config{})
	ctx := t.Context()
	n := c.nodes[c.others(c.leader())[0]]
	here, over := n.Cache("c"), n.member.Load().over
	for i := range 100 {
		key := fmt.Sprint(i)
		if _, err := here.Put(ctx, key, []byte("v"), NoExpiry, Direct); err != nil {
			t.Fatal(err)
		}
		for _, read := range []Read{Local, OwnWrites} {
			keys, err := here.List(ctx, key, "", 1, read)
			if err != nil || len(keys) != 1 || keys[0] != key {
				t.Fatalf("direct put %d is not listed: %q, %v", i, keys, err)
			}
		}
		if i == 0 {
			if keys, _, err := here.Scan(ctx, 0, 10, Local); err != nil || len(keys) != 1 {
				t.Fatalf("direct put %d is not scanned: %q, %v", i, keys, err)
			}
		}
		for there := true; there; {
			put, _ := over.get("c", key)
			there = put != nil
			if item, err := here.Get(ctx, key, Local); err != nil || string(item.Value) != "v" {
				t.Fatalf("direct put %d: %q, %v", i, item.Value, err)
			}
		}
	}
}

// TestSettle: the wait for direct puts ends when the log has decided them, not before. Until then they are shown with a version that no
// entry has, and their TTL runs.
func TestSettle(t *testing.T) {
	c := newCluster(t, 3, Config{ElectionTimeout: 500 * time.Millisecond, QuorumLossTimeout: 4 * time.Second})
	ctx := t.Context()
	leader := c.leader()
	n := c.nodes[c.others(leader)[0]]
	if err := n.Settle(ctx); err != nil {
		t.Fatal("there is nothing to wait for:", err)
	}
	version, err := n.Cache("c").Put(ctx, "k", []byte("before"), NoExpiry, Quorum)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Cache("c").Put(ctx, "short", []byte("before"), NoExpiry, Quorum); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Cache("c").Get(ctx, "short", OwnWrites); err != nil { // it has what it wrote: a direct put waits for that
		t.Fatal(err)
	}
	c.nw.set(n.host, leader, true)
	if _, err := n.Cache("c").Put(ctx, "short", []byte("v"), 200*time.Millisecond, Direct); err != nil {
		t.Fatal(err)
	}
	for i := range 3 { // also where one takes the place of another
		if _, err := n.Cache("c").Put(ctx, "k", []byte(fmt.Sprint(i)), NoExpiry, Direct); err != nil {
			t.Fatal(err)
		}
	}
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := n.Settle(short); !errors.Is(err, ErrUnknown) {
		t.Fatalf("with the leader out of reach: %v", err)
	}
	if item, err := n.Cache("c").Get(ctx, "k", Local); err != nil || string(item.Value) != "2" || item.Version == version || item.Version < undecided {
		t.Fatalf("a direct put shown as %+v, %v; the value before it had version %d", item, err, version)
	}
	waitFor(t, 5*time.Second, "the short one to expire", func() bool {
		_, err := n.Cache("c").Get(ctx, "short", Local)
		return errors.Is(err, ErrNotFound)
	})
	changes := c.nodes[leader].Cache("c").Subscribe("short")
	defer changes.Close()
	c.nw.set(n.host, leader, false)
	waitFor(t, 15*time.Second, "the puts to be decided", func() bool { return n.Settle(ctx) == nil })
	if item, err := c.nodes[leader].Cache("c").Get(ctx, "k", Consistent); err != nil || string(item.Value) != "2" {
		t.Fatalf("decided, and the leader has %q, %v", item.Value, err)
	}
	if _, err := n.Cache("c").CompareAndSwap(ctx, "k", version, nil, NoExpiry); !errors.Is(err, ErrConflict) {
		t.Fatalf("the version of the value before the direct put: %v", err)
	}
	if ev, err := changes.Next(ctx); err != nil || ev.Kind != Expired { // it would be Changed if the TTL began when the log took it
		t.Fatalf("a direct put that had expired on its node came to the log: %+v, %v", ev, err)
	}
	for _, node := range c.nodes {
		if item, err := node.Cache("c").Get(ctx, "short", Consistent); !errors.Is(err, ErrNotFound) {
			t.Fatalf("what had expired on one node is %q on %s, %v", item.Value, node.host, err)
		}
	}
}

// TestOrderOfLevels: at every level, from any node, a later write stands after an earlier acknowledged one.
func TestOrderOfLevels(t *testing.T) {
	c := newCluster(t, 3, Config{})
	ctx := t.Context()
	for i := range 60 {
		level, host := []Level{Quorum, Once, Leader}[i%3], c.hosts[i%2]
		value := fmt.Sprint(i)
		if _, err := c.nodes[host].Cache("c").Put(ctx, "k", []byte(value), NoExpiry, level); err != nil {
			t.Fatal(err)
		}
		if item, err := c.nodes[host].Cache("c").Get(ctx, "k", OwnWrites); err != nil || string(item.Value) != value {
			t.Fatalf("own write at %v: %q after %s, %v", level, item.Value, value, err)
		}
	}
}

// TestErrors: a write that was certainly not carried out is told from one that nobody knows of.
func TestErrors(t *testing.T) {
	c := newCluster(t, 3, Config{OperationTimeout: 300 * time.Millisecond})
	ctx := t.Context()
	leader := c.leader()
	cache := c.nodes[leader].Cache("c")
	c.nw.isolate(leader, c.hosts, true)
	_, err := cache.Put(ctx, "k", []byte("v"), NoExpiry, Quorum)
	if !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrNotDone) {
		t.Fatalf("a leader that is alone: %v", err)
	}
	if errors.Is(err, ErrUnknown) && errors.Is(err, ErrNotDone) {
		t.Fatalf("both: %v", err)
	}
	if _, err := cache.Get(ctx, "k", Consistent); err == nil || errors.Is(err, ErrNotFound) {
		t.Fatalf("a consistent read on a leader that is alone: %v", err)
	}
	c.nw.isolate(leader, c.hosts, false)
	if _, err := cache.Put(ctx, "", make([]byte, maxValue+1), NoExpiry, Quorum); !errors.Is(err, ErrTooLarge) || !errors.Is(err, ErrNotDone) {
		t.Fatalf("a value that is too large: %v", err)
	}
	watch := make([]Watch, 1000)
	for i := range watch {
		watch[i] = Watch{Cache: "c", Key: strings.Repeat("k", MaxKey)}
	}
	for what, watch := range map[string][]Watch{"a key": {{Cache: "c", Key: strings.Repeat("k", 40<<20)}}, "all": watch} {
		if _, err := cache.node.Do(ctx, Quorum, Txn{Watch: watch}); !errors.Is(err, ErrTooLarge) || !errors.Is(err, ErrNotDone) {
			t.Fatalf("%s of what is watched is too large: %v", what, err)
		}
	}
	if _, err := cache.node.Do(ctx, Quorum, Txn{Watch: []Watch{{Key: "k"}}}); !errors.Is(err, ErrInvalid) || !errors.Is(err, ErrNotDone) {
		t.Fatalf("a watched key of no cache: %v", err)
	}
	for _, name := range []string{"", "\xff"} {
		if _, err := cache.node.Cache(name).Put(ctx, "k", nil, NoExpiry, Quorum); !errors.Is(err, ErrInvalid) || !errors.Is(err, ErrNotDone) {
			t.Fatalf("a cache of the name %q: %v", name, err)
		}
	}
}

// TestRefusedAtEveryLevel: what its cache cannot hold is refused at the levels, too, that answer before the log is applied, and the first
// write of a cache is no exception (P11): nobody would hear of it afterwards.
func TestRefusedAtEveryLevel(t *testing.T) {
	c := newCluster(t, 2, Config{ElectionTimeout: 5 * time.Second, QuorumLossTimeout: time.Minute, Caches: map[string]Options{"small": {MaxBytes: 1000}}})
	ctx := t.Context()
	n := c.nodes[c.others(c.leader())[0]]
	for _, level := range []Level{Direct, Leader, Once, Quorum} {
		if _, err := n.Cache("small").Put(ctx, "k", make([]byte, 2000), NoExpiry, level); !errors.Is(err, ErrTooLarge) {
			t.Errorf("a value that is larger than its cache, at %v: %v", level, err)
		}
	}
	var all Txn
	for i := range maxCaches {
		all.Ops = append(all.Ops, Op{Kind: OpPut, Cache: fmt.Sprint(i), TTL: NoExpiry})
	}
	if _, err := n.Do(ctx, Quorum, all); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Cache("0").Get(ctx, "", OwnWrites); err != nil {
		t.Fatal(err)
	}
	for level := Quorum; level <= Direct; level++ {
		if _, err := n.Cache("another").Put(ctx, "k", nil, NoExpiry, level); !errors.Is(err, ErrTooLarge) {
			t.Errorf("a cache more than possible, at %v: %v", level, err)
		}
		if _, err := n.Cache("0").Put(ctx, "k", nil, NoExpiry, level); err != nil {
			t.Errorf("a cache that is there, at %v: %v", level, err)
		}
	}
	if err := n.Settle(ctx); err != nil {
		t.Error(err)
	}
}

// TestLostOwnWrite: when a write that was acknowledged below quorum is lost with the leader, one read waits an election timeout for it, and
// not each read after that.
func TestLostOwnWrite(t *testing.T) {
	c := newCluster(t, 2, Config{ElectionTimeout: time.Second, QuorumLossTimeout: time.Minute})
	ctx := t.Context()
	n := c.nodes[c.others(c.leader())[0]]
	if _, err := n.Cache("c").Put(ctx, "k", nil, NoExpiry, Quorum); err != nil {
		t.Fatal(err)
	}
	m := n.member.Load()
	m.ownWrite(m.lastOwn.Load() + 1000)
	began := time.Now()
	for range 11 {
		if _, err := n.Cache("c").Get(ctx, "k", OwnWrites); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 6*c.cfg.ElectionTimeout {
		t.Fatalf("eleven reads took %v", took)
	}
}
