package cache

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
	"unsafe"
)

// start runs a node until the test ends.
func start(t *testing.T, cfg Config) *Node {
	t.Helper()
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	waitFor(t, 10*time.Second, "the node to serve", func() bool { return n.Health().Status != Bad })
	return n
}

func waitFor(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(limit); !ok(); <-ticker.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", limit, what)
		}
	}
}

// TestOperations is the conformance of each operation, issue "Operations".
func TestOperations(t *testing.T) { testOperations(t, start(t, Config{}).Cache("c")) }

func testOperations(t *testing.T, c *Cache) {
	ctx := t.Context()
	is := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Fatalf("%s: %v, want %v", what, err, want)
		}
	}
	value := func(key, want string) {
		t.Helper()
		item, err := c.Get(ctx, key, Consistent)
		if want == "" {
			is("get "+key, err, ErrNotFound)
			return
		}
		if err != nil || string(item.Value) != want || item.Version == 0 {
			t.Fatalf("%s is %q (version %d), %v; want %q", key, item.Value, item.Version, err, want)
		}
	}
	value("a", "")
	v1, err := c.Put(ctx, "a", []byte("1"), NoExpiry, Quorum)
	is("put", err, nil)
	value("a", "1")
	for _, level := range []Level{Once, Leader, Direct} {
		want := level.String()
		_, err = c.Put(ctx, "l", []byte(want), NoExpiry, level)
		is("put at "+want, err, nil)
		if item, err := c.Get(ctx, "l", OwnWrites); err != nil || string(item.Value) != want {
			t.Fatalf("own write at %v: %q, %v", level, item.Value, err)
		}
	}
	_, err = c.PutIfAbsent(ctx, "a", []byte("2"), NoExpiry)
	is("put if absent", err, ErrConflict)
	_, err = c.PutIfAbsent(ctx, "b", []byte("2"), NoExpiry)
	is("put if absent", err, nil)
	old, err := c.Replace(ctx, "b", []byte("3"), NoExpiry)
	if err != nil || string(old.Value) != "2" {
		t.Fatalf("replace: %q, %v", old.Value, err)
	}
	_, err = c.Replace(ctx, "none", []byte("3"), NoExpiry)
	is("replace", err, ErrNotFound)
	value("none", "")
	v2, err := c.CompareAndSwap(ctx, "a", v1, []byte("4"), NoExpiry)
	if err != nil || v2 <= v1 {
		t.Fatalf("compare and swap: version %d after %d, %v", v2, v1, err)
	}
	now, err := c.CompareAndSwap(ctx, "a", v1, []byte("5"), NoExpiry)
	is("compare and swap with an old version", err, ErrConflict)
	if now != v2 {
		t.Fatalf("conflict names version %d, want %d", now, v2)
	}
	item, err := c.Take(ctx, "a")
	if err != nil || string(item.Value) != "4" {
		t.Fatalf("take: %q, %v", item.Value, err)
	}
	_, err = c.Take(ctx, "a")
	is("second take", err, ErrNotFound)
	existed, err := c.Delete(ctx, "b", Quorum)
	if err != nil || !existed {
		t.Fatalf("delete: %v, %v", existed, err)
	}
	value("b", "")
	testNumbers(t, c, is)
	testTTL(t, c, is)
	testLists(t, c)
	is("clear", c.Clear(ctx, Quorum), nil)
	if n, err := c.List(ctx, "", "", 0, Consistent); err != nil || len(n) != 0 {
		t.Fatalf("after clear: %q, %v", n, err)
	}
	testTransaction(t, c, is)
}

func testNumbers(t *testing.T, c *Cache, is func(string, error, error)) {
	ctx := t.Context()
	for _, want := range []int64{5, 10} {
		if n, err := c.Increment(ctx, "n", 5, NoExpiry); err != nil || n != want {
			t.Fatalf("increment: %d, %v", n, err)
		}
	}
	_, err := c.Increment(ctx, "n", math.MaxInt64, NoExpiry)
	is("increment", err, ErrOverflow)
	if n, err := c.Append(ctx, "n", []byte("x"), NoExpiry); err != nil || n != 3 {
		t.Fatalf("append: %d, %v", n, err)
	}
	_, err = c.Increment(ctx, "n", 1, NoExpiry)
	is("increment", err, ErrNotNumber)
}

func testTTL(t *testing.T, c *Cache, is func(string, error, error)) {
	ctx := t.Context()
	_, err := c.Put(ctx, "t", []byte("x"), 60*time.Millisecond, Quorum)
	is("put with TTL", err, nil)
	item, err := c.Get(ctx, "t", OwnWrites)
	if err != nil || item.TTL <= 0 || item.TTL > 60*time.Millisecond {
		t.Fatalf("TTL is %v, %v", item.TTL, err)
	}
	waitFor(t, 5*time.Second, "expiry", func() bool {
		_, err := c.Get(ctx, "t", Consistent)
		return errors.Is(err, ErrNotFound)
	})
	if _, err := c.Put(ctx, "t", []byte("x"), time.Hour, Quorum); err != nil {
		t.Fatal(err)
	}
	if ok, err := c.Touch(ctx, "t", NoExpiry); err != nil || !ok {
		t.Fatalf("persist: %v, %v", ok, err)
	}
	if item, err := c.Get(ctx, "t", Consistent); err != nil || item.TTL != NoExpiry {
		t.Fatalf("after persist: TTL %v, %v", item.TTL, err)
	}
	_, err = c.Put(ctx, "t", []byte("x"), time.Microsecond, Quorum)
	is("a TTL below a millisecond", err, ErrInvalid)
	is("a TTL below a millisecond", err, ErrNotDone)
}

func testLists(t *testing.T, c *Cache) {
	ctx := t.Context()
	var want []string
	for i := range 300 {
		key := fmt.Sprintf("list/%03d", i)
		want = append(want, key)
		if _, err := c.Put(ctx, key, nil, NoExpiry, Quorum); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for after := ""; ; after = got[len(got)-1] {
		page, err := c.List(ctx, "list/", after, 70, Consistent)
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, page...); len(page) < 70 {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("listed %d keys, want %d", len(got), len(want))
	}
	seen := map[string]bool{}
	for cursor := uint64(0); ; {
		keys, next, err := c.Scan(ctx, cursor, 10, Consistent)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			seen[k] = true
		}
		if cursor = next; cursor == 0 {
			break
		}
	}
	for _, k := range want {
		if !seen[k] {
			t.Fatalf("scan did not return %s", k)
		}
	}
}

func testTransaction(t *testing.T, c *Cache, is func(string, error, error)) {
	ctx, name := t.Context(), c.Name()
	set := func(k, v string) Op { return Op{Kind: OpPut, Cache: name, Key: k, Value: []byte(v), TTL: NoExpiry} }
	res, err := c.node.Do(ctx, Quorum, Txn{
		Watch: []Watch{{name, "x", 0}, {name, "y", 0}},
		Ops:   []Op{set("x", "1"), set("y", "2"), {Kind: OpGet, Cache: name, Key: "x"}},
	})
	if err != nil || len(res) != 3 || string(res[2].Value) != "1" {
		t.Fatalf("transaction: %+v, %v", res, err)
	}
	_, err = c.node.Do(ctx, Quorum, Txn{Watch: []Watch{{name, "x", 0}}, Ops: []Op{set("z", "1")}})
	is("transaction with a changed key", err, ErrConflict)
	items, err := c.GetMany(ctx, []string{"x", "y", "z"}, Consistent)
	if err != nil || string(items[0].Value) != "1" || string(items[1].Value) != "2" || items[2].Version != 0 {
		t.Fatalf("many: %+v, %v", items, err)
	}
}

// TestEviction: the entry not written for longest goes first, and the bounds hold after every write.
func TestEviction(t *testing.T) {
	c := start(t, Config{Caches: map[string]Options{"c": {MaxEntries: 3}, "b": {MaxBytes: 1000}}}).Cache("c")
	for _, key := range []string{"a", "b", "c", "a", "d"} {
		if _, err := c.Put(t.Context(), key, nil, NoExpiry, Quorum); err != nil {
			t.Fatal(err)
		}
	}
	if keys, err := c.List(t.Context(), "", "", 0, Local); err != nil || !slices.Equal(keys, []string{"a", "c", "d"}) {
		t.Fatalf("left are %q, %v", keys, err)
	}
	b := c.node.Cache("b")
	for i := range 20 {
		if _, err := b.Put(t.Context(), fmt.Sprint(i), make([]byte, 100), NoExpiry, Quorum); err != nil {
			t.Fatal(err)
		}
		if size := c.node.Stats().Caches["b"].Bytes; size > 1000 {
			t.Fatalf("%d bytes after %d writes", size, i+1)
		}
	}
	if _, err := b.Put(t.Context(), "large", make([]byte, 1000), NoExpiry, Quorum); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("an entry larger than the cache: %v", err)
	}
}

// TestSubscribe: changes come in order and without loss, or with a clear "you missed some".
func TestSubscribe(t *testing.T) {
	n := start(t, Config{})
	ctx, c := t.Context(), n.Cache("c")
	sub := n.Subscribe(Filter{Cache: "c", Prefix: "k", Messages: true, Buffer: 4})
	defer sub.Close()
	put := func(key string) {
		if _, err := c.Put(ctx, key, []byte(key), NoExpiry, Quorum); err != nil {
			t.Fatal(err)
		}
	}
	put("k1")
	put("other")
	if err := n.Publish(ctx, "news", []byte("hello"), Quorum); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Take(ctx, "k1"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []Event{{Kind: Changed, Key: "k1"}, {Kind: Published, Key: "news"}, {Kind: Removed, Key: "k1"}} {
		if ev, err := sub.Next(ctx); err != nil || ev.Kind != want.Kind || ev.Key != want.Key {
			t.Fatalf("event %+v, %v; want %+v", ev, err, want)
		}
	}
	for i := range 10 {
		put(fmt.Sprint("k", i))
	}
	if ev, err := sub.Next(ctx); err != nil || ev.Kind != Missed {
		t.Fatalf("a slow subscriber gets %+v, %v", ev, err)
	}
}

// TestSubscriberBytes: what waits for a subscriber is bounded in bytes, too (P12); a single event comes through whatever its size.
func TestSubscriberBytes(t *testing.T) {
	events := newEvents()
	sub := events.add(Filter{Messages: true})
	defer sub.Close()
	next := func(want EventKind) {
		t.Helper()
		if ev, ok := sub.take(); !ok || ev.Kind != want {
			t.Fatalf("%+v, %v; want %v", ev.Kind, ok, want)
		}
	}
	put := func(count, size int) {
		value := make([]byte, size)
		for range count {
			sub.put(Event{Kind: Published, Key: "news", Value: value})
		}
	}
	for range 3 {
		put(1, bufferBytes+1)
		next(Published)
		put(63, 1<<20)
		for range 63 {
			next(Published)
		}
		put(100, 1<<20)
		next(Missed)
		for sub.bytes > 0 {
			next(Published)
		}
		if _, more := sub.take(); more {
			t.Fatal("more waits than is counted")
		}
	}
	// What is removed is told without its value, which does not wait either.
	st := newState(events)
	changes := events.add(Filter{Cache: "c"})
	defer changes.Close()
	st.apply(&batch{requests: []request{{ops: []Op{{Kind: OpPut, Cache: "c", Key: "k", Value: []byte("v"), TTL: NoExpiry}}}}})
	key := st.table("c").get("k").key
	st.apply(deletion("c", "k"))
	_, _ = changes.take()
	if ev, _ := changes.take(); ev.Kind != Removed || ev.Key != key || unsafe.StringData(ev.Key) == unsafe.StringData(key) {
		t.Fatalf("%+v keeps the value", ev)
	}
}

// TestWriteStats: "write latency per level": of the level at which a write was carried out, which is not always the one asked for.
func TestWriteStats(t *testing.T) {
	var told []Level
	n := start(t, Config{Observer: Observer{Write: func(level Level, _ time.Duration, _ bool) { told = append(told, level) }}})
	for _, op := range []Op{{Kind: OpIncrement, Key: "n", TTL: NoExpiry, Delta: 1}, {Kind: OpPut, Key: "k", TTL: NoExpiry}, {Kind: OpDelete, Key: "k"}} {
		if _, err := n.Cache("c").Do(t.Context(), Direct, op); err != nil {
			t.Fatal(err)
		}
	}
	if want := []Level{Quorum, Direct, Leader}; !slices.Equal(told, want) {
		t.Errorf("told of writes at %v, want %v", told, want)
	}
	for level, done := range map[Level]uint64{Quorum: 1, Once: 0, Leader: 1, Direct: 1} {
		if got := n.Stats().Writes[level].Done; got != done {
			t.Errorf("%d writes at %v, want %d", got, level, done)
		}
	}
}

// TestExpiredStaysExpired: an entry of the log that was on its way for long does not set the time back by which reads find what has
// expired: nothing is seen longer than its TTL.
func TestExpiredStaysExpired(t *testing.T) {
	st, n := newState(newEvents()), &Node{}
	put := Op{Kind: OpPut, Cache: "c", Key: "k", TTL: 5 * time.Second}
	st.apply(&batch{stamp: 1_700_000_100_000, requests: []request{{ops: []Op{put}}}})
	e := st.table("c").get("k")
	if n.visible(st, e, Local) == 0 {
		t.Fatal("the entry is not there")
	}
	st.ahead.Store(1_700_000_110_000 - now()/int64(time.Millisecond)) // as a pulse does
	if left := n.visible(st, e, Local); left != 0 {
		t.Fatalf("%v are left of an entry that has expired", left)
	}
	st.apply(&batch{stamp: 1_700_000_102_000})
	if left := n.visible(st, e, Local); left != 0 {
		t.Fatalf("it has expired, a late entry of the log came, and %v are left", left)
	}
}
