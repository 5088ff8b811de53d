package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
)

func deletion(cache, key string) *batch {
	return &batch{requests: []request{{ops: []Op{{Kind: OpDelete, Cache: cache, Key: key}}}}}
}

// TestTombs: what is remembered of keys that were deleted without having been there is bounded (P12), and travels with the state: a node
// that received it decides on direct puts as the others do.
func TestTombs(t *testing.T) {
	f := newFSM(newEvents(), newMemLog())
	f.st.apply(deletion("new", "k")) // a cache that is not there
	base := f.st.rev.Load()
	f.st.apply(&batch{requests: []request{{ops: []Op{{Kind: OpPut, Cache: "c", Key: "there", TTL: NoExpiry}}}}})
	for i := range 3 * tombCount {
		f.st.apply(deletion("c", fmt.Sprint(i)))
	}
	if tombs := &f.st.table("c").tombs; len(tombs.order) != tombCount || len(tombs.at) > tombCount {
		t.Fatalf("%d and %d are remembered, %d are enough", len(tombs.order), len(tombs.at), tombCount)
	}
	state := func(f *fsm) []byte {
		b, err := io.ReadAll(&capturedReader{capture: f.capture()})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	other := newFSM(newEvents(), newMemLog())
	p := &parcel{st: newState(newEvents()), store: &snapshots{fsm: other, arrived: func(*parcel) {}}}
	if _, err := p.Write(state(f)); err != nil || p.Close() != nil {
		t.Fatal("the state did not arrive", err)
	}
	other.st = p.st
	for i, base := range []uint64{base, f.st.rev.Load() - 1, f.st.rev.Load()} {
		for _, cache := range []string{"c", "later"} {
			key := fmt.Sprint(3*tombCount - 1)
			put := &batch{requests: []request{{ops: []Op{{Kind: OpPut, Cache: cache, Key: key, TTL: NoExpiry, base: base, from: "x"}}}}}
			a, b := f.st.apply(put)[0].results[0], other.st.apply(put)[0].results[0]
			if a.Done != b.Done || a.Version != b.Version {
				t.Errorf("put %d in %s: %+v, and on the node that received the state %+v", i, cache, a, b)
			}
			if cache == "c" && a.Done != (i == 2) {
				t.Errorf("put %d in %s: %+v", i, cache, a)
			}
		}
	}
	for _, f := range []*fsm{f, other} {
		f.st.apply(deletion("last", "k"))
	}
	if !bytes.Equal(state(f), state(other)) {
		t.Error("the states are not the same any more")
	}
}

// TestSettling: a put that takes the place of one that was not sent is waited for in its stead; what was lost is told.
func TestSettling(t *testing.T) {
	o := newOverlays()
	put := func(value string) {
		t.Helper()
		op := Op{Kind: OpPut, Cache: "c", Key: "k", Value: []byte(value)}
		if err := o.put(op, newEntry(op.Key, op.Value), 0); err != nil {
			t.Fatal(err)
		}
	}
	is := func(what string, s *settling, done bool, lost error) {
		t.Helper()
		over := false
		select {
		case <-s.done:
			over = true
		default:
		}
		if over != done || over && !errors.Is(s.lost, lost) {
			t.Fatalf("%s: done %v, lost %v", what, over, s.lost)
		}
	}
	if o.await() != nil {
		t.Fatal("there is nothing to wait for")
	}
	put("1")
	k, one := o.next()
	first := o.await()
	put("2")
	second := o.await()
	put("3")
	if third := o.await(); third != second || second.prev != first {
		t.Fatal("the third put is not waited for in the second's stead")
	}
	is("sent", first, false, nil)
	o.decided(k, one, false, nil)
	is("sent and decided", first, true, nil)
	is("not sent yet", second, false, nil)
	_, three := o.next()
	o.decided(k, three, true, ErrUnknown)
	is("to be sent again", second, false, nil)
	_, three = o.next()
	o.decided(k, three, false, ErrNotDone)
	is("lost", second, true, ErrNotDone)
	put("4")
	removed := o.await()
	o.removed("c", "k")
	is("removed by the log", removed, true, nil)
	if o.await() != nil {
		t.Fatal("there is nothing to wait for any more")
	}
}

// TestDirectExpires: a direct put expires when it did on its node, whenever it comes to the log (ADR 0019, 5); what it had replaced does
// not come back; and a put that follows it on its node is not the older one for that.
func TestDirectExpires(t *testing.T) {
	st, o := newState(nil), newOverlays()
	apply := func(stamp int64, op Op) Result {
		b := &batch{stamp: stamp, requests: []request{{ops: []Op{op}}}}
		return st.apply(b)[0].results[0]
	}
	there := func() bool { return st.live(st.table("c"), "k") != nil }
	put := func(ends int64) {
		t.Helper()
		op := Op{Kind: OpPut, Cache: "c", Key: "k", TTL: NoExpiry, base: st.rev.Load(), from: "x", ends: ends}
		if err := o.put(op, newEntry(op.Key, nil), 0); err != nil {
			t.Fatal(err)
		}
	}
	propose := func(stamp int64, repeats int) Result {
		t.Helper()
		k, over := o.next()
		if over == nil {
			t.Fatal("nothing is proposed")
		}
		put(0) // meanwhile
		r := apply(stamp, over.op)
		for range repeats {
			apply(stamp, over.op)
		}
		o.taken(k, over, &response{results: []Result{r}})
		o.decided(k, over, false, nil)
		return r
	}
	put(1000)
	if r := propose(400, 0); !r.Done || st.live(st.table("c"), "k").expires != 1000 {
		t.Fatalf("in time: %+v, %+v", r, st.live(st.table("c"), "k"))
	}
	apply(500, Op{Kind: OpPut, Cache: "c", Key: "k", TTL: NoExpiry})
	k, over := o.next()
	o.removed("c", "k")
	o.decided(k, over, false, nil)
	put(1000)
	if r := propose(1200, 1); !r.Done || there() {
		t.Fatalf("late: %+v, and the key is there: %v", r, there())
	}
	_, next := o.next()
	if r := apply(1300, next.op); !r.Done || !there() {
		t.Fatalf("the put after it: %+v", r)
	}
}

// TestPutAfterRemoval: a direct put to a key that the log has removed does not overtake the one before, which is still on its way, and does not
// come after it either: the removal lies between them.
func TestPutAfterRemoval(t *testing.T) {
	o := newOverlays()
	put := func(value string) {
		if err := o.put(Op{Cache: "c", Key: "k", Value: []byte(value)}, newEntry("k", nil), 0); err != nil {
			t.Fatal(err)
		}
	}
	put("one")
	k, one := o.next()
	o.removed("c", "k")
	put("two")
	if _, over := o.next(); over != nil {
		t.Fatalf("%q is proposed beside the one before", over.op.Value)
	}
	put("three")
	o.taken(k, one, &response{results: []Result{{Done: true, Version: 7}}})
	o.decided(k, one, false, nil)
	_, over := o.next()
	if over == nil || string(over.op.Value) != "three" || over.op.base != 0 {
		t.Fatalf("then %+v is proposed, want the newest, from where the removal was not known", over)
	}
	o.decided(k, over, false, nil)
	if _, over := o.next(); over != nil || len(o.m)+len(o.aloft) != 0 || o.bytes != 0 {
		t.Fatalf("%v is left, %d bytes", over, o.bytes)
	}
}
