package physical_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
)

// Errors that carry more are found by meaning, also when they are wrapped.
func TestErrors(t *testing.T) {
	record := physical.Record{Holder: "id", Name: "node", Term: 7}
	err := fmt.Errorf("acquire: %w", &physical.HeldError{Record: record})
	var held *physical.HeldError
	if !errors.Is(err, physical.ErrHeld) || !errors.As(err, &held) || held.Record != record || errors.Is(err, physical.ErrLost) {
		t.Errorf("a wrapped HeldError: %v", err)
	}
	err = fmt.Errorf("commit: %w", &physical.TooLargeError{What: "value", Key: "a/b", Size: 3, Limit: 2})
	if want := `commit: value of "a/b" too large: 3, the store's limit is 2`; !errors.Is(err, physical.ErrTooLarge) || err.Error() != want {
		t.Errorf("a wrapped TooLargeError: %v", err)
	}
	err = &physical.TooLargeError{What: "ops in a commit", Size: 3, Limit: 2}
	if want := `ops in a commit too large: 3, the store's limit is 2`; err.Error() != want {
		t.Errorf("a TooLargeError without a key: %v", err)
	}
}

// A fence is replaced by a higher term only, of whichever lineage (P1).
func TestFenceBelow(t *testing.T) {
	now := physical.Fence{Lineage: "a", Term: 5, Nonce: [16]byte{1}}
	for name, c := range map[string]struct {
		to   physical.Fence
		want bool
	}{
		"higher":             {physical.Fence{Lineage: "a", Term: 6}, true},
		"higher, other":      {physical.Fence{Lineage: "b", Term: 6}, true},
		"the same":           {now, false},
		"same term":          {physical.Fence{Lineage: "a", Term: 5, Nonce: [16]byte{2}}, false},
		"same term, other":   {physical.Fence{Lineage: "b", Term: 5}, false},
		"lower, other":       {physical.Fence{Lineage: "b", Term: 1}, false},
		"without a lineage":  {physical.Fence{Term: 6}, false},
		"none":               {physical.Fence{}, false},
		"the highest number": {physical.Fence{Lineage: "a", Term: 1<<64 - 1}, true},
	} {
		if got := now.Below(c.to); got != c.want {
			t.Errorf("%s: %v below %v is %v", name, now, c.to, got)
		}
	}
	if !(physical.Fence{}).IsZero() || now.IsZero() || !(physical.Fence{}).Below(now) {
		t.Errorf("the zero fence is not the one before the first")
	}
	if want := "a/5/01000000"; now.String() != want {
		t.Errorf("the fence is shown as %q, want %q", now, want)
	}
}

// What is stored, or passed to the guardian, is frozen: a grant's text, and the numbers of the kinds of op.
func TestFrozen(t *testing.T) {
	g := physical.Grant{
		Record: physical.Record{Holder: "id", Name: "node", Term: 1<<64 - 1, Next: "other"},
		TTL:    1500 * time.Millisecond,
		Token:  []byte{0, 0xff},
	}
	text, err := json.Marshal(g)
	want := `{"record":{"holder":"id","name":"node","term":18446744073709551615,"next":"other"},"ttl_ns":1500000000,"token":"AP8="}`
	if err != nil || string(text) != want {
		t.Errorf("a grant is %s, %v, want %s", text, err, want)
	}
	var back physical.Grant
	if err := json.Unmarshal([]byte(want), &back); err != nil || !reflect.DeepEqual(back, g) || back.Term() != g.Record.Term {
		t.Errorf("read back it is %+v, %v", back, err)
	}
	kinds := []physical.OpKind{physical.OpPut, physical.OpDelete, physical.OpRequireAbsent, physical.OpRequireValue}
	for i, kind := range kinds {
		if int(kind) != i+1 {
			t.Errorf("the kind %d was %d", kind, i+1)
		}
		if op := (physical.Op{Kind: kind}); op.IsCondition() != (i >= 2) {
			t.Errorf("kind %d is a condition: %v", kind, op.IsCondition())
		}
	}
}
