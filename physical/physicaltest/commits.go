package physicaltest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/locum-ha/locum/physical"
)

// checkCommitWhole: "Commit applies all ops … or none", with everything that can make it refuse.
func checkCommitWhole(s *scene) {
	b := s.writer()
	s.must(b.Commit(s.ctx, nil, physical.Put("a", []byte("1")), physical.Put("b/c", []byte("2")), physical.Put("old", nil)),
		"commit")
	s.must(b.Commit(s.ctx, nil, physical.Put("a", []byte("3")), physical.Delete("old"), physical.Delete("never"),
		physical.Put("new/x", []byte("4"))), "commit")
	s.wantValue(b, "a", "3")
	s.wantValue(b, "b/c", "2")
	s.wantValue(b, "new/x", "4")
	s.wantNone(b, "old")

	writes := []physical.Op{physical.Put("a", []byte("no")), physical.Put("no", nil), physical.Delete("b/c")}
	for what, last := range map[string]physical.Op{
		"an invalid key":     physical.Put("x//y", nil),
		"an unknown op":      {Kind: 99, Key: "x"},
		"no op":              {Key: "x"},
		"a key twice":        physical.Put("a", nil),
		"a key twice, mixed": physical.Delete("a"),
	} {
		s.wantErr(b.Commit(s.ctx, nil, append(writes, last)...), physical.ErrInvalid, "commit with %s", what)
	}
	twice := append(writes, physical.RequireAbsent("z"), physical.RequireValue("z", nil))
	s.wantErr(b.Commit(s.ctx, nil, twice...), physical.ErrInvalid, "commit with a key conditioned twice")
	s.wantErr(b.Commit(s.ctx, nil, append(writes, physical.RequireAbsent("a"))...), physical.ErrConflict, "a condition last")
	s.wantErr(b.Commit(s.ctx, nil, append([]physical.Op{physical.RequireAbsent("a")}, writes...)...), physical.ErrConflict,
		"a condition first")
	s.wantValue(b, "a", "3")
	s.wantValue(b, "b/c", "2")
	s.wantNone(b, "no")
	s.wantNone(b, "x")
}

// checkConditions: "Conditions among them are checked against the state before the commit; if one fails
// nothing is written and the error is ErrConflict."
func checkConditions(s *scene) {
	b := s.writer()
	s.put(b, "full", "value")
	s.put(b, "empty", "")
	s.put(b, "folder/entry", "x")
	for what, c := range map[string]struct {
		op   physical.Op
		hold bool
	}{
		"absent, no entry":           {physical.RequireAbsent("none"), true},
		"absent, a folder":           {physical.RequireAbsent("folder"), true},
		"absent, an entry":           {physical.RequireAbsent("full"), false},
		"absent, an empty entry":     {physical.RequireAbsent("empty"), false},
		"value, the same":            {physical.RequireValue("full", []byte("value")), true},
		"value, a prefix":            {physical.RequireValue("full", []byte("valu")), false},
		"value, longer":              {physical.RequireValue("full", []byte("value\x00")), false},
		"value, another case":        {physical.RequireValue("full", []byte("Value")), false},
		"value, empty":               {physical.RequireValue("full", nil), false},
		"value, no entry":            {physical.RequireValue("none", []byte("value")), false},
		"empty value, empty entry":   {physical.RequireValue("empty", nil), true},
		"empty value, no entry":      {physical.RequireValue("none", nil), false},
		"empty value, a folder":      {physical.RequireValue("folder", []byte{}), false},
		"a value, empty entry":       {physical.RequireValue("empty", []byte{0}), false},
		"value, another key's entry": {physical.RequireValue("folder/entry", []byte("value")), false},
	} {
		key := "written/" + strings.ReplaceAll(what, " ", "-")
		err := b.Commit(s.ctx, nil, physical.Put(key, nil), c.op)
		if c.hold {
			s.must(err, "condition %s", what)
			s.wantValue(b, key, "")
		} else {
			s.wantErr(err, physical.ErrConflict, "condition %s", what)
			s.wantNone(b, key)
		}
	}
	// Conditions alone check, and write nothing.
	s.must(b.Commit(s.ctx, nil, physical.RequireValue("full", []byte("value")), physical.RequireAbsent("none")), "check")
	s.wantErr(b.Commit(s.ctx, nil, physical.RequireAbsent("none"), physical.RequireAbsent("full")), physical.ErrConflict, "check")
	s.wantNone(b, "none")
}

// checkConditionsSeeStateBefore: a condition and a write of one key go together, in whichever order they stand.
func checkConditionsSeeStateBefore(s *scene) {
	b := s.writer()
	s.must(b.Commit(s.ctx, nil, physical.Put("a", []byte("1")), physical.RequireAbsent("a")), "create")
	s.must(b.Commit(s.ctx, nil, physical.Put("a", []byte("2")), physical.RequireValue("a", []byte("1"))), "swap")
	s.wantErr(b.Commit(s.ctx, nil, physical.Put("a", []byte("3")), physical.RequireValue("a", []byte("3"))),
		physical.ErrConflict, "swap that would hold afterwards")
	s.wantErr(b.Commit(s.ctx, nil, physical.Delete("a"), physical.RequireAbsent("a")), physical.ErrConflict, "delete and require absent")
	s.wantValue(b, "a", "2")
	s.must(b.Commit(s.ctx, nil, physical.RequireValue("a", []byte("2")), physical.Delete("a")), "delete if unchanged")
	s.wantNone(b, "a")
}

// checkLimits: "Ops beyond the store's limits (Caps) are refused with a *TooLargeError before anything is
// sent." What is just within them is written.
func checkLimits(s *scene) {
	b := s.writer()
	caps := b.Caps()
	s.put(b, "before", "kept")
	limits := map[string]struct {
		limit int
		ops   func(size int) []physical.Op
	}{
		"key": {caps.MaxKey, func(size int) []physical.Op {
			return []physical.Op{physical.Put("k/"+strings.Repeat("x", size-2), nil)}
		}},
		"value": {caps.MaxValue, func(size int) []physical.Op {
			return []physical.Op{physical.Put("v", make([]byte, size))}
		}},
		"ops in a commit":   {caps.MaxOps, manyOps},
		"bytes in a commit": {caps.MaxCommit, func(size int) []physical.Op { return manyBytes(size, caps) }},
	}
	for what, l := range limits {
		if l.limit == 0 {
			s.Logf("%s: no limit", what)
			continue
		}
		s.must(b.Commit(s.ctx, nil, l.ops(l.limit)...), "%s of %d, which is the limit", what, l.limit)
		over := append([]physical.Op{}, l.ops(l.limit+1)...)
		if what != "ops in a commit" {
			over = append(over, physical.Delete("before"))
		}
		err := b.Commit(s.ctx, nil, over...)
		s.wantErr(err, physical.ErrTooLarge, "%s of %d", what, l.limit+1)
		var tooLarge *physical.TooLargeError
		if !errors.As(err, &tooLarge) || tooLarge.What != what || tooLarge.Limit != l.limit || tooLarge.Size <= l.limit {
			s.Errorf("%s of %d: got %#v, want the limit %d named", what, l.limit+1, err, l.limit)
		}
		s.wantValue(b, "before", "kept")
	}
}

func manyOps(n int) []physical.Op {
	ops := make([]physical.Op, n)
	for i := range ops {
		ops[i] = physical.Put(fmt.Sprintf("n/%d", i), nil)
	}
	return ops
}

// manyBytes makes ops of size bytes in all, as few as the limit on one value allows.
func manyBytes(size int, caps physical.Caps) []physical.Op {
	most := size
	if caps.MaxValue > 0 {
		most = caps.MaxValue
	}
	var ops []physical.Op
	for size > 0 {
		key := fmt.Sprintf("c/%08d", len(ops))
		n := min(most, max(size-len(key), 0))
		if left := size - len(key) - n; left > 0 && left <= len(key) {
			n -= len(key) // leave the last op room for its key
		}
		ops = append(ops, physical.Put(key, make([]byte, n)))
		size -= len(key) + n
	}
	return ops
}
