package slots

import (
	"errors"
	"fmt"
	"strconv"
	"testing"

	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/memory"
)

func commit(t *testing.T, s physical.Backend, r Request, answer any) {
	t.Helper()
	ops, err := r.Append(nil, answer)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(t.Context(), nil, ops...); err != nil {
		t.Fatal(err)
	}
}

// P6: a write is carried out once, whichever of its attempts come.
func TestAnswered(t *testing.T) {
	s := memory.NewStore().Open()
	defer s.Close()
	k := NewKeeper(s)
	ctx := t.Context()
	first := Request{ID: "id-1", Slot: "node/1/7"}
	again := Request{ID: "id-1", Slot: "node/1/7", Repeat: true}
	check := func(what string, r Request, want bool) {
		t.Helper()
		var answer string
		got, err := k.Answered(ctx, r, &answer)
		if err != nil || got != want || got && answer != "answer of "+r.ID {
			t.Errorf("%s: %v, %q, %v", what, got, answer, err)
		}
	}
	check("never seen", first, false)
	commit(t, s, first, "answer of id-1")
	check("first attempt, nobody repeated it", first, false)
	check("repeat", again, true)
	check("first attempt after its own repeat", first, true)
	check("the slot's next request", Request{ID: "id-2", Slot: "node/1/7"}, false)
	check("the slot's next request, repeated", Request{ID: "id-2", Slot: "node/1/7", Repeat: true}, false)
	check("never repeated", Request{ID: "id-1", Repeat: true}, false)
	check("another node's request of the same id", Request{ID: "id-1", Slot: "other/1/7"}, false)
	if ok, err := k.Answered(ctx, again, nil); !ok || err != nil {
		t.Error(ok, err)
	}
}

// The stored format is frozen: the next active node may be an older build.
func TestFormat(t *testing.T) {
	ops, err := Request{ID: "i", Slot: "a/b/1"}.Append(nil, map[string]int{"version": 3})
	if err != nil || len(ops) != 1 || ops[0].Key != "core/request/a/b/1" || string(ops[0].Value) != `{"format":1,"id":"i","answer":{"version":3}}` {
		t.Errorf("%v, %v", ops, err)
	}
	if ops, err := (Request{ID: "i"}).Append(nil, 1); err != nil || ops != nil {
		t.Errorf("%v, %v", ops, err)
	}
	s := memory.NewStore().Open()
	defer s.Close()
	if err := s.Commit(t.Context(), nil, physical.Put(Prefix+"a", []byte(`{"format":2}`)), physical.Put(Prefix+"b", []byte(`nonsense`))); err != nil {
		t.Fatal(err)
	}
	if _, err := NewKeeper(s).Answered(t.Context(), Request{Slot: "a", Repeat: true}, nil); !errors.Is(err, ErrNewerFormat) {
		t.Error(err)
	}
	if _, err := NewKeeper(s).Answered(t.Context(), Request{Slot: "b", Repeat: true}, nil); err == nil {
		t.Error("nonsense was read")
	}
}

// P12: what is remembered of repeats and slots is bounded.
func TestBounded(t *testing.T) {
	k := NewKeeper(nil)
	for i := range 2*remembered + 5 {
		k.Arrived(Request{ID: strconv.Itoa(i), Slot: fmt.Sprint("s", i), Repeat: true})
	}
	if len(k.repeat.m) != remembered || len(k.repeat.order) != remembered || len(k.latest.m) != remembered || len(k.latest.order) != remembered {
		t.Error(len(k.repeat.m), len(k.repeat.order), len(k.latest.m), len(k.latest.order))
	}
	newest := Request{ID: fmt.Sprint(2*remembered + 4), Slot: fmt.Sprint("s", 2*remembered+4)}
	if !k.Repeated(newest) || k.Repeated(Request{ID: "0", Slot: "s0"}) {
		t.Error("the newest must be known, the oldest not")
	}
	if !k.Over(newest.Slot, 0) || k.Over("s1", 0) {
		t.Error("the newest slot must be known, the oldest not")
	}
}

// A request is over once its slot was used by a later one: numbers are compared, not texts, and an old one that arrives late is no later one.
func TestOver(t *testing.T) {
	k := NewKeeper(nil)
	for _, id := range []string{"9", "z", "10", "5"} { // base 36: 9, 35, 36, 5
		k.Arrived(Request{ID: id, Slot: "s"})
	}
	k.Arrived(Request{ID: "not-a-number", Slot: "t"})
	for n, want := range map[uint64]bool{5: true, 35: true, 36: false, 37: false} {
		if k.Over("s", n) != want {
			t.Errorf("%d: not %v", n, want)
		}
	}
	if k.Over("t", 0) {
		t.Error("an id that is no number is later than nothing")
	}
	for id, want := range map[string]bool{"0": true, "a1": true, "3w5e11264sgsf": true, "3w5e11264sgsg": false, "": false, "00": false, "01": false, "A": false, "-1": false, "+1": false, "1_0": false, "id-1": false} {
		if _, ok := (Request{ID: id, Slot: "s"}).Number(); ok != want {
			t.Errorf("%q is a number: %v", id, ok)
		}
	}
	if _, ok := (Request{ID: "1"}).Number(); ok {
		t.Error("a request without a slot has no number")
	}
}

// P6: what is put into a slot on behalf of a request is found by its repeat, and never displaces what a later request has put there.
func TestKeep(t *testing.T) {
	s := memory.NewStore().Open()
	defer s.Close()
	ctx := t.Context()
	k := NewKeeper(s)
	keep := func(n uint64) []physical.Op {
		t.Helper()
		ops, err := k.Keep(ctx, "node/1/7", n, "answer of "+strconv.FormatUint(n, 36))
		if err != nil {
			t.Fatal(err)
		}
		return ops
	}
	empty := keep(36)
	if err := s.Commit(ctx, nil, empty...); err != nil {
		t.Fatal(err)
	}
	var answer string
	if done, err := k.Answered(ctx, Request{ID: "10", Slot: "node/1/7", Repeat: true}, &answer); !done || answer != "answer of 10" || err != nil {
		t.Errorf("%v, %q, %v", done, answer, err)
	}
	before := keep(37)
	commit(t, s, Request{ID: "12", Slot: "node/1/7"}, "answer of 12")
	for _, ops := range [][]physical.Op{empty, before} {
		if err := s.Commit(ctx, nil, ops...); !errors.Is(err, physical.ErrConflict) {
			t.Errorf("it displaces a later one: %v", err)
		}
	}
	if ops := keep(37); ops != nil || !k.Over("node/1/7", 37) {
		t.Errorf("the slot was used later: %v", ops)
	}
	commit(t, s, Request{ID: "nonsense-", Slot: "node/1/7"}, nil)
	if _, err := k.Keep(ctx, "node/1/7", 99, nil); err == nil {
		t.Error("nonsense was displaced")
	}
}
