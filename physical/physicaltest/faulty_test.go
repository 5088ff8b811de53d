package physicaltest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/memory"
)

// The wrappers do to requests what their faults say.
func TestFaultyBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore()
		direct, b := store.Open(), NewFaultyBackend(store.Open())
		commit := func(key string) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return b.Commit(ctx, nil, physical.Put(key, nil))
		}
		there := func(key string) bool {
			_, err := direct.Get(t.Context(), key)
			return err == nil
		}
		if err := commit("plain"); err != nil || !there("plain") {
			t.Errorf("without a fault: %v", err)
		}
		b.Set(CutAnswer)
		if err := commit("cut"); !errors.Is(err, physical.ErrUnknown) || !there("cut") {
			t.Errorf("cut: %v, there: %v", err, there("cut"))
		}
		if _, err := b.Get(t.Context(), "cut"); !errors.Is(err, physical.ErrUnavailable) {
			t.Errorf("cut read: %v", err)
		}
		b.Set(BlackHole)
		start := time.Now()
		if err := commit("hole"); !errors.Is(err, physical.ErrUnknown) || time.Since(start) != time.Second {
			t.Errorf("black hole: %v after %v", err, time.Since(start))
		}
		b.Set(Delay)
		if err := commit("late"); !errors.Is(err, physical.ErrUnknown) || there("late") {
			t.Errorf("delayed: %v, there: %v", err, there("late"))
		}
		b.Set(NoFault)
		if there("hole") || !there("late") {
			t.Errorf("afterwards what fell into the hole is there: %v, what was delayed: %v", there("hole"), there("late"))
		}

		b.Set(BlackHole) // a request that is still waiting when the fault is over goes on
		time.AfterFunc(100*time.Millisecond, func() { b.Set(NoFault) })
		if err := commit("patient"); err != nil || !there("patient") {
			t.Errorf("healed in time: %v", err)
		}
		b.Set(BlackHole)
		time.AfterFunc(100*time.Millisecond, func() { _ = b.Close() })
		if _, err := b.Get(t.Context(), "plain"); !errors.Is(err, physical.ErrClosed) {
			t.Errorf("closed while waiting: %v", err)
		}
	})
}

// The same for the lock.
func TestFaultyLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore()
		direct, l := store.Open(), NewFaultyLock(store.Open())
		r := physical.Record{Holder: "a"}
		l.Set(CutAnswer)
		if _, err := l.Acquire(t.Context(), r, time.Second, 0); !errors.Is(err, physical.ErrUnknown) {
			t.Errorf("cut: %v", err)
		}
		if held, err := direct.Holder(t.Context()); err != nil || held.Term != 1 {
			t.Errorf("after an acquire without an answer the lock is %+v, %v", held, err)
		}
		if _, err := l.Holder(t.Context()); !errors.Is(err, physical.ErrUnavailable) {
			t.Errorf("cut read: %v", err)
		}
		l.Set(NoFault)
		now, err := l.Watch(t.Context(), physical.Record{Holder: "a", Term: 1})
		if err != nil || now.Holder != "" {
			t.Errorf("watch: %+v, %v", now, err)
		}
	})
}
