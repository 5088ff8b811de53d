package election

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
)

// A lease ends by its deadline, its context with it, and is not revived (P4).
func TestLeaseEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := bubbleClock()
		l := newLease(t.Context(), clock, clock().Add(3*time.Second))
		time.Sleep(2 * time.Second)
		if !l.Valid() || l.Context().Err() != nil || !l.extend(clock().Add(3*time.Second)) {
			t.Error("not valid before its deadline")
		}
		if !l.extend(clock().Add(time.Second)) || l.Deadline() != clock().Add(3*time.Second) {
			t.Error("the deadline moved backwards")
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if l.Valid() || !errors.Is(context.Cause(l.Context()), ErrExpired) {
			t.Errorf("valid at its deadline, or cause %v", context.Cause(l.Context()))
		}
		if l.extend(clock().Add(time.Hour)) || l.Valid() {
			t.Error("revived")
		}
		l.end(errors.New("another cause"))
		if !errors.Is(context.Cause(l.Context()), ErrExpired) {
			t.Error("the first cause does not stay")
		}
	})
}

// The machine is suspended: the boot clock goes on, Go's timers do not. The lease is invalid at once, and its context ends soon (P4).
func TestLeaseSuspended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		awake := bubbleClock()
		var slept atomic.Int64
		clock := func() boottime.Instant { return awake().Add(time.Duration(slept.Load())) }
		l := newLease(t.Context(), clock, clock().Add(time.Minute))
		slept.Store(int64(time.Hour))
		if l.Valid() {
			t.Error("valid after an hour of sleep")
		}
		if l.extend(clock().Add(time.Minute)) {
			t.Error("extended after its deadline")
		}
		l = newLease(t.Context(), clock, clock().Add(time.Minute))
		slept.Store(int64(2 * time.Hour))
		before := time.Now()
		<-l.Context().Done()
		if took := time.Since(before); took > recheck {
			t.Errorf("the context ended %s after waking", took)
		}
	})
}

func TestConfig(t *testing.T) {
	_, err := New(Config{TTL: -1})
	if err == nil {
		t.Fatal("no error")
	}
	for _, what := range []string{"ID", "Lock", "Store", "Activate", "Drain", "Deactivate", "TTL is negative"} {
		if !strings.Contains(err.Error(), what) {
			t.Errorf("%q is not reported in: %v", what, err)
		}
	}
	store := newFakeStore(time.Second)
	cfg := Config{ID: "a", Lock: store, Store: store, TTL: 60 * time.Millisecond,
		Activate: func(context.Context, *Leadership) error { return nil }, Drain: func(context.Context, *Leadership) error { return nil },
		Deactivate: func(*Leadership, error) {}}
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "least") {
		t.Errorf("a TTL below the store's: %v", err)
	}
	cfg.TTL = 0
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if p := e.initial.p; p.ttl != time.Second || p.pollEvery != 100*time.Millisecond || p.name != "a" || p.priority != 100 || p.drainLimit != 15*time.Second {
		t.Errorf("defaults: %+v", p)
	}
	cfg.Priority = new(0) // is one, and the lowest
	if zero, err := New(cfg); err != nil || zero.initial.p.priority != 0 || zero.initial.outranked() == 0 {
		t.Errorf("priority 0: %+v, %v", zero, err)
	}
	if s := e.State(); s.Role != Starting || s.Candidate {
		t.Errorf("state %+v", s)
	}
	cfg.Lock = noLock{store}
	if _, err := New(cfg); err == nil {
		t.Error("a store without a lock is accepted")
	}
}

type noLock struct{ *fakeStore }

func (noLock) Caps() physical.Caps { return physical.Caps{Name: "file"} }

// The margin covers what doc.go says.
func TestMargin(t *testing.T) {
	for ttl, want := range map[time.Duration]time.Duration{
		50 * time.Millisecond: 10 * time.Millisecond, 400 * time.Millisecond: 40 * time.Millisecond, 5 * time.Second: 500 * time.Millisecond, time.Minute: time.Second,
	} {
		if got := marginOf(ttl); got != want {
			t.Errorf("margin of %s is %s, want %s", ttl, got, want)
		}
	}
}

// What a check of the lease costs a request.
func BenchmarkLeaseValid(b *testing.B) {
	l := newLease(b.Context(), boottime.Now, boottime.Now().Add(time.Hour))
	defer l.end(ErrShutdown)
	for b.Loop() {
		if !l.Valid() {
			b.Fatal("not valid")
		}
	}
}
