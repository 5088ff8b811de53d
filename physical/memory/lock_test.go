package memory_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/memory"
)

// manual is a clock that a test moves.
type manual struct {
	now    time.Time
	timers chan time.Time
}

func (m *manual) Now() time.Time { return m.now }

func (m *manual) NewTimer(time.Duration) (<-chan time.Time, func()) { return m.timers, func() {} }

// A lock is held up to its TTL and not at it, to the nanosecond, on the clock that was given.
func TestTTLOnInjectedClock(t *testing.T) {
	ctx := t.Context()
	clock := &manual{now: time.Unix(1, 0), timers: make(chan time.Time, 1)}
	store := memory.NewStore(memory.WithClock(clock))
	a, b := store.Open(), store.Open()
	g, err := a.Acquire(ctx, physical.Record{Holder: "a"}, time.Second, 0)
	if err != nil {
		t.Fatal(err)
	}
	clock.now = clock.now.Add(time.Second - 1)
	if g, err = a.Renew(ctx, g); err != nil {
		t.Fatalf("renew at the last instant: %v", err)
	}
	clock.now = clock.now.Add(time.Second - 1)
	if _, err := b.Acquire(ctx, physical.Record{Holder: "b"}, time.Second, 0); !errors.Is(err, physical.ErrHeld) {
		t.Fatalf("acquire at the last instant of another's lock: %v", err)
	}
	clock.now = clock.now.Add(1)
	if _, err := a.Renew(ctx, g); !errors.Is(err, physical.ErrLost) {
		t.Fatalf("renew when the TTL has passed: %v", err)
	}
	next, err := b.Acquire(ctx, physical.Record{Holder: "b"}, time.Second, 0)
	if err != nil || next.Term() != 2 {
		t.Fatalf("acquire when the TTL has passed: %+v, %v", next, err)
	}

	clock.now = clock.now.Add(time.Second)
	clock.timers <- clock.now
	if r, err := a.Watch(ctx, next.Record); err != nil || r.Holder != "" || r.Term != 2 {
		t.Errorf("watch when the TTL has passed: %+v, %v", r, err)
	}
}

// Inside a synctest bubble the store runs on the bubble's time.
func TestTTLInSynctest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore()
		a, b := store.Open(), store.Open()
		g, err := a.Acquire(t.Context(), physical.Record{Holder: "a"}, time.Hour, 10)
		if err != nil || g.Term() != 11 {
			t.Fatalf("acquire: %+v, %v", g, err)
		}
		start := time.Now()
		if r, err := b.Watch(t.Context(), g.Record); err != nil || r != (physical.Record{Term: 11}) {
			t.Errorf("watch: %+v, %v", r, err)
		}
		if took := time.Since(start); took != time.Hour {
			t.Errorf("the lock ran out after %v", took)
		}
	})
}

// A watcher is not disturbed by renewals.
func TestWatchSleepsThroughRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.NewStore()
		a := store.Open()
		g, err := a.Acquire(t.Context(), physical.Record{Holder: "a"}, 3*time.Second, 0)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		ended := make(chan error, 1)
		go func() {
			_, err := store.Open().Watch(ctx, g.Record)
			ended <- err
		}()
		for range 30 {
			time.Sleep(time.Second)
			if _, err := a.Renew(t.Context(), g); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		select {
		case err := <-ended:
			t.Errorf("the watcher woke: %v", err)
		default:
		}
		if err := a.Release(t.Context(), g, "b"); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Errorf("the watcher was not woken by the release: %v", err)
		}
	})
}
