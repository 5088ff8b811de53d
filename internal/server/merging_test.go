package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/memory"
	"github.com/locum-ha/locum/physical/physicaltest"
)

// fenced gives every commit of a suite that knows no fence one, so that it goes through the merger.
type fenced struct {
	*merger
	store *memory.Store
}

var suiteFence = physical.Fence{Lineage: "suite", Term: 1}

func (f fenced) Commit(ctx context.Context, fence *physical.Fence, ops ...physical.Op) error {
	if fence == nil {
		now, err := f.Fence(ctx)
		if err != nil {
			return err
		}
		if now != suiteFence {
			return fmt.Errorf("%w: not the suite's", physical.ErrFenced)
		}
		fence = &suiteFence
	}
	return f.merger.Commit(ctx, fence, ops...)
}

// Every promise of physical.Backend holds for commits that share transactions, within limits of the store and without. The checks that
// raise fences of their own (containsFence) get the merger as it is, the others one with a fence that was raised before.
func TestMergerConformance(t *testing.T) {
	for name, limits := range map[string]physical.Caps{"": {}, "Limits": {MaxKey: 200, MaxValue: 4 << 10, MaxOps: 12, MaxCommit: 16 << 10}} {
		t.Run("Merged"+name, func(t *testing.T) {
			physicaltest.Backend(t, func(t testing.TB) physicaltest.Store {
				store := memory.NewStore(memory.WithLimits(limits))
				unfenced := t.Name()
				fences := len(unfenced) > 5 && containsFence(unfenced)
				if !fences {
					if err := store.Open().RaiseFence(t.Context(), physical.Fence{}, suiteFence); err != nil {
						t.Fatal(err)
					}
				}
				return physicaltest.Store{Open: func(int) (physicaltest.Handle, error) {
					m := newMerger(store.Open())
					if fences {
						return m, nil
					}
					return fenced{m, store}, nil
				}}
			})
		})
	}
}

// containsFence says which checks raise fences of their own from none.
func containsFence(name string) bool {
	for _, check := range []string{"Fence", "BlackHole", "CutAfterSent", "CancelledBefore", "Closed"} {
		for at := range len(name) - len(check) + 1 {
			if name[at:at+len(check)] == check {
				return true
			}
		}
	}
	return false
}

// transactions counts what reaches the store, and holds the first one up until the rest waits.
type transactions struct {
	physical.Backend
	mu    sync.Mutex
	sizes []int
	hold  chan struct{}
}

func (s *transactions) Commit(ctx context.Context, fence *physical.Fence, ops ...physical.Op) error {
	s.mu.Lock()
	s.sizes = append(s.sizes, len(ops))
	first := len(s.sizes) <= mergeFlights
	s.mu.Unlock()
	if first {
		<-s.hold
	}
	return s.Backend.Commit(ctx, fence, ops...)
}

// What waits shares a transaction; one that does not apply does not take the others with it; two of one key do not go together.
func TestMergerShares(t *testing.T) {
	store := memory.NewStore().Open()
	fence := physical.Fence{Lineage: "l", Term: 1}
	if err := store.RaiseFence(t.Context(), physical.Fence{}, fence); err != nil {
		t.Fatal(err)
	}
	held := &transactions{Backend: store, hold: make(chan struct{})}
	m := newMerger(held)
	const commits = 60
	errs := make([]error, commits)
	var all sync.WaitGroup
	for i := range commits {
		if i <= mergeFlights { // the first ones keep the lanes busy, one each
			eventually(t, "the lanes are busy", func() bool {
				held.mu.Lock()
				defer held.mu.Unlock()
				return len(held.sizes) == i
			})
		}
		all.Go(func() {
			ops := []physical.Op{physical.RequireAbsent(fmt.Sprint("k", i)), physical.Put(fmt.Sprint("k", i), []byte("1"))}
			switch {
			case i >= 40:
				ops = []physical.Op{physical.Put("same", nil)}
			case i%10 == 3:
				ops = append(ops, physical.RequireValue("never", nil))
			}
			errs[i] = m.Commit(context.Background(), &fence, ops...)
		})
	}
	eventually(t, "all wait", func() bool { return m.group.Waiting() == commits-mergeFlights })
	close(held.hold)
	all.Wait()
	for i, err := range errs {
		refused := i < 40 && i%10 == 3
		if refused != errors.Is(err, physical.ErrConflict) || !refused && err != nil {
			t.Errorf("commit %d: %v", i, err)
		}
		if i < 40 {
			if _, err := store.Get(t.Context(), fmt.Sprint("k", i)); (err == nil) == refused {
				t.Errorf("entry %d: %v, refused %v", i, err, refused)
			}
		}
	}
	largest := 0
	for _, n := range held.sizes {
		largest = max(largest, n)
	}
	if largest < 50 {
		t.Errorf("the largest transaction had %d ops, of %d that waited", largest, commits)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := m.Commit(t.Context(), &fence, physical.Put("a", nil)); !errors.Is(err, physical.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// small refuses transactions that its caps allow, as a server with a limit of its own does.
type small struct{ physical.Backend }

func (s small) Commit(ctx context.Context, fence *physical.Fence, ops ...physical.Op) error {
	if len(ops) > 3 {
		return &physical.TooLargeError{What: "ops in a commit", Size: len(ops), Limit: 3}
	}
	return s.Backend.Commit(ctx, fence, ops...)
}

// What is too much for the store only together is tried apart.
func TestMergerTooLargeTogether(t *testing.T) {
	store := memory.NewStore().Open()
	fence := physical.Fence{Lineage: "l", Term: 1}
	if err := store.RaiseFence(t.Context(), physical.Fence{}, fence); err != nil {
		t.Fatal(err)
	}
	m := newMerger(small{store})
	defer m.Close()
	var commits [][]physical.Op
	for i := range 9 {
		commits = append(commits, []physical.Op{physical.Put(fmt.Sprint("k", i), nil)})
	}
	for i, err := range m.send(t.Context(), fence, commits) {
		if _, missing := store.Get(t.Context(), fmt.Sprint("k", i)); err != nil || missing != nil {
			t.Errorf("commit %d: %v, %v", i, err, missing)
		}
	}
	if err := m.send(t.Context(), fence, [][]physical.Op{make([]physical.Op, 4)})[0]; !errors.Is(err, physical.ErrTooLarge) {
		t.Errorf("one that is too large by itself: %v", err)
	}
}
