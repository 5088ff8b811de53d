package lock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/memory"
)

const (
	alice = "alice's secret, long enough"
	bob   = "bob's secret, long enough too"
)

// plain is a store without a barrier, whose commits a test can break.
type plain struct {
	physical.Backend
	fence  *physical.Fence
	breaks atomic.Pointer[func(commit func() error) error]
}

func (p *plain) Commit(ctx context.Context, ops ...physical.Op) error {
	commit := func() error { return p.Backend.Commit(ctx, p.fence, ops...) }
	if f := p.breaks.Load(); f != nil {
		return (*f)(commit)
	}
	return commit()
}

// clock is moved by the test.
type clock struct{ now atomic.Int64 }

func (c *clock) read() boottime.Instant { return boottime.Instant(c.now.Load()) }
func (c *clock) add(d time.Duration)    { c.now.Add(int64(d)) }

func newTerm(t *testing.T, store *memory.Store, term uint64, clock *clock) (*Manager, *plain) {
	t.Helper()
	handle := store.Open()
	t.Cleanup(func() { handle.Close() })
	from, err := handle.Fence(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fence := physical.Fence{Lineage: "l", Term: term}
	if err := handle.RaiseFence(t.Context(), from, fence); err != nil {
		t.Fatal(err)
	}
	view := &plain{Backend: handle, fence: &fence}
	return New(view, Config{Clock: clock.read}), view
}

func request(secret string) Request {
	return Request{Name: "jobs/report", Holder: secret[:3], Secret: secret, TTL: 10 * time.Second}
}

func mustAcquire(t *testing.T, m *Manager, secret string, number uint64) {
	t.Helper()
	g, err := m.Acquire(t.Context(), request(secret))
	if err != nil || g.Number != number {
		t.Fatalf("acquire: %+v, %v; want number %d", g, err, number)
	}
}

// "Named locks with their own rising number": one holder at a time; every change of hands raises the number; who has it
// already gets it again.
func TestOneHolder(t *testing.T) {
	clock := &clock{}
	m, _ := newTerm(t, memory.NewStore(), 1, clock)
	mustAcquire(t, m, alice, 1)
	mustAcquire(t, m, alice, 1) // the answer was lost, and the request came again
	var held *HeldError
	if _, err := m.Acquire(t.Context(), request(bob)); !errors.As(err, &held) || held.State.Holder != "ali" || held.State.Left != 10*time.Second {
		t.Fatalf("bob: %v", err)
	}
	if _, err := m.Renew(t.Context(), "jobs/report", bob); !errors.Is(err, ErrLost) {
		t.Fatalf("bob renews: %v", err)
	}
	if err := m.Release(t.Context(), "jobs/report", bob); err != nil {
		t.Fatal(err)
	}
	clock.add(9 * time.Second)
	if _, err := m.Renew(t.Context(), "jobs/report", alice); err != nil {
		t.Fatal(err)
	}
	clock.add(9 * time.Second)
	if s, err := m.Get(t.Context(), "jobs/report"); err != nil || !s.Held || s.Left != time.Second {
		t.Fatalf("state: %+v, %v", s, err)
	}
	clock.add(time.Second)
	if _, err := m.Renew(t.Context(), "jobs/report", alice); !errors.Is(err, ErrLost) {
		t.Fatalf("renewed at the deadline: %v", err)
	}
	mustAcquire(t, m, bob, 2)
	if err := m.Release(t.Context(), "jobs/report", bob); err != nil {
		t.Fatal(err)
	}
	mustAcquire(t, m, alice, 3)
	if err := m.Break(t.Context(), "jobs/report"); err != nil {
		t.Fatal(err)
	}
	mustAcquire(t, m, bob, 4)
}

// "Survives failover": the holder goes on with the next active node, and for a full TTL from that node's beginning nobody
// else gets the lock; the last active node's manager can write no more (P1).
func TestFailover(t *testing.T) {
	store, clock := memory.NewStore(), &clock{}
	first, _ := newTerm(t, store, 1, clock)
	mustAcquire(t, first, alice, 1)
	clock.add(time.Hour) // nobody was active
	second, _ := newTerm(t, store, 2, clock)
	clock.add(9 * time.Second)
	if _, err := second.Acquire(t.Context(), request(bob)); !errors.Is(err, ErrHeld) {
		t.Fatalf("bob: %v", err)
	}
	if g, err := second.Renew(t.Context(), "jobs/report", alice); err != nil || g.Number != 1 {
		t.Fatalf("alice goes on: %+v, %v", g, err)
	}
	if err := first.Release(t.Context(), "jobs/report", alice); !errors.Is(err, physical.ErrFenced) {
		t.Fatalf("the deposed node released: %v", err)
	}
	clock.add(10 * time.Second)
	third, _ := newTerm(t, store, 3, clock)
	clock.add(10 * time.Second)
	mustAcquire(t, third, bob, 2)
}

// A commit of unknown outcome: the same request again gets the lock once, and nobody else gets it in between.
func TestUnknownOutcome(t *testing.T) {
	for _, landed := range []bool{true, false} {
		t.Run(fmt.Sprint("landed=", landed), func(t *testing.T) {
			clock := &clock{}
			m, view := newTerm(t, memory.NewStore(), 1, clock)
			clock.add(time.Hour)
			lose := func(commit func() error) error {
				if landed {
					if err := commit(); err != nil {
						return err
					}
				}
				return physical.ErrUnknown
			}
			view.breaks.Store(&lose)
			if _, err := m.Acquire(t.Context(), request(alice)); !errors.Is(err, physical.ErrUnknown) {
				t.Fatalf("acquire: %v", err)
			}
			view.breaks.Store(nil)
			if _, err := m.Acquire(t.Context(), request(bob)); errors.Is(err, ErrHeld) != landed {
				t.Fatalf("bob: %v", err)
			}
			if landed {
				mustAcquire(t, m, alice, 1)
			}
		})
	}
}

// Waiting: a release wakes at once, an expiry when it is due, a limit and a drain end it.
func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		store := memory.NewStore().Open()
		fence := physical.Fence{Lineage: "l", Term: 1}
		if err := store.RaiseFence(t.Context(), physical.Fence{}, fence); err != nil {
			t.Fatal(err)
		}
		m := New(&plain{Backend: store, fence: &fence}, Config{Clock: func() boottime.Instant { return boottime.Instant(time.Since(begun)) }})
		mustAcquire(t, m, alice, 1)
		patient := request(bob)
		patient.Wait = time.Minute
		var wg sync.WaitGroup
		wait := func(want error, number uint64, after time.Duration) {
			wg.Go(func() {
				g, err := m.Acquire(t.Context(), patient)
				if !errors.Is(err, want) || g.Number != number || time.Since(begun) != after {
					t.Errorf("%+v, %v after %s; want %d, %v after %s", g, err, time.Since(begun), number, want, after)
				}
			})
		}
		wait(nil, 2, 4*time.Second)
		time.Sleep(4 * time.Second)
		if err := m.Release(t.Context(), "jobs/report", alice); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		patient.Secret = alice
		wait(nil, 3, 14*time.Second) // bob's TTL runs out
		wg.Wait()
		patient.Secret, patient.Wait = bob, 2*time.Second
		wait(ErrHeld, 0, 16*time.Second)
		wg.Wait()
		patient.Wait = time.Minute
		wait(ErrDraining, 0, 17*time.Second)
		time.Sleep(time.Second)
		m.Drain()
		wg.Wait()
		if err := m.Release(t.Context(), "jobs/report", alice); err != nil {
			t.Fatalf("release while draining: %v", err)
		}
	})
}

// P12: what nobody holds is removed, its number is not; a late commit of unknown outcome does not lower the floor.
func TestSweep(t *testing.T) {
	store, clock := memory.NewStore(), &clock{}
	m, view := newTerm(t, store, 1, clock)
	m.cfg.Keep = time.Nanosecond
	for i := range 5 {
		r := request(alice)
		r.Name = fmt.Sprint("lock/", i)
		for range i + 1 {
			if _, err := m.Acquire(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			if err := m.Break(t.Context(), r.Name); err != nil {
				t.Fatal(err)
			}
		}
	}
	mustAcquire(t, m, bob, 1)
	var late func() error
	lose := func(commit func() error) error {
		late = commit
		return physical.ErrUnknown
	}
	view.breaks.Store(&lose)
	if err := m.Sweep(t.Context()); !errors.Is(err, physical.ErrUnknown) {
		t.Fatalf("sweep: %v", err)
	}
	view.breaks.Store(nil)
	if err := m.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := late(); !errors.Is(err, physical.ErrConflict) {
		t.Fatalf("the late commit: %v", err)
	}
	names, err := m.List(t.Context(), "", 0)
	if err != nil || len(names) != 1 || names[0] != "jobs/report" {
		t.Fatalf("left: %q, %v", names, err)
	}
	if len(m.open) != 1 {
		t.Fatalf("%d locks in memory, one is held", len(m.open))
	}
	next, _ := newTerm(t, store, 2, clock)
	r := request(alice)
	r.Name = "lock/0"
	if g, err := next.Acquire(t.Context(), r); err != nil || g.Number != 6 {
		t.Fatalf("after the removal: %+v, %v; want 6", g, err)
	}
}

// What no request may say, with a sentence that says what it may.
func TestRequests(t *testing.T) {
	m, _ := newTerm(t, memory.NewStore(), 1, &clock{})
	for what, change := range map[string]func(*Request){
		"name": func(r *Request) { r.Name = "a//b" }, "no name": func(r *Request) { r.Name = "" },
		"long name": func(r *Request) { r.Name = strings.Repeat("a", MaxName+1) },
		"holder":    func(r *Request) { r.Holder = strings.Repeat("a", MaxHolder+1) },
		"secret":    func(r *Request) { r.Secret = "short" }, "ttl": func(r *Request) { r.TTL = time.Millisecond },
		"long ttl": func(r *Request) { r.TTL = 25 * time.Hour }, "wait": func(r *Request) { r.Wait = -1 },
	} {
		r := request(alice)
		change(&r)
		if _, err := m.Acquire(t.Context(), r); !errors.Is(err, physical.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	m.cfg.MaxLocks = 1
	mustAcquire(t, m, alice, 1)
	r := request(bob)
	r.Name = "another"
	if _, err := m.Acquire(t.Context(), r); !errors.Is(err, ErrTooMany) {
		t.Errorf("one more than MaxLocks: %v", err)
	}
}

// Frozen: what this build stores, and has to read for ever.
func TestStoredFormat(t *testing.T) {
	clock := &clock{}
	m, view := newTerm(t, memory.NewStore(), 1, clock)
	stored := `{"format":1,"number":7,"holder":"ali","secret":"` + hashOf(alice) + `","ttl_ns":10000000000,"since":1700000000000000000}`
	if err := view.Commit(t.Context(), physical.Put("core/lock/jobs%2Freport", []byte(stored)),
		physical.Put("core/lock/new", []byte(`{"format":2}`)), physical.Put("core/lock-floor", []byte(`{"format":1,"number":40}`))); err != nil {
		t.Fatal(err)
	}
	mustAcquire(t, m, alice, 7)
	if _, err := m.Get(t.Context(), "new"); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("newer format: %v", err)
	}
	clock.add(time.Hour)
	mustAcquire(t, m, bob, 41)
}
