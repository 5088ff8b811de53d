package physicaltest

import (
	"context"
	"fmt"
	"math"
	"time"
)

// checkRunsOut: a lock that is not renewed, or not any more, is lost never sooner than its TTL and not much
// later. "Renew extends the grant by its TTL from an instant not before the call."
func checkRunsOut(s *scene) {
	s.quick()
	earliest := time.Duration(math.MaxInt64)
	h := s.win(0, 0)
	for round := range 3 {
		for range round {
			pause(s.ctx, h.grant.TTL/2)
			if err := h.renew(s.ctx); err != nil && time.Now().Before(h.deadline()) {
				s.Fatalf("renew: %v", err)
			}
		}
		heal := s.silence(h)
		next, late := s.wantTakenOver(h)
		heal()
		earliest = min(earliest, late)
		h = next
	}
	limit := s.store.Late
	if s.store.ElectsItself {
		limit += s.store.Settle
	}
	if earliest > limit { // each time: the machine being busy does not explain it
		s.Errorf("a lock was free only %v after its TTL of %v had passed, want at most %v", earliest, h.grant.TTL, limit)
	}
}

// checkRenewAfterLoss: Renew "returns ErrLost once the lock has run out or is another's, and never acquires
// anew" — also when nobody else has taken it.
func checkRenewAfterLoss(s *scene) {
	s.quick()
	h := s.win(0, 0)
	s.release(h, "")
	s.wantLost(h)
	s.wantNoHolder(h.grant.Term(), "")

	if !s.store.ElectsItself {
		h = s.win(0, 0)
		s.untilFree(h)
		for range 3 {
			s.wantLost(h)
		}
		s.wantNoHolder(h.grant.Term(), "")
	}

	h = s.win(0, 0)
	heal := s.silence(h)
	next, _ := s.wantTakenOver(h)
	s.keepsLock(next)
	heal()
	s.wantLost(h)
	s.keepsLock(next)
}

// untilFree waits until the lock of h has run out.
func (s *scene) untilFree(h *held) {
	s.Helper()
	s.eventually(s.patience(), func(ctx context.Context) error {
		r, err := s.lock(h.node).Holder(ctx)
		if err == nil {
			return fmt.Errorf("held by %+v", r)
		}
		if time.Now().Before(h.deadline()) {
			s.Errorf("the lock was lost %v before its TTL had passed", time.Until(h.deadline()))
		}
		return nil
	})
}

// keepsLock renews h's lock for a moment, in which whatever was done to it would show.
func (s *scene) keepsLock(h *held) {
	s.Helper()
	for range 3 {
		if err := h.renew(s.ctx); err != nil && time.Now().Before(h.deadline()) {
			s.Fatalf("the holder's lock was disturbed: renew: %v", err)
		}
	}
	if time.Now().Before(h.deadline()) {
		s.wantHolder(h)
	}
}

// checkReleaseAfterLoss: Release "returns nil when the lock was already lost, and leaves a successor's lock
// alone. The term is kept."
func checkReleaseAfterLoss(s *scene) {
	s.quick()
	h := s.win(0, 0)
	s.release(h, "")
	s.must(h.lock.Release(s.ctx, h.grant, ""), "a second release")
	s.wantNoHolder(h.grant.Term(), "")

	if !s.store.ElectsItself {
		h = s.win(0, 0)
		s.untilFree(h)
		s.must(h.lock.Release(s.ctx, h.grant, ""), "a release of a lock that has run out")
		s.wantNoHolder(h.grant.Term(), "")
	}

	h = s.win(0, 0)
	heal := s.silence(h)
	next, _ := s.wantTakenOver(h)
	s.keepsLock(next)
	heal()
	s.eventually(s.store.Settle, func(ctx context.Context) error {
		if err := next.renew(ctx); err != nil && time.Now().Before(next.deadline()) {
			s.Fatalf("the successor renews: %v", err)
		}
		return h.lock.Release(ctx, h.grant, "wrong")
	})
	s.keepsLock(next)
}

// checkTermsRiseOverRunningOut: "The number of a leadership, its term, rises strictly over releases,
// expiries, takeovers".
func checkTermsRiseOverRunningOut(s *scene) {
	s.quick()
	h := s.win(0, 0)
	for range 2 {
		heal := s.silence(h)
		h, _ = s.wantTakenOver(h)
		heal()
	}
	s.release(h, "")
	if s.store.ElectsItself {
		return
	}
	last := s.win(0, 0)
	s.untilFree(last)
	s.wantNoHolder(last.grant.Term(), "")
	if h := s.win(0, 0); h.grant.Term() <= last.grant.Term() {
		s.Errorf("term %d follows on term %d, which ran out", h.grant.Term(), last.grant.Term())
	}
}
