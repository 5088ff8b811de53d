package physicaltest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/locum-ha/locum/physical"
)

// tenure is the time in which a node relied on the lock, on this process's one clock.
type tenure struct {
	node        int
	term        uint64
	from, until time.Time
}

// tenures collects who relied on the lock when, and who does now.
type tenures struct {
	mu   sync.Mutex
	now  tenure // zero while nobody does
	past []tenure
}

func (t *tenures) begin(now tenure) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now = now
}

func (t *tenures) end(was tenure, until time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.now == was {
		t.now = tenure{}
	}
	was.until = until
	t.past = append(t.past, was)
}

// holder returns who relies on the lock now; its term is 0 if nobody does.
func (t *tenures) holder() tenure {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now
}

// overlaps names tenures that overlap, or follow one another with terms that do not rise.
func (t *tenures) overlaps() error {
	slices.SortFunc(t.past, func(a, b tenure) int { return a.from.Compare(b.from) })
	var errs []error
	for i := 1; i < len(t.past); i++ {
		a, b := t.past[i-1], t.past[i]
		if a.until.After(b.from) {
			errs = append(errs, fmt.Errorf("node %d relied on the lock of term %d for %v while node %d already had term %d",
				a.node, a.term, a.until.Sub(b.from), b.node, b.term))
		}
		if b.term <= a.term {
			errs = append(errs, fmt.Errorf("term %d follows on term %d", b.term, a.term))
		}
	}
	return errors.Join(errs...)
}

// checkNoOverlap: several nodes hold the lock by the lease rule (P4) — from when Acquire has returned until the instant
// before the last renewal that succeeded plus the TTL — and whoever holds it is put into a black hole for
// twice the TTL, over and over; every second time its requests come out of the hole late. Never do two
// hold it at one instant, and each time another takes over. Nor is the lock ever taken from a holder before its
// time (a store that elects its holder may say that a node which it has stopped to trust will not get it back).
func checkNoOverlap(s *scene) {
	s.quick()
	if s.store.ElectsItself && s.store.Isolate == nil {
		s.Skipf("the store elects its holder itself, and the harness has no Isolate")
	}
	nodes := s.nodes()
	if len(nodes) < 2 {
		s.Skipf("the harness has one node only")
	}
	var all tenures
	faults := make([]*FaultyLock, len(nodes))
	for _, n := range nodes {
		faults[n] = NewFaultyLock(s.lock(n))
	}
	ctx, stop := context.WithCancel(s.ctx)
	defer stop()
	s.parallel(len(nodes)+1, func(failed context.Context, i int) error {
		if i < len(nodes) {
			return s.contend(ctx, failed, faults[i], nodes[i], &all)
		}
		defer stop()
		for round := range 4 {
			if err := s.blackHole(failed, faults, &all, round); err != nil {
				return err
			}
		}
		return nil
	})
	if err := all.overlaps(); err != nil {
		s.Errorf("%v", err)
	}
	s.Logf("%d tenures", len(all.past))
}

// blackHole isolates whoever holds the lock for twice the TTL, and until another has it.
func (s *scene) blackHole(ctx context.Context, faults []*FaultyLock, all *tenures, round int) error {
	var cut tenure
	err := eventually(ctx, s.patience(), func(context.Context) error {
		if cut = all.holder(); cut.term == 0 {
			return errors.New("nobody has taken the lock")
		}
		return nil
	})
	if err != nil {
		return err
	}
	node := cut.node
	heal := func() { faults[node].Set(NoFault) }
	switch {
	case s.store.Isolate != nil:
		heal = s.store.Isolate(node)
	case round%2 == 1:
		faults[node].Set(Delay)
	default:
		faults[node].Set(BlackHole)
	}
	defer heal()
	pause(ctx, 2*s.ttl())
	return eventually(ctx, s.patience(), func(context.Context) error {
		if now := all.holder(); now.node == node || now.term <= cut.term {
			return fmt.Errorf("nobody has taken over from node %d, which is cut off", node)
		}
		return nil
	})
}

// contend competes for the lock and holds it by the lease rule, until ctx ends, or failed does.
func (s *scene) contend(ctx, failed context.Context, lock physical.HABackend, n int, all *tenures) error {
	for ctx.Err() == nil && failed.Err() == nil {
		attempt, cancel := context.WithTimeout(ctx, s.ttl())
		h, err := s.try(attempt, lock, n, 0)
		cancel()
		switch {
		case err == nil:
			if err := s.hold(ctx, failed, h, all); err != nil {
				return err
			}
		case ctx.Err() == nil && !mayRetry(err):
			return fmt.Errorf("node %d: acquire: %w", n, err)
		default:
			pause(ctx, s.ttl()/10)
		}
	}
	return nil
}

// hold renews every third of a TTL until the lock is lost, and records the tenure.
func (s *scene) hold(ctx, failed context.Context, h *held, all *tenures) error {
	now, until := tenure{node: h.node, term: h.grant.Term(), from: h.after}, h.after
	all.begin(now)
	defer func() { all.end(now, until) }()
	for {
		until = h.deadline()
		pause(ctx, h.grant.TTL/3)
		if now := time.Now(); !now.Before(until) || ctx.Err() != nil || failed.Err() != nil {
			until = minTime(until, now)
			return nil
		}
		attempt, cancel := context.WithDeadline(ctx, until)
		err := h.renew(attempt)
		cancel()
		if errors.Is(err, physical.ErrLost) {
			if early := time.Until(until); early > 0 && !s.store.ElectsItself {
				return fmt.Errorf("node %d lost the lock of term %d %v before its deadline", h.node, h.grant.Term(), early)
			}
			until = minTime(until, time.Now())
			return nil
		}
		if err != nil && !mayRetry(err) && attempt.Err() == nil {
			return fmt.Errorf("node %d: renew: %w", h.node, err)
		}
	}
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
