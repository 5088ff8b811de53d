package physicaltest

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/locum-ha/locum/physical"
)

func (s *scene) lockMethods(lock physical.HABackend, h *held) []method {
	all := []method{
		{"Acquire", func(ctx context.Context) error {
			_, err := lock.Acquire(ctx, s.record(h.node), s.ttl(), 0)
			return err
		}},
		{"Renew", func(ctx context.Context) error { _, err := lock.Renew(ctx, h.grant); return err }},
		{"Release", func(ctx context.Context) error { return lock.Release(ctx, h.grant, "") }},
		{"Holder", func(ctx context.Context) error { _, err := lock.Holder(ctx); return err }},
	}
	if w, ok := lock.(physical.Watcher); ok {
		all = append(all, method{"Watch", func(ctx context.Context) error {
			_, err := w.Watch(ctx, h.grant.Record)
			return err
		}})
	}
	if y, ok := lock.(physical.Yielder); ok {
		all = append(all, method{"Yield", func(ctx context.Context) error { return y.Yield(ctx, "") }})
	}
	return all
}

// checkLockCancelledBefore: a context that has ended already ends every method at once; what returns an
// error other than ErrUnknown has not been carried out.
func checkLockCancelledBefore(s *scene) {
	s.quick()
	h := s.win(0, 0)
	s.release(h, "")
	for _, m := range s.lockMethods(h.lock, h) {
		s.honours(m, "before the call", cancelledBefore)
	}
	ctx, cancel := cancelledBefore()
	defer cancel()
	_, err := h.lock.Acquire(ctx, s.record(h.node), s.ttl(), 0)
	s.wantFreeUnlessUnknown(err, h.node)
}

// wantFreeUnlessUnknown takes and releases the lock after an Acquire on a free lock returned err.
func (s *scene) wantFreeUnlessUnknown(err error, node int) {
	s.Helper()
	if err == nil || errors.Is(err, physical.ErrUnknown) || s.store.ElectsItself {
		s.release(s.takeOver(s.nodes(), 0), "")
		return
	}
	h, again := s.try(s.ctx, s.lock(node), node, 0)
	s.must(again, "acquire after an attempt that was not carried out (%v)", err)
	s.release(h, "")
}

// checkLockCancelledDuring: contexts that end at any moment of an Acquire or a Renew. "An unclear outcome is
// ErrUnknown"; of Renew: "Any other error leaves the grant as it was."
func checkLockCancelledDuring(s *scene) {
	s.quick()
	start := time.Now()
	h := s.win(0, 0)
	typical := max(time.Since(start), 100*time.Microsecond)
	s.release(h, "")
	attempts := 50
	if s.store.ElectsItself {
		attempts = 10 // each may cost an election
	}
	for unknown, attempt := 0, 0; attempt < attempts && unknown < 3; attempt++ {
		ctx, cancel := context.WithTimeout(s.ctx, rand.N(2*typical))
		got, err := s.try(ctx, h.lock, h.node, 0)
		cancel()
		if errors.Is(err, physical.ErrUnknown) {
			unknown++
		}
		if err != nil {
			s.wantFreeUnlessUnknown(err, h.node)
			got = s.takeOver(s.nodes(), 0)
		}
		s.renewCancelled(got, rand.N(2*typical))
		s.release(got, "")
	}
}

// renewCancelled renews with a context that ends after d, and then in earnest.
func (s *scene) renewCancelled(h *held, d time.Duration) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, d)
	_, err := h.lock.Renew(ctx, h.grant)
	cancel()
	if errors.Is(err, physical.ErrLost) && time.Now().Before(h.deadline()) {
		s.Fatalf("a renewal within the TTL gave ErrLost")
	}
	if err := h.renew(s.ctx); err != nil && time.Now().Before(h.deadline()) {
		s.Fatalf("renew after a renewal that was cancelled: %v", err)
	}
}

// checkLockCut: requests that were carried out and whose answer was lost. An Acquire: "the lock is perhaps
// held, and runs out by itself". A Renew "leaves the grant as it was", or extended. A Release may be repeated.
func checkLockCut(s *scene) {
	s.quick()
	h := s.win(0, 0)
	s.release(h, "")
	lock, net := s.faultyLock(h.node)

	heal := net.cut()
	before := time.Now()
	_, err := s.tryFor(s.ttl()/2, lock, h.node)
	heal()
	if err == nil || errors.Is(err, physical.ErrHeld) || errors.Is(err, physical.ErrLost) {
		s.Errorf("an Acquire without an answer gave %v", err)
	}
	taken, _ := s.lock(h.node).Holder(s.ctx)
	next := s.takeOver(s.nodes(), 0)
	if taken.Holder != "" && next.after.Before(before.Add(s.ttl())) && !s.store.ElectsItself {
		s.Errorf("a lock that was taken without an answer was lost before its TTL")
	}
	if next.grant.Term() <= max(taken.Term, h.grant.Term()) {
		s.Errorf("term %d follows on terms %d and %d", next.grant.Term(), h.grant.Term(), taken.Term)
	}

	h = next
	h.lock, net = s.faultyLock(h.node)
	heal = net.cut()
	ctx, cancel := context.WithTimeout(s.ctx, s.ttl()/4)
	_, err = h.lock.Renew(ctx, h.grant)
	cancel()
	heal()
	if (err == nil || errors.Is(err, physical.ErrLost)) && time.Now().Before(h.deadline()) {
		s.Errorf("a Renew without an answer gave %v", err)
	}
	if err := h.renew(s.ctx); err != nil && time.Now().Before(h.deadline()) {
		s.Errorf("renew after one that was cut: %v", err)
	}

	heal = net.cut()
	ctx, cancel = context.WithTimeout(s.ctx, s.ttl()/4)
	_ = h.lock.Release(ctx, h.grant, "")
	cancel()
	heal()
	next = s.takeOver(s.nodes(), 0)
	s.eventually(s.store.Settle, func(ctx context.Context) error { return h.lock.Release(ctx, h.grant, "wrong") })
	if next.grant.Term() <= h.grant.Term() {
		s.Errorf("term %d follows on term %d", next.grant.Term(), h.grant.Term())
	}
	s.keepsLock(next)
}

func (s *scene) tryFor(d time.Duration, lock physical.HABackend, n int) (*held, error) {
	ctx, cancel := context.WithTimeout(s.ctx, d)
	defer cancel()
	return s.try(ctx, lock, n, 0)
}

// checkLockBlackHole: while nothing comes through, methods end with their contexts, none says that the lock is lost or
// another's, and afterwards the handle serves again.
func checkLockBlackHole(s *scene) {
	h := s.win(0, 0)
	lock, net := s.faultyLock(h.node)
	s.must(h.renew(s.ctx), "renew")
	heal := net.isolate()
	s.notTakenForLost(lock, h)
	for _, m := range s.lockMethods(lock, h) {
		s.honours(m, "cancelled in a black hole", cancelledSoon)
		s.honours(m, "timed out in a black hole", deadlineSoon)
	}
	heal()
	s.eventually(s.store.Settle, func(ctx context.Context) error { return lock.Release(ctx, h.grant, "") })
	h.lock = lock
	s.wantLost(h)
	s.release(s.takeOver(s.nodes(), 0), "")
}

// notTakenForLost: that nobody answers says nothing of the lock, for as long as it cannot have run out.
func (s *scene) notTakenForLost(lock physical.HABackend, h *held) {
	s.Helper()
	for what, ask := range map[string]func(ctx context.Context) error{
		"Renew":  func(ctx context.Context) error { _, err := lock.Renew(ctx, h.grant); return err },
		"Holder": func(ctx context.Context) error { _, err := lock.Holder(ctx); return err },
	} {
		said := make(chan error, 1)
		overstay(func(ctx context.Context) error { // whether it does is checked elsewhere
			err := ask(ctx)
			if time.Now().Before(h.deadline()) {
				said <- err
			}
			return err
		}, func() (context.Context, context.CancelFunc) { return context.WithTimeout(s.ctx, h.grant.TTL/8) })
		select {
		case err := <-said:
			if errors.Is(err, physical.ErrLost) || errors.Is(err, physical.ErrNoHolder) {
				s.Errorf("%s took silence for an answer: %v", what, err)
			}
		default:
		}
	}
}

// checkLockClosed: "after Close return ErrClosed"; "A second Close does nothing".
func checkLockClosed(s *scene) {
	h := s.win(0, 0)
	n := s.several(3) - 1
	lock := s.lock(n)
	s.must(lock.Close(), "close")
	s.must(lock.Close(), "a second close")
	for _, m := range s.lockMethods(lock, &held{node: n, lock: lock, grant: h.grant}) {
		s.wantErr(m.call(s.ctx), physical.ErrClosed, "%s after Close", m.name)
	}
	if s.store.Nodes == 0 {
		s.must(h.renew(s.ctx), "renew at a handle that was not closed")
	}
}
