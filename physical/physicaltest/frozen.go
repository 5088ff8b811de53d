package physicaltest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
)

// FrozenWriter checks P1 on a store that keeps entries and the lock, in the case that it is for: an active node is frozen between
// deciding to write and writing, beyond its TTL, another takes over, and then what the first one had sent arrives.
func FrozenWriter(t *testing.T, h Harness) {
	t.Helper()
	runAll(t, h, []check{{"FrozenWriter", checkFrozenWriter}})
}

const lateWrites = 8

func checkFrozenWriter(s *scene) {
	s.quick()
	if s.store.Isolate == nil || s.store.ElectsItself {
		s.Skipf("the harness cannot hold requests back on the network")
	}
	holder := s.win(0, 0)
	a, b := s.backend(0), s.backend(1)
	old := fence("frozen", holder.grant.Term(), 1)
	s.must(a.RaiseFence(s.ctx, physical.Fence{}, old), "raise")
	s.must(a.Commit(s.ctx, &old, physical.Put("entry", []byte("before"))), "commit of the active node")
	heal := s.store.Isolate(0)
	late := make(chan error, lateWrites)
	ctx, stop := context.WithTimeout(s.ctx, time.Minute)
	defer stop()
	for i := range lateWrites {
		go func() {
			late <- a.Commit(ctx, &old, physical.Put(fmt.Sprintf("late/%d", i), nil), physical.Put("entry", []byte("late")))
		}()
	}
	next, _ := s.wantTakenOver(holder)
	now := fence("frozen", next.grant.Term(), 2)
	s.must(b.RaiseFence(s.ctx, old, now), "raise of the next node while requests of the frozen one are held back")
	s.must(b.Commit(s.ctx, &now, physical.Put("entry", []byte("after"))), "commit of the next node")
	heal()
	refused := 0
	for range lateWrites {
		err := <-late
		if err == nil {
			s.Errorf("a commit of the frozen node succeeded after the fence was raised")
		}
		if errors.Is(err, physical.ErrFenced) {
			refused++
		}
	}
	s.eventually(s.store.Settle, func(ctx context.Context) error {
		err := a.Commit(ctx, &old, physical.Put("entry", []byte("later")))
		if !errors.Is(err, physical.ErrFenced) {
			return fmt.Errorf("a commit of the deposed node: got %w, want ErrFenced", err)
		}
		return nil
	})
	s.wantValue(b, "entry", "after")
	s.wantList(b, "late/", "", 0)
	s.Logf("%d of %d commits that arrived late were refused as fenced, the others were not carried out", refused, lateWrites)
}
