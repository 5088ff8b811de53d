package physicaltest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/locum-ha/locum/physical"
)

// held is a lock that a node got, with what the lease rule needs: the instants around the last call that
// granted it its TTL.
type held struct {
	node   int
	lock   physical.HABackend
	grant  physical.Grant
	before time.Time // the instant before the last Acquire or Renew that succeeded was sent
	after  time.Time // the instant at which it had returned
}

// deadline is until when the holder may rely on the lock: nobody else may have it sooner.
func (h *held) deadline() time.Time { return h.before.Add(h.grant.TTL) }

// renew renews once and keeps what it needs if it succeeds.
func (h *held) renew(ctx context.Context) error {
	before := time.Now()
	g, err := h.lock.Renew(ctx, h.grant)
	if err != nil {
		return err
	}
	if g.Record.Holder != h.grant.Record.Holder || g.Term() != h.grant.Term() {
		return fmt.Errorf("a renewal turned the grant of %+v into one of %+v", h.grant.Record, g.Record)
	}
	h.grant, h.before, h.after = g, before, time.Now()
	return nil
}

// lock returns node n as an HABackend.
func (s *scene) lock(n int) physical.HABackend {
	s.Helper()
	l, ok := s.handle(n).(physical.HABackend)
	if !ok {
		s.Fatalf("a handle of type %T is not a physical.HABackend", s.handle(n))
	}
	return l
}

// record is what node n writes into the lock.
func (s *scene) record(n int) physical.Record {
	r := physical.Record{Holder: fmt.Sprintf("id-%d", n), Name: fmt.Sprintf("node %d", n)}
	if s.store.Names != nil {
		r.Holder = s.store.Names(n)
	}
	return r
}

// ttl is the TTL that the check asks for: one that does not run out while it lasts, or after quick the
// shortest that is sensible.
func (s *scene) ttl() time.Duration {
	caps := s.caps()
	if s.quickly {
		return max(caps.MinTTL, 150*time.Millisecond)
	}
	return max(10*caps.MinTTL, 4*time.Second)
}

// quick has the check work with TTLs that it can wait for. What it says of a lock must then allow for a machine
// that is so busy that the lock has run out in the meantime.
func (s *scene) quick() { s.quickly = true }

// nodes lists all nodes but those named.
func (s *scene) nodes(but ...int) []int {
	var all []int
next:
	for n := range s.several(3) {
		for _, not := range but {
			if n == not {
				continue next
			}
		}
		all = append(all, n)
	}
	return all
}

// patience is how long the checks wait for a lock that nobody holds any more, or soon will not.
func (s *scene) patience() time.Duration {
	return s.ttl() + s.store.Late + s.store.Settle
}

// win has a node take a lock that is free: the one wanted, or on a store that chooses by itself whichever.
func (s *scene) win(node int, above uint64) *held {
	s.Helper()
	if s.store.ElectsItself {
		return s.takeOver(s.nodes(), above)
	}
	h, err := s.try(s.ctx, s.lock(node), node, above)
	s.must(err, "node %d: acquire a lock that is free", node)
	return h
}

// winOther has another node than the one that released the lock take it.
func (s *scene) winOther(not *held, above uint64) *held {
	s.Helper()
	if y, ok := s.handle(not.node).(physical.Yielder); ok && s.store.ElectsItself {
		if err := y.Yield(s.ctx, ""); err != nil {
			s.Logf("yield: %v", err)
		}
	}
	if s.store.ElectsItself {
		return s.takeOver(s.nodes(not.node), above)
	}
	return s.win((not.node+1)%s.several(3), above)
}

// takeOver offers the lock to the nodes in turn until one gets it.
func (s *scene) takeOver(nodes []int, above uint64) *held {
	s.Helper()
	var h *held
	if len(nodes) == 0 {
		s.Skipf("the harness has no further node")
	}
	s.eventually(s.patience(), func(context.Context) (err error) {
		for _, n := range nodes {
			if h, err = s.tryBriefly(n, above); err == nil || !mayRetry(err) {
				return err
			}
		}
		return err
	})
	return h
}

// mayRetry reports whether err is what a contender for the lock lives with. The end of a context is part of
// it: an attempt may have had too little time.
func mayRetry(err error) bool {
	for _, kind := range []error{
		physical.ErrHeld, physical.ErrUnavailable, physical.ErrUnknown, context.DeadlineExceeded, context.Canceled,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// tryBriefly makes one attempt that does not wait longer than a TTL for a node that is cut off.
func (s *scene) tryBriefly(n int, above uint64) (*held, error) {
	ctx, cancel := context.WithTimeout(s.ctx, s.ttl())
	defer cancel()
	return s.try(ctx, s.lock(n), n, above)
}

// try makes one attempt and checks the grant that comes of it.
func (s *scene) try(ctx context.Context, lock physical.HABackend, n int, above uint64) (*held, error) {
	r := s.record(n)
	h := &held{node: n, lock: lock, before: time.Now()}
	g, err := lock.Acquire(ctx, r, s.ttl(), above)
	if err != nil {
		return nil, err
	}
	h.grant, h.after = g, time.Now()
	if g.Record.Holder != r.Holder || g.Record.Name != r.Name || g.Record.Next != "" || g.Term() == 0 || g.TTL <= 0 {
		return nil, fmt.Errorf("node %d acquired the lock as %+v and was granted %+v", n, r, g)
	}
	if g.Term() <= above {
		return nil, fmt.Errorf("the term %d is not above %d", g.Term(), above)
	}
	return h, nil
}

// wantHeld expects that others find the lock held by h: refused with its record, or, on a node that the store has
// not chosen, refused at least.
func (s *scene) wantHeld(h *held, nodes ...int) {
	s.Helper()
	for _, n := range nodes {
		_, err := s.lock(n).Acquire(s.ctx, s.record(n), s.ttl(), 0)
		if s.store.ElectsItself && errors.Is(err, physical.ErrUnavailable) {
			continue
		}
		var heldErr *physical.HeldError
		if !errors.Is(err, physical.ErrHeld) || !errors.As(err, &heldErr) {
			s.Errorf("node %d acquires a lock that is held: got error %v, want a *HeldError", n, err)
		} else if heldErr.Record != h.grant.Record && !s.store.ElectsItself {
			s.Errorf("node %d is told that %+v holds the lock, want %+v", n, heldErr.Record, h.grant.Record)
		}
	}
}

// wantHolder expects that all nodes name h as the holder, while h may rely on the lock.
func (s *scene) wantHolder(h *held) {
	s.Helper()
	s.wantRecord("held", func(r physical.Record, err error) bool {
		return err == nil && r == h.grant.Record || time.Now().After(h.deadline())
	})
}

// wantNoHolder expects that all nodes say that nobody holds the lock, and that term was the last one.
func (s *scene) wantNoHolder(term uint64, next string) {
	s.Helper()
	s.wantRecord("free", func(r physical.Record, err error) bool {
		return errors.Is(err, physical.ErrNoHolder) && r.Holder == "" && r.Term == term && r.Next == next
	})
}

func (s *scene) wantRecord(what string, ok func(physical.Record, error) bool) {
	s.Helper()
	for n := range s.several(3) {
		limit := s.store.Late
		if s.store.ElectsItself {
			limit = s.store.Settle
		}
		s.eventually(limit, func(ctx context.Context) error {
			if r, err := s.lock(n).Holder(ctx); !ok(r, err) {
				return fmt.Errorf("node %d: Holder gives %+v with error %v, want it %s", n, r, err, what)
			}
			return nil
		})
	}
}

// wantLost expects a renewal to be refused as lost; a node that comes back from a fault may need a moment to know.
func (s *scene) wantLost(h *held) {
	s.Helper()
	s.eventually(s.store.Settle, func(ctx context.Context) error {
		_, err := h.lock.Renew(ctx, h.grant)
		if err == nil {
			s.Fatalf("node %d renewed the lock of term %d that it had lost", h.node, h.grant.Term())
		}
		if !errors.Is(err, physical.ErrLost) {
			return fmt.Errorf("renewal of a lost lock: got %w, want ErrLost", err)
		}
		return nil
	})
}

// release gives the lock up.
func (s *scene) release(h *held, next string) {
	s.Helper()
	s.must(h.lock.Release(s.ctx, h.grant, next), "node %d: release", h.node)
}

// silence stops the holder from renewing, for good until heal: by doing nothing, or on a store that keeps
// the lock of whoever it has chosen, by cutting it off.
func (s *scene) silence(h *held) (heal func()) {
	s.Helper()
	if !s.store.ElectsItself {
		return func() {}
	}
	if s.store.Isolate == nil {
		s.Skipf("the store elects its holder itself, and the harness has no Isolate")
	}
	return s.store.Isolate(h.node)
}

// wantTakenOver waits until another node has a lock that h stopped to renew, and returns how much later than
// the TTL that was. "A lock is never lost sooner than its TTL and not much later."
func (s *scene) wantTakenOver(h *held) (next *held, late time.Duration) {
	s.Helper()
	next = s.takeOver(s.nodes(h.node), 0)
	s.wantNotBefore(h, next)
	if next.grant.Term() <= h.grant.Term() {
		s.Errorf("term %d follows on term %d", next.grant.Term(), h.grant.Term())
	}
	return next, next.before.Sub(h.after.Add(h.grant.TTL))
}

// wantNotBefore expects that next got the lock only when h could not rely on it any more.
func (s *scene) wantNotBefore(h, next *held) {
	s.Helper()
	if early := h.deadline().Sub(next.after); early > 0 {
		s.Errorf("the lock was lost %v before its TTL of %v had passed since the instant before it was granted",
			early, h.grant.TTL)
	}
}
