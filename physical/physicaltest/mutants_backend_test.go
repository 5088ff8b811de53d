package physicaltest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/memory"
)

// broken is a handle of the memory store with some methods replaced.
type broken struct {
	*memory.Handle
	get    func(ctx context.Context, key string) (*physical.Entry, error)
	list   func(ctx context.Context, prefix, after string, limit int) ([]string, error)
	commit func(ctx context.Context, fence *physical.Fence, ops ...physical.Op) error
	raise  func(ctx context.Context, from, to physical.Fence) error
	close  func() error
	caps   func() physical.Caps
}

func (b *broken) Get(ctx context.Context, key string) (*physical.Entry, error) {
	if b.get != nil {
		return b.get(ctx, key)
	}
	return b.Handle.Get(ctx, key)
}

func (b *broken) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if b.list != nil {
		return b.list(ctx, prefix, after, limit)
	}
	return b.Handle.List(ctx, prefix, after, limit)
}

func (b *broken) Commit(ctx context.Context, fence *physical.Fence, ops ...physical.Op) error {
	if b.commit != nil {
		return b.commit(ctx, fence, ops...)
	}
	return b.Handle.Commit(ctx, fence, ops...)
}

func (b *broken) RaiseFence(ctx context.Context, from, to physical.Fence) error {
	if b.raise != nil {
		return b.raise(ctx, from, to)
	}
	return b.Handle.RaiseFence(ctx, from, to)
}

func (b *broken) Close() error {
	if b.close != nil {
		return b.close()
	}
	return b.Handle.Close()
}

func (b *broken) Caps() physical.Caps {
	if b.caps != nil {
		return b.caps()
	}
	return b.Handle.Caps()
}

type wrap = func(h *memory.Handle, shared *sharedState, n int) Handle

// entries makes a wrap that replaces methods.
func breaks(set func(b *broken, h *memory.Handle)) wrap {
	return func(h *memory.Handle, _ *sharedState, _ int) Handle {
		b := &broken{Handle: h}
		set(b, h)
		return b
	}
}

// fenceSloppy commits with a fence in which what the store does not compare is made right.
func fenceSloppy(mend func(given *physical.Fence, stored physical.Fence)) wrap {
	return breaks(func(b *broken, h *memory.Handle) {
		b.commit = func(ctx context.Context, f *physical.Fence, ops ...physical.Op) error {
			stored, err := h.Fence(ctx)
			if err != nil {
				return err
			}
			given := physical.Fence{}
			if f != nil {
				given = *f
			}
			mend(&given, stored)
			return h.Commit(ctx, &given, ops...)
		}
	})
}

// editList changes what List answers.
func editList(edit func(names []string, after string, limit int) []string) wrap {
	return breaks(func(b *broken, h *memory.Handle) {
		b.list = func(ctx context.Context, prefix, after string, limit int) ([]string, error) {
			names, err := h.List(ctx, prefix, "", 0)
			return edit(names, after, limit), err
		}
	})
}

// page cuts a list as List should.
func page(names []string, after string, limit int) []string {
	names = slices.DeleteFunc(names, func(name string) bool { return name <= after })
	if limit > 0 && len(names) > limit {
		names = names[:limit]
	}
	return names
}

func noConditions(ops []physical.Op) []physical.Op {
	return slices.DeleteFunc(slices.Clone(ops), physical.Op.IsCondition)
}

// Stores that break a promise about entries are found out.
func TestBackendMutants(t *testing.T) {
	expectCaught(t, slices.Concat(entryMutants, commitMutants, fenceMutants), backendChecks)
}

var entryMutants = []mutant{
	{name: "caps unnamed", checks: []string{"Caps"}, wrap: breaks(func(b *broken, h *memory.Handle) {
		b.caps = func() physical.Caps { c := h.Caps(); c.Name = ""; return c }
	})},
	{name: "empty value is none", checks: []string{"Values", "Conditions"}, wrap: breaks(func(b *broken, h *memory.Handle) {
		b.get = func(ctx context.Context, key string) (*physical.Entry, error) {
			e, err := h.Get(ctx, key)
			if err == nil && len(e.Value) == 0 {
				return nil, physical.ErrNotFound
			}
			return e, err
		}
	})},
	{name: "values are text", checks: []string{"Values"}, wrap: breaks(func(b *broken, h *memory.Handle) {
		b.get = func(ctx context.Context, key string) (*physical.Entry, error) {
			e, err := h.Get(ctx, key)
			if err == nil {
				e.Value = bytes.ToValidUTF8(e.Value, []byte("?"))
			}
			return e, err
		}
	})},
	{name: "values are kept, not copied", checks: []string{"Ownership"}, wrap: func(h *memory.Handle, s *sharedState, _ int) Handle {
		cache := *shared(s, "cache", map[string]*physical.Entry{})
		b := &broken{Handle: h}
		b.commit = func(ctx context.Context, f *physical.Fence, ops ...physical.Op) error {
			for _, op := range ops {
				cache[op.Key] = &physical.Entry{Key: op.Key, Value: op.Value}
			}
			return h.Commit(ctx, f, ops...)
		}
		b.get = func(_ context.Context, key string) (*physical.Entry, error) { return cache[key], nil }
		return b
	}},
	{name: "any key goes", checks: []string{"Keys"}, wrap: breaks(func(b *broken, h *memory.Handle) {
		b.get = func(ctx context.Context, key string) (*physical.Entry, error) {
			e, err := h.Get(ctx, key)
			if errors.Is(err, physical.ErrInvalid) {
				err = physical.ErrNotFound
			}
			return e, err
		}
	})},
	{name: "keys without case", checks: []string{"Keys"}, wrap: breaks(func(b *broken, h *memory.Handle) {
		b.get = func(ctx context.Context, key string) (*physical.Entry, error) {
			return h.Get(ctx, strings.ToLower(key))
		}
	})},
	{name: "other nodes lag", checks: []string{"OtherNodesSee", "Linearizable"}, wrap: func(h *memory.Handle, s *sharedState, n int) Handle {
		b := &broken{Handle: h}
		var mu sync.Mutex
		old := make(map[string]*physical.Entry)
		b.get = func(ctx context.Context, key string) (*physical.Entry, error) {
			mu.Lock()
			defer mu.Unlock()
			e, err := h.Get(ctx, key)
			if was := old[key]; was != nil && n > 0 {
				e = was
			}
			old[key], _ = h.Get(ctx, key)
			return e, err
		}
		return b
	}},
	{name: "forgets at restart", checks: []string{"EntriesSurviveRestart", "FenceSurvivesRestart"}, store: func(s *Store, _ *memory.Store) {
		inner := memory.NewStore()
		s.Open = func(int) (Handle, error) { return inner.Open(), nil }
		s.Restart = func() error { inner = memory.NewStore(); return nil }
	}},
	{name: "list unsorted", checks: []string{"ListFolders", "ListPages", "ListAgainstModel", "ListMany"},
		wrap: editList(func(names []string, after string, limit int) []string {
			slices.Reverse(names)
			return page(names, after, limit)
		})},
	{name: "list sorted as paths", checks: []string{"ListFolders", "ListPages"}, // "x/" before "x-"
		wrap: editList(func(names []string, after string, limit int) []string {
			slices.SortFunc(names, func(a, b string) int { return strings.Compare(strings.TrimSuffix(a, "/"), strings.TrimSuffix(b, "/")) })
			return page(names, after, limit)
		})},
	{name: "list knows no folder beside its entry", checks: []string{"ListFolders", "ListPages"},
		wrap: editList(func(names []string, after string, limit int) []string {
			all := slices.Clone(names)
			names = slices.DeleteFunc(names, func(name string) bool {
				return slices.Contains(all, strings.TrimSuffix(name, "/")) && strings.HasSuffix(name, "/")
			})
			return page(names, after, limit)
		})},
	{name: "list after needs to exist", checks: []string{"ListPages", "ListAgainstModel"},
		wrap: editList(func(names []string, after string, limit int) []string {
			if after != "" && !slices.Contains(names, after) {
				return nil
			}
			return page(names, after, limit)
		})},
	{name: "list includes after", checks: []string{"ListPages"},
		wrap: editList(func(names []string, after string, limit int) []string {
			if slices.Contains(names, after) {
				return append([]string{after}, page(names, after, limit)...)
			}
			return page(names, after, limit)
		})},
	{name: "list one too many", checks: []string{"ListPages"},
		wrap: editList(func(names []string, after string, limit int) []string {
			if limit > 0 {
				limit++
			}
			return page(names, after, limit)
		})},
	{name: "list ends at 1000", checks: []string{"ListMany"},
		wrap: editList(func(names []string, after string, limit int) []string {
			names = page(names, after, limit)
			return names[:min(1000, len(names))]
		})},
}

var commitMutants = []mutant{
	{name: "op by op", checks: []string{"CommitWhole", "Conditions", "AllOrNothing"}, wrap: breaks(func(b *broken, h *memory.Handle) {
		b.commit = func(ctx context.Context, f *physical.Fence, ops ...physical.Op) error {
			for _, op := range ops {
				if err := h.Commit(ctx, f, op); err != nil {
					return err
				}
				runtime.Gosched()
			}
			return nil
		}
	})},
	{name: "writes, then checks", checks: []string{"CommitWhole", "ConditionsSeeStateBefore", "AllOrNothing"}, wrap: breaks(func(b *broken, h *memory.Handle) {
		b.commit = func(ctx context.Context, f *physical.Fence, ops ...physical.Op) error {
			if err := h.Caps().Check(ops); err != nil {
				return err
			}
			if err := h.Commit(ctx, f, noConditions(ops)...); err != nil {
				return err
			}
			return h.Commit(ctx, f, slices.DeleteFunc(slices.Clone(ops), func(op physical.Op) bool { return !op.IsCondition() })...)
		}
	})},
	{name: "checks, then writes", checks: []string{"OneClaimWins", "CompareAndSwap", "Linearizable"}, wrap: breaks(func(b *broken, h *memory.Handle) {
		b.commit = func(ctx context.Context, f *physical.Fence, ops ...physical.Op) error {
			if err := h.Commit(ctx, f, slices.DeleteFunc(slices.Clone(ops), func(op physical.Op) bool { return !op.IsCondition() })...); err != nil {
				return err
			}
			pause(ctx, time.Millisecond)
			return h.Commit(ctx, f, noConditions(ops)...)
		}
	})},
	{name: "no entry holds the empty value", checks: []string{"Conditions"}, wrap: breaks(func(b *broken, h *memory.Handle) {
		b.commit = func(ctx context.Context, f *physical.Fence, ops ...physical.Op) error {
			ops = slices.Clone(ops)
			for i, op := range ops {
				if _, err := h.Get(ctx, op.Key); op.Kind == physical.OpRequireValue && len(op.Value) == 0 && err != nil {
					ops[i] = physical.RequireAbsent(op.Key)
				}
			}
			return h.Commit(ctx, f, ops...)
		}
	})},
	{name: "limits unnamed", checks: []string{"Limits"}, options: []memory.Option{memory.WithLimits(physical.Caps{MaxValue: 1000})},
		wrap: breaks(func(b *broken, h *memory.Handle) {
			b.commit = func(ctx context.Context, f *physical.Fence, ops ...physical.Op) error {
				err := h.Commit(ctx, f, ops...)
				if errors.Is(err, physical.ErrTooLarge) {
					return physical.ErrTooLarge
				}
				return err
			}
		})},
	{name: "limits lower than said", checks: []string{"Limits"}, options: []memory.Option{memory.WithLimits(physical.Caps{MaxValue: 1000, MaxCommit: 5000, MaxOps: 10, MaxKey: 100})},
		wrap: breaks(func(b *broken, h *memory.Handle) {
			b.caps = func() physical.Caps { c := h.Caps(); c.MaxCommit += 10; return c }
		})},
	{name: "no limits in spite of caps", checks: []string{"Limits"}, wrap: breaks(func(b *broken, h *memory.Handle) {
		b.caps = func() physical.Caps { c := h.Caps(); c.MaxKey = 100; return c }
	})},
	{name: "contexts ignored", checks: []string{"CancelledBefore"}, wrap: breaks(func(b *broken, h *memory.Handle) {
		b.list = func(_ context.Context, prefix, after string, limit int) ([]string, error) {
			pause(context.Background(), 150*time.Millisecond)
			return h.List(context.Background(), prefix, after, limit)
		}
	})},
	{name: "late cancel taken for a refusal", checks: []string{"CancelledDuring"}, wrap: breaks(func(b *broken, h *memory.Handle) {
		b.commit = func(ctx context.Context, f *physical.Fence, ops ...physical.Op) error {
			err := h.Commit(ctx, f, ops...)
			pause(ctx, time.Millisecond)
			return errors.Join(err, ctx.Err())
		}
	})},
	{name: "lost answer taken for a refusal", checks: []string{"CutAfterSent"}, store: func(s *Store, m *memory.Store) {
		cut := false
		s.Open = func(int) (Handle, error) {
			h := m.Open()
			b := &broken{Handle: h}
			b.commit = func(ctx context.Context, f *physical.Fence, ops ...physical.Op) error {
				err := h.Commit(ctx, f, ops...)
				if cut {
					return physical.ErrUnavailable
				}
				return err
			}
			return b, nil
		}
		s.CutAnswers = func(int) func() { cut = true; return func() { cut = false } }
	}},
	{name: "black hole without end", checks: []string{"BlackHole"}, store: func(s *Store, m *memory.Store) {
		hole := make(chan struct{})
		close(hole)
		s.Open = func(int) (Handle, error) {
			h := m.Open()
			b := &broken{Handle: h}
			b.get = func(ctx context.Context, key string) (*physical.Entry, error) { <-hole; return h.Get(ctx, key) }
			return b, nil
		}
		s.Isolate = func(int) func() {
			hole = make(chan struct{})
			return func() { close(hole) }
		}
	}},
	{name: "raise in a black hole without end", checks: []string{"BlackHole"}, store: func(s *Store, m *memory.Store) {
		hole := make(chan struct{})
		close(hole)
		s.Open = func(int) (Handle, error) {
			h := m.Open()
			b := &broken{Handle: h}
			b.raise = func(ctx context.Context, from, to physical.Fence) error { <-hole; return h.RaiseFence(ctx, from, to) }
			return b, nil
		}
		s.Isolate = func(int) func() {
			hole = make(chan struct{})
			return func() { close(hole) }
		}
	}},
	{name: "open after close", checks: []string{"Closed"}, wrap: breaks(func(b *broken, _ *memory.Handle) {
		b.close = func() error { return nil }
	})},
	{name: "closed twice", checks: []string{"Closed"}, wrap: breaks(func(b *broken, h *memory.Handle) {
		n := 0
		b.close = func() error {
			if n++; n > 1 {
				return fmt.Errorf("closed %d times", n)
			}
			return h.Close()
		}
	})},
	{name: "close closes for all", checks: []string{"Closed"}, wrap: func(h *memory.Handle, s *sharedState, _ int) Handle {
		b := &broken{Handle: h}
		all := shared(s, "all", []*memory.Handle{})
		*all = append(*all, h)
		b.close = func() error {
			for _, h := range *all {
				_ = h.Close()
			}
			return nil
		}
		return b
	}},
}

var fenceMutants = []mutant{
	{name: "term not compared", checks: []string{"FenceGuardsCommit", "FenceRises", "FenceStopsWriters"},
		wrap: fenceSloppy(func(given *physical.Fence, stored physical.Fence) { *given = stored })},
	{name: "lineage not compared", checks: []string{"FenceGuardsCommit"},
		wrap: fenceSloppy(func(given *physical.Fence, stored physical.Fence) { given.Lineage = stored.Lineage })},
	{name: "nonce not compared", checks: []string{"FenceGuardsCommit"},
		wrap: fenceSloppy(func(given *physical.Fence, stored physical.Fence) { given.Nonce = stored.Nonce })},
	{name: "nonce's end not compared", checks: []string{"FenceGuardsCommit"},
		wrap: fenceSloppy(func(given *physical.Fence, stored physical.Fence) { given.Nonce[15] = stored.Nonce[15] })},
	{name: "only lower terms refused", checks: []string{"FenceGuardsCommit"},
		wrap: fenceSloppy(func(given *physical.Fence, stored physical.Fence) {
			if given.Term >= stored.Term {
				*given = stored
			}
		})},
	{name: "unfenced goes", checks: []string{"FenceGuardsCommit"}, wrap: breaks(func(b *broken, h *memory.Handle) {
		b.commit = func(ctx context.Context, f *physical.Fence, ops ...physical.Op) error {
			if f == nil {
				stored, _ := h.Fence(ctx)
				f = &stored
			}
			return h.Commit(ctx, f, ops...)
		}
	})},
	{name: "fence checked before the transaction", checks: []string{"FenceStopsWriters"}, wrap: breaks(func(b *broken, h *memory.Handle) {
		b.commit = func(ctx context.Context, f *physical.Fence, ops ...physical.Op) error {
			if err := h.Commit(ctx, f); err != nil {
				return err
			}
			pause(ctx, time.Millisecond)
			stored, err := h.Fence(ctx)
			if err != nil {
				return err
			}
			return h.Commit(ctx, &stored, ops...)
		}
	})},
	{name: "empty commit unchecked", checks: []string{"FenceGuardsCommit"}, wrap: breaks(func(b *broken, h *memory.Handle) {
		b.commit = func(ctx context.Context, f *physical.Fence, ops ...physical.Op) error {
			if len(ops) == 0 {
				return nil
			}
			return h.Commit(ctx, f, ops...)
		}
	})},
	{name: "raise from anything", checks: []string{"FenceFirst", "FenceRises", "FenceRace"}, wrap: breaks(func(b *broken, h *memory.Handle) {
		b.raise = func(ctx context.Context, _, to physical.Fence) error {
			stored, err := h.Fence(ctx)
			if err != nil {
				return err
			}
			return h.RaiseFence(ctx, stored, to)
		}
	})},
	{name: "raise to the same term", checks: []string{"FenceRises"}, wrap: breaks(func(b *broken, h *memory.Handle) {
		b.raise = func(ctx context.Context, from, to physical.Fence) error {
			err := h.RaiseFence(ctx, from, to)
			if stored, _ := h.Fence(ctx); err != nil && stored == from && to.Term == from.Term {
				return nil
			}
			return err
		}
	})},
	{name: "same term of another lineage", checks: []string{"FenceRises"}, wrap: breaks(func(b *broken, h *memory.Handle) {
		b.raise = func(ctx context.Context, from, to physical.Fence) error {
			err := h.RaiseFence(ctx, from, to)
			if stored, _ := h.Fence(ctx); err != nil && stored == from && to.Lineage != from.Lineage && !from.IsZero() {
				return nil
			}
			return err
		}
	})},
	{name: "raise that nobody won", checks: []string{"FenceRace"}, wrap: breaks(func(b *broken, h *memory.Handle) {
		b.raise = func(ctx context.Context, from, to physical.Fence) error {
			if err := h.RaiseFence(ctx, from, to); err != nil {
				return err
			}
			return physical.ErrFenced
		}
	})},
	{name: "fence is an entry", checks: []string{"FenceFirst"}, wrap: breaks(func(b *broken, h *memory.Handle) {
		b.raise = func(ctx context.Context, from, to physical.Fence) error {
			_ = h.Commit(ctx, nil, physical.Put("core/fence", []byte(to.String())))
			return h.RaiseFence(ctx, from, to)
		}
	})},
}
