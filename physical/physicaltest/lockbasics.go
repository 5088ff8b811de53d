package physicaltest

import (
	"encoding/json"
	"reflect"
	"time"

	"github.com/locum-ha/locum/physical"
)

// checkLockCaps: "Caps says what the store can do", and HA stores name sensible TTLs.
func checkLockCaps(s *scene) {
	caps := s.caps()
	if !caps.HA || caps.Name == "" || caps.Failover == "" {
		s.Errorf("HA must be true, Name and Failover filled in: %+v", caps)
	}
	if caps.MinTTL <= 0 || caps.DefaultTTL < caps.MinTTL {
		s.Errorf("MinTTL %v and DefaultTTL %v", caps.MinTTL, caps.DefaultTTL)
	}
	if _, ok := s.handle(0).(physical.Watcher); ok != caps.Watch {
		s.Errorf("Watch is %v, and that the handle is a Watcher is %v", caps.Watch, ok)
	}
	if s.lock(0).Caps() != caps {
		s.Errorf("Caps change")
	}
}

// checkAcquireHeldRelease goes once through a lock's life. Acquire "returns a *HeldError while another
// holds the lock, also when the holder is r.Holder itself under an older grant". Release: "another can
// acquire it at once, and names in the record the node that should". Holder: "ErrNoHolder and the last record with an
// empty Holder".
func checkAcquireHeldRelease(s *scene) {
	s.wantNoHolder(0, "")
	first := s.win(0, 0)
	s.wantHolder(first)
	s.wantHeld(first, s.nodes()...)
	s.must(first.renew(s.ctx), "renew")
	s.wantHolder(first)

	s.release(first, "successor")
	s.wantNoHolder(first.grant.Term(), "successor")
	second := s.winOther(first, 0)
	if second.grant.Term() <= first.grant.Term() {
		s.Errorf("term %d follows on term %d", second.grant.Term(), first.grant.Term())
	}
	s.wantHolder(second)
	s.wantHeld(second, s.nodes()...)
	s.release(second, "")
	s.wantNoHolder(second.grant.Term(), "")
}

// checkLockInvalid: a record without a Holder would be a lock that is held and looks free.
func checkLockInvalid(s *scene) {
	h := s.win(0, 0)
	s.release(h, "")
	_, err := h.lock.Acquire(s.ctx, physical.Record{Name: "nobody"}, s.ttl(), 0)
	s.wantErr(err, physical.ErrInvalid, "a record without a Holder")
	s.release(s.takeOver(s.nodes(), 0), "")
}

// checkRenewKeeps: a lock that is renewed in time stays with its holder, however many TTLs pass, and every
// attempt of others is refused.
func checkRenewKeeps(s *scene) {
	s.quick()
	h := s.win(0, 0)
	for until := time.Now().Add(3 * s.ttl()); time.Now().Before(until); pause(s.ctx, s.ttl()/5) {
		if err := h.renew(s.ctx); err != nil {
			if time.Now().After(h.deadline()) {
				s.Logf("this machine is too busy: a renewal came late")
				h = s.takeOver(s.nodes(), 0)
				continue
			}
			s.Fatalf("renew %v before the deadline: %v", time.Until(h.deadline()), err)
		}
		for _, n := range s.nodes(h.node) {
			if other, err := s.tryBriefly(n, 0); err == nil && time.Now().Before(h.deadline()) {
				s.Fatalf("node %d acquired the lock that node %d renews: %+v", n, h.node, other.grant)
			} else if err != nil && !mayRetry(err) {
				s.Fatalf("node %d: acquire: %v", n, err)
			}
		}
	}
}

// checkOlderGrantOfOneself: grants of one node are told apart too. A grant that was released or lost gives no power
// over the lock that the same node holds now.
func checkOlderGrantOfOneself(s *scene) {
	old := s.win(0, 0)
	s.release(old, "")
	now := s.win(0, 0)
	if now.grant.Term() <= old.grant.Term() {
		s.Errorf("term %d follows on term %d", now.grant.Term(), old.grant.Term())
	}
	s.wantLost(old)
	s.must(old.lock.Release(s.ctx, old.grant, "wrong"), "release of an older grant")
	s.must(now.renew(s.ctx), "renew after the older grant was released again")
	s.wantHolder(now)
	s.wantHeld(now, now.node)
}

// checkGrantTravels: a Grant "can be serialised, so that the guardian can release on behalf of a node that
// died" (P7): through JSON, and at another handle where the store has one.
func checkGrantTravels(s *scene) {
	h := s.win(0, 0)
	text, err := json.Marshal(h.grant)
	s.must(err, "marshal")
	var back physical.Grant
	s.must(json.Unmarshal(text, &back), "unmarshal")
	if !reflect.DeepEqual(back, h.grant) {
		s.Errorf("through JSON the grant %+v becomes %+v", h.grant, back)
	}
	h.grant = back
	s.must(h.renew(s.ctx), "renew with the grant that went through JSON")
	lock := h.lock
	if s.store.Nodes == 0 {
		lock = s.lock(h.node + 1)
	}
	s.must(lock.Release(s.ctx, h.grant, ""), "release on behalf of the node")
	s.wantNoHolder(h.grant.Term(), "")
	s.wantLost(h)
}

// checkTermsRise: "The term … is greater than above and than every term that the lock has had."
func checkTermsRise(s *scene) {
	var last uint64
	for round, above := range []uint64{0, 0, 1, 1000, 0, 5, 1001, 1 << 40, 0} {
		h := s.win(round%s.several(3), above)
		if h.grant.Term() <= last {
			s.Errorf("term %d follows on term %d", h.grant.Term(), last)
		}
		last = h.grant.Term()
		s.must(h.renew(s.ctx), "renew")
		s.release(h, "")
		s.wantNoHolder(last, "")
	}
}

// checkTermsRiseOverRestart: "whatever becomes of the lock itself, the number is never forgotten and never
// given twice", with the lock free or held while the store restarts. Nor does a restart end a lock before its TTL.
func checkTermsRiseOverRestart(s *scene) {
	s.quick()
	var last uint64
	var kept *held
	for round := range 4 {
		h := s.takeOver(s.nodes(), 0)
		if h.grant.Term() <= last {
			s.Errorf("after a restart term %d follows on term %d", h.grant.Term(), last)
		}
		if kept != nil && h.after.Before(kept.deadline()) {
			s.Errorf("a restart cost the holder its lock %v before its TTL had passed", kept.deadline().Sub(h.after))
		}
		last, kept = h.grant.Term(), h
		if round%2 == 0 {
			s.release(h, "chosen")
			kept = nil
		}
		s.restart()
		if round%2 == 0 {
			s.wantNoHolder(last, "chosen")
		}
	}
}

// checkCloseLeavesLock: Close leaves "a lock that is held … to run out": others, and the node itself when it
// is back, get it only after its TTL.
func checkCloseLeavesLock(s *scene) {
	s.quick()
	h := s.win(0, 0)
	if s.store.Nodes == 0 {
		s.closeNode(h.node)
	} else {
		s.restart()
	}
	next := s.takeOver(s.nodes(), 0)
	s.wantNotBefore(h, next)
	if next.grant.Term() <= h.grant.Term() {
		s.Errorf("term %d follows on term %d", next.grant.Term(), h.grant.Term())
	}
}

// checkYield: Yield "passes the right to acquire to the node named, or to any other … It returns nil if
// this node did not have it."
func checkYield(s *scene) {
	if _, ok := s.handle(0).(physical.Yielder); !ok {
		s.Logf("the store is not a physical.Yielder: nothing to check")
		return
	}
	for round := range 4 {
		h := s.win(0, 0)
		for _, n := range s.nodes(h.node) {
			s.must(s.handle(n).(physical.Yielder).Yield(s.ctx, ""), "yield of a node that has no right to acquire")
		}
		others := s.nodes(h.node)
		to := ""
		if round%2 == 1 {
			others = others[len(others)-1:]
			to = s.record(others[0]).Holder
		}
		s.release(h, to)
		s.must(s.handle(h.node).(physical.Yielder).Yield(s.ctx, to), "yield to %q", to)
		next := s.takeOver(others, 0)
		s.release(next, "")
	}
}
