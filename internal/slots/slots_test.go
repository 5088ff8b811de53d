package slots

import (
	"errors"
	"fmt"
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

// P12: what is remembered of repeats is bounded.
func TestBounded(t *testing.T) {
	k := NewKeeper(nil)
	for i := range 2*remembered + 5 {
		k.again(Request{ID: fmt.Sprint(i), Slot: "s", Repeat: true})
	}
	if len(k.repeat) != remembered || len(k.order) != remembered {
		t.Error(len(k.repeat), len(k.order))
	}
	if !k.again(Request{ID: fmt.Sprint(2*remembered + 4), Slot: "s"}) || k.again(Request{ID: "0", Slot: "s"}) {
		t.Error("the newest must be known, the oldest not")
	}
}
