package physicaltest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
)

// LockOutages checks a store that keeps the lock while its real server fails under it, rounds times over: it is restarted while
// the lock is held, renewed and watched, and answers to renewals get lost. [Outages] does the same for stores that keep entries
// too. The harness must have Restart, which is called here with handles open, and CutAnswers.
func LockOutages(t *testing.T, h Harness, rounds int) {
	t.Helper()
	run := func(check func(*scene)) func(*scene) {
		return func(s *scene) {
			if s.store.Restart == nil || s.store.CutAnswers == nil {
				s.Fatalf("the harness must have Restart and CutAnswers")
			}
			for range rounds {
				check(s)
			}
		}
	}
	runAll(t, h, []check{{"RestartMidLease", run(checkRestartMidLease)}, {"AnswersLost", run(checkAnswersLost)}})
}

// renewThrough renews until done is closed and a renewal has succeeded since. What fails for the outage is tried again; a lock that is
// lost before its deadline is an error.
func (h *held) renewThrough(ctx context.Context, done <-chan struct{}) error {
	for {
		over := false
		select {
		case <-done:
			over = true
		default:
		}
		attempt, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		err := h.renew(attempt)
		cancel()
		switch {
		case err == nil && over:
			return nil
		case err != nil && !mayRetry(err):
			return fmt.Errorf("renewal %v before the deadline: %w", time.Until(h.deadline()), err)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// checkRestartMidLease: the store restarts mid-lease. The holder goes on renewing what it holds, and who watches is woken by what
// happens afterwards: the connections that were made before are of no use any more.
func checkRestartMidLease(s *scene) {
	h := s.win(0, 0)
	record := h.grant.Record
	s.handle(1) // opened before the store is away
	done := make(chan struct{})
	var began, up time.Time
	s.parallel(3, func(ctx context.Context, i int) error {
		ctx, cancel := context.WithTimeout(ctx, 2*s.patience())
		defer cancel()
		switch i {
		case 0:
			return s.watchThrough(ctx, record)
		case 1:
			pause(ctx, 100*time.Millisecond)
			defer close(done)
			began = time.Now()
			defer func() { up = time.Now() }()
			return s.store.Restart()
		}
		if err := h.renewThrough(ctx, done); err != nil {
			return err
		}
		s.Logf("the restart took %v; %v later the lock was renewed", up.Sub(began), h.after.Sub(up))
		pause(ctx, 100*time.Millisecond) // the watcher is most likely back by then
		return eventually(ctx, s.store.Settle, func(ctx context.Context) error { return h.lock.Release(ctx, h.grant, "chosen") })
	})
	s.wantNoHolder(h.grant.Term(), "chosen")
}

// watchThrough has another node watch until the lock is free.
func (s *scene) watchThrough(ctx context.Context, seen physical.Record) error {
	w, ok := s.handle(1).(physical.Watcher)
	if !ok || !s.caps().Watch {
		return nil
	}
	for {
		r, err := w.Watch(ctx, seen)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("a watcher was not woken: %w", context.Cause(ctx))
		case err != nil && !mayRetry(err):
			return fmt.Errorf("watch: %w", err)
		case err == nil && r.Holder == "" && r.Next == "chosen":
			return nil
		case err == nil && r.Holder != seen.Holder:
			return fmt.Errorf("a watcher sees %+v where %+v holds the lock", r, seen)
		}
		pause(ctx, pollEvery)
	}
}

// checkAnswersLost: of many renewals the answers are lost; the holder keeps the lock all the same.
func checkAnswersLost(s *scene) {
	h := s.win(0, 0)
	for range 6 {
		done := make(chan struct{})
		s.parallel(2, func(ctx context.Context, i int) error {
			if i == 1 {
				return h.renewThrough(ctx, done)
			}
			heal := s.store.CutAnswers(0)
			pause(ctx, 50*time.Millisecond)
			heal()
			close(done)
			return nil
		})
	}
	s.release(h, "")
	if _, err := h.lock.Renew(s.ctx, h.grant); !errors.Is(err, physical.ErrLost) {
		s.Errorf("renewal after the release: %v", err)
	}
}
