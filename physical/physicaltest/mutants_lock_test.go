package physicaltest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/memory"
)

// brokenLock is a handle of the memory store with some of the lock's methods replaced.
type brokenLock struct {
	*memory.Handle
	acquire func(ctx context.Context, r physical.Record, ttl time.Duration, above uint64) (physical.Grant, error)
	renew   func(ctx context.Context, g physical.Grant) (physical.Grant, error)
	release func(ctx context.Context, g physical.Grant, next string) error
	holder  func(ctx context.Context) (physical.Record, error)
	watch   func(ctx context.Context, seen physical.Record) (physical.Record, error)
	close   func() error
}

func (b *brokenLock) Acquire(ctx context.Context, r physical.Record, ttl time.Duration, above uint64) (physical.Grant, error) {
	if b.acquire != nil {
		return b.acquire(ctx, r, ttl, above)
	}
	return b.Handle.Acquire(ctx, r, ttl, above)
}

func (b *brokenLock) Renew(ctx context.Context, g physical.Grant) (physical.Grant, error) {
	if b.renew != nil {
		return b.renew(ctx, g)
	}
	return b.Handle.Renew(ctx, g)
}

func (b *brokenLock) Release(ctx context.Context, g physical.Grant, next string) error {
	if b.release != nil {
		return b.release(ctx, g, next)
	}
	return b.Handle.Release(ctx, g, next)
}

func (b *brokenLock) Holder(ctx context.Context) (physical.Record, error) {
	if b.holder != nil {
		return b.holder(ctx)
	}
	return b.Handle.Holder(ctx)
}

func (b *brokenLock) Watch(ctx context.Context, seen physical.Record) (physical.Record, error) {
	if b.watch != nil {
		return b.watch(ctx, seen)
	}
	return b.Handle.Watch(ctx, seen)
}

func (b *brokenLock) Close() error {
	if b.close != nil {
		return b.close()
	}
	return b.Handle.Close()
}

// breaksLock makes a wrap that replaces methods. last is the grant in force, of whichever handle.
func breaksLock(set func(b *brokenLock, h *memory.Handle, last *atomic.Pointer[physical.Grant])) wrap {
	return func(h *memory.Handle, s *sharedState, _ int) Handle {
		b := &brokenLock{Handle: h}
		set(b, h, *shared(s, "last", &atomic.Pointer[physical.Grant]{}))
		return b
	}
}

// remember keeps the grant in force for what is broken elsewhere.
func remember(b *brokenLock, h *memory.Handle, last *atomic.Pointer[physical.Grant]) {
	b.acquire = func(ctx context.Context, r physical.Record, ttl time.Duration, above uint64) (physical.Grant, error) {
		g, err := h.Acquire(ctx, r, ttl, above)
		if err == nil {
			last.Store(&g)
		}
		return g, err
	}
}

// withTTL asks the store for another TTL than it says.
func withTTL(other func(time.Duration) time.Duration) wrap {
	return breaksLock(func(b *brokenLock, h *memory.Handle, _ *atomic.Pointer[physical.Grant]) {
		b.acquire = func(ctx context.Context, r physical.Record, ttl time.Duration, above uint64) (physical.Grant, error) {
			g, err := h.Acquire(ctx, r, other(ttl), above)
			g.TTL = ttl
			return g, err
		}
		b.renew = func(ctx context.Context, g physical.Grant) (physical.Grant, error) {
			renewed, err := h.Renew(ctx, g)
			renewed.TTL = g.TTL
			return renewed, err
		}
	})
}

// Stores that break a promise about the lock are found out.
func TestLockMutants(t *testing.T) { expectCaught(t, lockMutants, lockChecks) }

var lockMutants = []mutant{
	{name: "renewal takes back", checks: []string{"RenewAfterLoss"}, wrap: breaksLock(func(b *brokenLock, h *memory.Handle, _ *atomic.Pointer[physical.Grant]) {
		b.renew = func(ctx context.Context, g physical.Grant) (physical.Grant, error) {
			renewed, err := h.Renew(ctx, g)
			if errors.Is(err, physical.ErrLost) {
				if again, err := h.Acquire(ctx, g.Record, g.TTL, 0); err == nil {
					return again, nil
				}
			}
			return renewed, err
		}
	})},
	{name: "renewal without looking", checks: []string{"RenewAfterLoss", "OlderGrantOfOneself", "Contest"},
		wrap: breaksLock(func(b *brokenLock, h *memory.Handle, _ *atomic.Pointer[physical.Grant]) {
			b.renew = func(ctx context.Context, g physical.Grant) (physical.Grant, error) {
				if _, err := h.Renew(ctx, g); err != nil && !errors.Is(err, physical.ErrLost) {
					return physical.Grant{}, err
				}
				return g, nil
			}
		})},
	{name: "renewal extends nothing", checks: []string{"RenewKeeps", "NoOverlap"},
		wrap: breaksLock(func(b *brokenLock, h *memory.Handle, last *atomic.Pointer[physical.Grant]) {
			var lost atomic.Int64
			b.acquire = func(ctx context.Context, r physical.Record, ttl time.Duration, above uint64) (physical.Grant, error) {
				lost.Store(time.Now().Add(ttl).UnixNano())
				return h.Acquire(ctx, r, ttl, above)
			}
			b.renew = func(ctx context.Context, g physical.Grant) (physical.Grant, error) {
				if time.Now().UnixNano() >= lost.Load() {
					return physical.Grant{}, errors.Join(physical.ErrLost, h.Release(ctx, g, ""))
				}
				return h.Renew(ctx, g)
			}
		})},
	{name: "release frees whatever is there", checks: []string{"ReleaseAfterLoss", "OlderGrantOfOneself", "Contest"},
		wrap: breaksLock(func(b *brokenLock, h *memory.Handle, last *atomic.Pointer[physical.Grant]) {
			remember(b, h, last)
			b.release = func(ctx context.Context, g physical.Grant, next string) error {
				if now := last.Load(); now != nil {
					g = *now
				}
				return h.Release(ctx, g, next)
			}
		})},
	{name: "release of a lost lock is an error", checks: []string{"ReleaseAfterLoss"},
		wrap: breaksLock(func(b *brokenLock, h *memory.Handle, _ *atomic.Pointer[physical.Grant]) {
			b.release = func(ctx context.Context, g physical.Grant, next string) error {
				if r, err := h.Holder(ctx); err != nil || r.Term != g.Term() {
					return physical.ErrLost
				}
				return h.Release(ctx, g, next)
			}
		})},
	{name: "release forgets the successor", checks: []string{"AcquireHeldRelease"},
		wrap: breaksLock(func(b *brokenLock, h *memory.Handle, _ *atomic.Pointer[physical.Grant]) {
			b.release = func(ctx context.Context, g physical.Grant, _ string) error { return h.Release(ctx, g, "") }
		})},
	{name: "release does nothing", checks: []string{"AcquireHeldRelease", "WatchWakes"},
		wrap: breaksLock(func(b *brokenLock, _ *memory.Handle, _ *atomic.Pointer[physical.Grant]) {
			b.release = func(context.Context, physical.Grant, string) error { return nil }
		})},
	{name: "only its own handle can release", checks: []string{"GrantTravels"},
		wrap: breaksLock(func(b *brokenLock, h *memory.Handle, _ *atomic.Pointer[physical.Grant]) {
			mine := make(map[uint64]bool)
			b.acquire = func(ctx context.Context, r physical.Record, ttl time.Duration, above uint64) (physical.Grant, error) {
				g, err := h.Acquire(ctx, r, ttl, above)
				mine[g.Term()] = true
				return g, err
			}
			b.release = func(ctx context.Context, g physical.Grant, next string) error {
				if !mine[g.Term()] {
					return nil
				}
				return h.Release(ctx, g, next)
			}
		})},
	{name: "one's own lock is taken again", checks: []string{"AcquireHeldRelease", "OlderGrantOfOneself"},
		wrap: breaksLock(func(b *brokenLock, h *memory.Handle, last *atomic.Pointer[physical.Grant]) {
			b.acquire = func(ctx context.Context, r physical.Record, ttl time.Duration, above uint64) (physical.Grant, error) {
				if now := last.Load(); now != nil && now.Record.Holder == r.Holder {
					_ = h.Release(ctx, *now, "")
				}
				g, err := h.Acquire(ctx, r, ttl, above)
				if err == nil {
					last.Store(&g)
				}
				return g, err
			}
		})},
	{name: "refusal names nobody", checks: []string{"AcquireHeldRelease"},
		wrap: breaksLock(func(b *brokenLock, h *memory.Handle, _ *atomic.Pointer[physical.Grant]) {
			b.acquire = func(ctx context.Context, r physical.Record, ttl time.Duration, above uint64) (physical.Grant, error) {
				g, err := h.Acquire(ctx, r, ttl, above)
				if errors.Is(err, physical.ErrHeld) {
					err = physical.ErrHeld
				}
				return g, err
			}
		})},
	{name: "no record after the lock is free", checks: []string{"AcquireHeldRelease"},
		wrap: breaksLock(func(b *brokenLock, h *memory.Handle, _ *atomic.Pointer[physical.Grant]) {
			b.holder = func(ctx context.Context) (physical.Record, error) {
				r, err := h.Holder(ctx)
				if err != nil {
					r = physical.Record{}
				}
				return r, err
			}
		})},
	{name: "nobody's lock", checks: []string{"Invalid"},
		wrap: breaksLock(func(b *brokenLock, h *memory.Handle, _ *atomic.Pointer[physical.Grant]) {
			b.acquire = func(ctx context.Context, r physical.Record, ttl time.Duration, above uint64) (physical.Grant, error) {
				if r.Holder == "" {
					return physical.Grant{Record: r, TTL: ttl}, nil
				}
				return h.Acquire(ctx, r, ttl, above)
			}
		})},
	{name: "lost too soon", checks: []string{"RunsOut", "NoOverlap", "CloseLeavesLock", "Contest"},
		wrap: withTTL(func(ttl time.Duration) time.Duration { return ttl / 5 })},
	{name: "lost much later", checks: []string{"RunsOut", "WatchWakesWhenLockRunsOut"},
		wrap: withTTL(func(ttl time.Duration) time.Duration { return ttl + 500*time.Millisecond })},
	{name: "above ignored", checks: []string{"TermsRise"},
		wrap: breaksLock(func(b *brokenLock, h *memory.Handle, _ *atomic.Pointer[physical.Grant]) {
			b.acquire = func(ctx context.Context, r physical.Record, ttl time.Duration, _ uint64) (physical.Grant, error) {
				return h.Acquire(ctx, r, ttl, 0)
			}
		})},
	{name: "a term given twice", checks: []string{"AcquireHeldRelease", "TermsRise", "TermsRiseOverRunningOut", "OlderGrantOfOneself", "Contest"},
		wrap: func(h *memory.Handle, _ *sharedState, _ int) Handle {
			half := func(g physical.Grant) physical.Grant { g.Record.Term = (g.Record.Term + 1) / 2; return g }
			b := &brokenLock{Handle: h}
			terms := make(map[string]uint64) // by token
			b.acquire = func(ctx context.Context, r physical.Record, ttl time.Duration, above uint64) (physical.Grant, error) {
				g, err := h.Acquire(ctx, r, ttl, 2*above)
				terms[string(g.Token)] = g.Term()
				return half(g), err
			}
			b.renew = func(ctx context.Context, g physical.Grant) (physical.Grant, error) {
				g.Record.Term = terms[string(g.Token)]
				g, err := h.Renew(ctx, g)
				return half(g), err
			}
			b.release = func(ctx context.Context, g physical.Grant, next string) error {
				g.Record.Term = terms[string(g.Token)]
				return h.Release(ctx, g, next)
			}
			b.holder = func(ctx context.Context) (physical.Record, error) {
				r, err := h.Holder(ctx)
				r.Term = (r.Term + 1) / 2
				return r, err
			}
			return b
		}},
	{name: "terms forgotten at restart", checks: []string{"TermsRiseOverRestart"}, store: func(s *Store, _ *memory.Store) {
		inner := memory.NewStore()
		s.Open = func(int) (Handle, error) { return inner.Open(), nil }
		s.Restart = func() error { inner = memory.NewStore(); return nil }
	}},
	{name: "close releases", checks: []string{"CloseLeavesLock", "TermsRiseOverRestart"},
		wrap: breaksLock(func(b *brokenLock, h *memory.Handle, last *atomic.Pointer[physical.Grant]) {
			remember(b, h, last)
			b.close = func() error {
				if g := last.Load(); g != nil {
					_ = h.Release(context.Background(), *g, "")
				}
				return h.Close()
			}
		})},
	{name: "two locks", checks: []string{"AcquireHeldRelease", "RenewKeeps", "NoOverlap", "Contest"}, store: func(s *Store, m *memory.Store) {
		other := memory.NewStore()
		s.Open = func(n int) (Handle, error) {
			if n%2 == 1 {
				return other.Open(), nil
			}
			return m.Open(), nil
		}
	}},
	{name: "watch does not wake", checks: []string{"WatchWakes"},
		wrap: breaksLock(func(b *brokenLock, h *memory.Handle, _ *atomic.Pointer[physical.Grant]) {
			b.watch = func(ctx context.Context, seen physical.Record) (physical.Record, error) {
				pause(ctx, 600*time.Millisecond)
				return h.Watch(ctx, seen)
			}
		})},
	{name: "watch does not see a lock run out", checks: []string{"WatchWakesWhenLockRunsOut"}, options: []memory.Option{memory.WithClock(noTimers{})}},
	{name: "watch spins", checks: []string{"WatchWakes", "WatchEnds"},
		wrap: breaksLock(func(b *brokenLock, h *memory.Handle, _ *atomic.Pointer[physical.Grant]) {
			b.watch = func(ctx context.Context, seen physical.Record) (physical.Record, error) { return seen, ctx.Err() }
		})},
	{name: "watch goes on after close", checks: []string{"WatchEnds"},
		wrap: breaksLock(func(b *brokenLock, h *memory.Handle, _ *atomic.Pointer[physical.Grant]) {
			b.close = func() error { return nil }
		})},
	{name: "contexts ignored", checks: []string{"CancelledBefore"},
		wrap: breaksLock(func(b *brokenLock, h *memory.Handle, _ *atomic.Pointer[physical.Grant]) {
			b.renew = func(_ context.Context, g physical.Grant) (physical.Grant, error) {
				pause(context.Background(), 150*time.Millisecond)
				return h.Renew(context.Background(), g)
			}
		})},
	{name: "cancelled acquire is carried out", checks: []string{"CancelledBefore", "CancelledDuring"},
		wrap: breaksLock(func(b *brokenLock, h *memory.Handle, _ *atomic.Pointer[physical.Grant]) {
			b.acquire = func(ctx context.Context, r physical.Record, ttl time.Duration, above uint64) (physical.Grant, error) {
				g, err := h.Acquire(context.WithoutCancel(ctx), r, ttl, above)
				pause(ctx, time.Millisecond)
				if err == nil && ctx.Err() != nil {
					return physical.Grant{}, ctx.Err()
				}
				return g, err
			}
		})},
	{name: "cancelled renewal loses", checks: []string{"CancelledDuring"},
		wrap: breaksLock(func(b *brokenLock, h *memory.Handle, _ *atomic.Pointer[physical.Grant]) {
			b.renew = func(ctx context.Context, g physical.Grant) (physical.Grant, error) {
				pause(ctx, 500*time.Microsecond)
				renewed, err := h.Renew(ctx, g)
				if err != nil {
					return physical.Grant{}, physical.ErrLost
				}
				return renewed, err
			}
		})},
	{name: "lost answer taken for a loss", checks: []string{"CutAfterSent"}, store: func(s *Store, m *memory.Store) {
		cut := false
		s.Open = func(int) (Handle, error) {
			h := m.Open()
			b := &brokenLock{Handle: h}
			b.renew = func(ctx context.Context, g physical.Grant) (physical.Grant, error) {
				g, err := h.Renew(ctx, g)
				if cut {
					return physical.Grant{}, physical.ErrLost
				}
				return g, err
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
			b := &brokenLock{Handle: h}
			b.holder = func(ctx context.Context) (physical.Record, error) { <-hole; return h.Holder(ctx) }
			return b, nil
		}
		s.Isolate = func(int) func() {
			hole = make(chan struct{})
			return func() { close(hole) }
		}
	}},
	{name: "silence taken for a loss", checks: []string{"BlackHole"}, store: takingSilenceFor(func(b *brokenLock, h *memory.Handle, isolated *atomic.Bool) {
		b.renew = func(ctx context.Context, g physical.Grant) (physical.Grant, error) {
			if !isolated.Load() {
				return h.Renew(ctx, g)
			}
			<-ctx.Done()
			return physical.Grant{}, physical.ErrLost
		}
	})},
	{name: "silence taken for a free lock", checks: []string{"BlackHole"}, store: takingSilenceFor(func(b *brokenLock, h *memory.Handle, isolated *atomic.Bool) {
		b.holder = func(ctx context.Context) (physical.Record, error) {
			if !isolated.Load() {
				return h.Holder(ctx)
			}
			<-ctx.Done()
			return physical.Record{}, physical.ErrNoHolder
		}
	})},
	{name: "open after close", checks: []string{"Closed"},
		wrap: breaksLock(func(b *brokenLock, h *memory.Handle, _ *atomic.Pointer[physical.Grant]) {
			b.close = func() error { return nil }
		})},
}

// takingSilenceFor makes a store that breaks a handle which knows when it is isolated.
func takingSilenceFor(breaks func(b *brokenLock, h *memory.Handle, isolated *atomic.Bool)) func(*Store, *memory.Store) {
	return func(s *Store, m *memory.Store) {
		var isolated atomic.Bool
		s.Open = func(int) (Handle, error) {
			h := m.Open()
			b := &brokenLock{Handle: h}
			breaks(b, h, &isolated)
			return b, nil
		}
		s.Isolate = func(int) func() { isolated.Store(true); return func() { isolated.Store(false) } }
	}
}

// noTimers is a clock that goes, and whose timers never fire.
type noTimers struct{}

func (noTimers) Now() time.Time                                    { return time.Now() }
func (noTimers) NewTimer(time.Duration) (<-chan time.Time, func()) { return nil, func() {} }
