package physicaltest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/locum-ha/locum/physical"
)

// watches reports whether the store can wake a standby. One that cannot says so in its Caps.
func (s *scene) watches() bool {
	if !s.caps().Watch {
		s.Logf("the store does not watch: nothing to check")
	}
	return s.caps().Watch
}

// watcher returns node n as a Watcher.
func (s *scene) watcher(n int) physical.Watcher {
	s.Helper()
	w, ok := s.handle(n).(physical.Watcher)
	if !ok {
		s.Fatalf("a handle of type %T is not a physical.Watcher", s.handle(n))
	}
	return w
}

// mostEarly bounds how often a Watch may return early before that amounts to polling.
const mostEarly = 200

// watchUntil watches until a record is ok, each time for a change of what it saw last. Watch "may return early", but not
// over and over.
func watchUntil(ctx context.Context, w physical.Watcher, seen physical.Record, ok func(physical.Record) bool) error {
	for range mostEarly {
		r, err := w.Watch(ctx, seen)
		if err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		if ok(r) {
			return nil
		}
		if r == seen {
			pause(ctx, pollEvery) // a store may go on saying that an Acquire is worth trying until one is tried
		}
		seen = r
	}
	return fmt.Errorf("watch returned early %d times", mostEarly)
}

// checkWatchWakes: Watch "waits until the record of the lock differs from seen … and returns the record as
// it is then: one without a Holder when the lock is free", on every node, in time.
func checkWatchWakes(s *scene) {
	if !s.watches() {
		return
	}
	watchers := make([]physical.Watcher, s.several(3))
	for n := range watchers {
		watchers[n] = s.watcher(n)
	}
	best := time.Duration(math.MaxInt64)
	for round := range 3 {
		h := s.takeOver(s.nodes(), 0)
		free := h.grant.Record
		free.Holder, free.Next = "", "x"
		late := s.wakes(watchers, h.grant.Record, func() error { return h.lock.Release(s.ctx, h.grant, "x") },
			func(r physical.Record) bool { return r.Holder == "" && r.Term == free.Term && r.Next == "x" })
		best = min(best, late)

		var next *held
		free, _ = h.lock.Holder(s.ctx)
		late = s.wakes(watchers, free, func() error { next = s.win(h.node, 0); return nil },
			func(r physical.Record) bool { return r.Holder != "" && r.Term > free.Term })
		best = min(best, late)
		s.release(next, "")

		stale := physical.Record{Holder: "someone", Term: uint64(1000 + round)}
		ctx, cancel := context.WithTimeout(s.ctx, s.store.Settle)
		for n, w := range watchers {
			_, err := w.Watch(ctx, stale)
			s.must(err, "node %d: watch with a record that differs already", n)
		}
		cancel()
	}
	if best > s.store.Late {
		s.Errorf("watchers woke %v after the lock had changed, want at most %v", best, s.store.Late)
	}
}

// wakes lets all watchers wait, changes the lock, and returns how long after that the last one has woken.
func (s *scene) wakes(watchers []physical.Watcher, seen physical.Record, change func() error, ok func(physical.Record) bool) time.Duration {
	s.Helper()
	var changed time.Time
	var woken atomic.Int64
	start := time.Now()
	s.parallel(len(watchers)+1, func(ctx context.Context, i int) error {
		if i == len(watchers) {
			pause(ctx, min(s.ttl()/5, 50*time.Millisecond)) // the watchers are most likely waiting by then
			err := change()
			changed = time.Now()
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, s.patience())
		defer cancel()
		if err := watchUntil(ctx, watchers[i], seen, ok); err != nil {
			return fmt.Errorf("node %d, having seen %+v: %w", i, seen, err)
		}
		after := int64(time.Since(start))
		for was := woken.Load(); was < after && !woken.CompareAndSwap(was, after); was = woken.Load() {
		}
		return nil
	})
	return time.Duration(woken.Load()) - changed.Sub(start)
}

// checkWatchWakesWhenLockRunsOut: Watch returns when "an Acquire has become worth trying": contenders that
// do nothing but watch and try take over a lock that its holder has left, not much after its TTL.
func checkWatchWakesWhenLockRunsOut(s *scene) {
	if !s.watches() {
		return
	}
	s.quick()
	best := time.Duration(math.MaxInt64)
	for range 3 {
		h := s.takeOver(s.nodes(), 0)
		heal := s.silence(h)
		next := s.watchAndTry(h, s.nodes(h.node))
		heal()
		s.wantNotBefore(h, next)
		best = min(best, next.before.Sub(h.after.Add(h.grant.TTL)))
		s.release(next, "")
	}
	limit := s.store.Late
	if s.store.ElectsItself {
		limit += s.store.Settle
	}
	if best > limit {
		s.Errorf("watchers woke %v after a lock had run out, want at most %v", best, limit)
	}
}

// watchAndTry has each node watch and try until one has the lock.
func (s *scene) watchAndTry(h *held, nodes []int) *held {
	s.Helper()
	var winner atomic.Pointer[held]
	watchers := make([]physical.Watcher, len(nodes))
	for i, n := range nodes {
		watchers[i] = s.watcher(n)
	}
	all, won := context.WithTimeout(s.ctx, s.patience())
	defer won()
	s.parallel(len(nodes), func(_ context.Context, i int) error {
		seen := h.grant.Record
		for range mostEarly {
			r, err := watchers[i].Watch(all, seen)
			if winner.Load() != nil {
				return nil
			}
			if err != nil {
				return fmt.Errorf("node %d: watch: %w", nodes[i], err)
			}
			seen = r
			next, err := s.tryBriefly(nodes[i], 0)
			if err == nil {
				winner.Store(next)
				won()
				return nil
			}
			if !mayRetry(err) {
				return fmt.Errorf("node %d: acquire: %w", nodes[i], err)
			}
		}
		return fmt.Errorf("node %d: watch returned early %d times", nodes[i], mostEarly)
	})
	if winner.Load() == nil {
		s.Fatalf("nobody took over the lock within %v", s.patience())
	}
	return winner.Load()
}

// checkWatchEnds: a Watch returns when its context ends, and when its store is closed.
func checkWatchEnds(s *scene) {
	if !s.watches() {
		return
	}
	h := s.win(0, 0)
	last := h.node
	if others := s.nodes(h.node); len(others) > 0 {
		last = others[0]
	}
	w := s.watcher(last)
	watch := method{"Watch", func(ctx context.Context) error {
		return watchUntil(ctx, w, h.grant.Record, func(physical.Record) bool { return false })
	}}
	s.honours(watch, "before the call", cancelledBefore)
	s.honours(watch, "while waiting", cancelledSoon)
	s.honours(watch, "timed out", deadlineSoon)

	ended := make(chan error, 1)
	go func() { ended <- watch.call(s.ctx) }()
	pause(s.ctx, 20*time.Millisecond) // most likely it waits by then
	s.must(s.handle(last).Close(), "close")
	select {
	case err := <-ended:
		if !errors.Is(err, physical.ErrClosed) {
			s.Errorf("a watch whose store was closed: got error %v, want ErrClosed", err)
		}
	case <-time.After(s.store.Settle):
		s.Fatalf("a watch went on for %v after its store was closed", s.store.Settle)
	}
}
