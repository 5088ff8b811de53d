package raft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	hraft "github.com/hashicorp/raft"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
)

// leads returns the raft term that this node leads, if it leads one.
func (r *running) leads() (uint64, bool) {
	term := r.raft.CurrentTerm()
	return term, r.raft.State() == hraft.Leader && r.raft.CurrentTerm() == term
}

// unsettled returns the raft term that this node leads without knowing yet all that was committed before,
// 0 if there is none.
func (r *running) unsettled() uint64 {
	if term, leads := r.leads(); leads && r.settled.Load() != term {
		return term
	}
	return 0
}

// Acquire commits a lock record, on the node that leads raft. ttl is not a choice on this store: the grant
// carries the time that its promises hold.
func (s *Store) Acquire(ctx context.Context, r physical.Record, _ time.Duration, above uint64) (physical.Grant, error) {
	run, err := s.engine()
	if err != nil {
		return physical.Grant{}, err
	}
	if ctx.Err() != nil {
		return physical.Grant{}, context.Cause(ctx)
	}
	if r.Holder == "" {
		return physical.Grant{}, fmt.Errorf("%w: a record without a holder", physical.ErrInvalid)
	}
	if record, held, _ := s.effective(); held && run.unsettled() == 0 {
		return physical.Grant{}, &physical.HeldError{Record: record}
	}
	if err := s.lockTurn.lock(ctx); err != nil {
		return physical.Grant{}, err
	}
	defer s.lockTurn.unlock()
	raftTerm, leads := run.leads()
	if !leads {
		return physical.Grant{}, s.notLeader()
	}
	s.worth.Store(false)
	if run.trans.handed(raftTerm) {
		run.trans.stepDown(raftTerm)
		return physical.Grant{}, fmt.Errorf("%w: this node has handed leadership on", physical.ErrUnavailable)
	}
	if err := s.awaitSettled(ctx, run, raftTerm); err != nil {
		return physical.Grant{}, err
	}
	if record, held, _ := s.effective(); held {
		return physical.Grant{}, &physical.HeldError{Record: record}
	}
	start := boottime.Now()
	s.lease.begin(raftTerm, start.Add(2*s.timing.heartbeat)) // the record may be seen before submit returns
	out, err := run.commits.submit(ctx, request{kind: kindAcquire, holder: r.Holder, name: r.Name, term: above})
	if err != nil {
		if errors.Is(err, physical.ErrUnknown) { // what the record grants will have run out by then
			s.lease.begin(raftTerm, boottime.Now().Add(2*s.timing.heartbeat))
		}
		return physical.Grant{}, err
	}
	if _, ok := run.gate.acknowledge(out.record.raftTerm); !ok {
		return physical.Grant{}, fmt.Errorf("%w: leadership is going over to another", physical.ErrUnknown)
	}
	s.lease.begin(out.record.raftTerm, start.Add(2*s.timing.heartbeat))
	return physical.Grant{
		Record: out.record.Record,
		TTL:    s.timing.heartbeat,
		Token:  binary.BigEndian.AppendUint64(nil, out.record.raftTerm),
	}, nil
}

// awaitSettled waits until this node, which leads, knows all that was committed before.
func (s *Store) awaitSettled(ctx context.Context, run *running, raftTerm uint64) error {
	for {
		changed := s.changed.wait()
		if run.settled.Load() == raftTerm {
			return nil
		}
		if term, leads := run.leads(); !leads || term != raftTerm {
			return s.notLeader()
		}
		select {
		case <-changed:
		case <-run.done.Done():
			return errNotRunning
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", physical.ErrUnavailable, context.Cause(ctx))
		}
	}
}

func grantRaftTerm(g physical.Grant) uint64 {
	if len(g.Token) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(g.Token)
}

// current reports whether g is the grant that the record stands for.
func (s *Store) current(g physical.Grant) bool {
	lock := s.state.header().lock
	return lock.Holder != "" && lock.Term == g.Record.Term && lock.Holder == g.Record.Holder && lock.raftTerm == grantRaftTerm(g)
}

// Renew asks every voter once more and returns when a majority has promised, after the call began, to
// help nobody else.
func (s *Store) Renew(ctx context.Context, g physical.Grant) (physical.Grant, error) {
	run, err := s.engine()
	if err != nil {
		return g, err
	}
	if ctx.Err() != nil {
		return g, context.Cause(ctx)
	}
	epoch, start := s.lease.mark(), boottime.Now()
	if err := s.stillHeld(run, g); err != nil {
		return g, err
	}
	if err := s.confirm(ctx, run, g, start); err != nil {
		return g, err
	}
	if err := s.stillHeld(run, g); err != nil {
		return g, err
	}
	if _, ok := run.gate.acknowledge(grantRaftTerm(g)); !ok {
		return g, s.lapsing(g)
	}
	if !s.lease.extend(epoch, start.Add(2*s.timing.heartbeat)) {
		return g, physical.ErrLost
	}
	return g, nil
}

// stillHeld returns nil while g can be renewed.
func (s *Store) stillHeld(run *running, g physical.Grant) error {
	if !s.current(g) || !s.lease.live(grantRaftTerm(g)) {
		return physical.ErrLost
	}
	if term, leads := run.leads(); !leads || term != grantRaftTerm(g) {
		return s.lapsing(g)
	}
	return nil
}

// lapsing is the error of a renewal by a node that does not lead any more. The lock cannot be another's
// before the promises to this node have run out; until then it is not lost, and cannot be renewed either.
func (s *Store) lapsing(g physical.Grant) error {
	promised := s.lease.until(grantRaftTerm(g)).Add(-s.timing.heartbeat)
	if boottime.Now().Before(promised) {
		return fmt.Errorf("%w: this node leads raft no longer, the lock runs out", physical.ErrUnavailable)
	}
	return physical.ErrLost
}

// confirm waits until a majority of the voters acknowledged, in the grant's raft term, a message sent at
// from or later.
func (s *Store) confirm(ctx context.Context, r *running, g physical.Grant, from boottime.Instant) error {
	term, asked := grantRaftTerm(g), false
	for {
		changed := s.changed.wait()
		ok, acked := s.peers.quorum(r.raft.GetConfiguration().Configuration(), term, from)
		if ok {
			return nil
		}
		if now, leads := r.leads(); !leads || now != term {
			return s.lapsing(g)
		}
		if !asked {
			asked = true
			r.raft.VerifyLeader() // sends a heartbeat to every peer at once; its answer is not used
		}
		select {
		case <-acked:
		case <-changed:
		case <-r.done.Done():
			return errNotRunning
		case <-ctx.Done():
			return fmt.Errorf("%w: no majority answered: %w", physical.ErrUnavailable, context.Cause(ctx))
		}
	}
}

// Release gives the lock up and hands raft leadership to next, or to whoever is ready. On a node that does
// not lead, it means that the holder is known to have given up, or to be dead: this node's own promise to
// it ends, so that nobody waits for it (P7).
func (s *Store) Release(ctx context.Context, g physical.Grant, next string) error {
	run, err := s.engine()
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := s.lockTurn.lock(ctx); err != nil {
		return err
	}
	defer s.lockTurn.unlock()
	term, leads := run.leads()
	if !leads || term != grantRaftTerm(g) {
		if !leads && s.current(g) && run.gate.vacate(grantRaftTerm(g)) {
			s.changed.wake()
		}
		return nil
	}
	if !s.current(g) {
		return nil
	}
	s.lease.end()
	if _, err := run.commits.submit(ctx, request{kind: kindRelease, term: g.Record.Term, next: next}); err != nil {
		if _, leads := run.leads(); !leads {
			return nil
		}
		return fmt.Errorf("release the lock: %w", err)
	}
	run.gate.waive(term)
	if err := s.handOver(ctx, run, term, next); err != nil {
		s.logger.Warn("lock was released, but leadership could not be handed over", "error", err)
	}
	return nil
}

// effective returns the lock's record as it stands for this node, whether it is held, and when to look
// again if only time will tell (0: no such time). A leader knows that a record from an earlier raft term
// binds nobody any more; any other node takes the record for what it says.
func (s *Store) effective() (record physical.Record, held bool, until boottime.Instant) {
	lock := s.state.header().lock
	if lock.Holder == "" {
		return lock.Record, false, 0
	}
	run := s.running()
	if run == nil {
		return lock.Record, true, 0
	}
	term, leads := run.leads()
	if !leads || run.settled.Load() != term {
		return lock.Record, true, 0
	}
	// A node alone elects itself without asking anybody, so a lock that it gave out before it was
	// restarted is waited for here; elsewhere the voters' promises have seen to that.
	until = run.heldOver
	if lock.raftTerm == term {
		until = s.lease.until(term)
	}
	if boottime.Now().Before(until) {
		return lock.Record, true, until
	}
	free := lock.Record
	free.Holder, free.Name, free.Next = "", "", ""
	return free, false, 0
}

// Holder returns the lock's record as this node knows it.
func (s *Store) Holder(ctx context.Context) (physical.Record, error) {
	if err := s.readable(ctx); err != nil {
		return physical.Record{}, err
	}
	record, held, _ := s.effective()
	if !held {
		return record, physical.ErrNoHolder
	}
	return record, nil
}

// Watch returns when the record differs from seen, or when this node has come to lead raft and has not
// tried to acquire the lock since.
func (s *Store) Watch(ctx context.Context, seen physical.Record) (physical.Record, error) {
	for {
		changed := s.changed.wait()
		if err := s.readable(ctx); err != nil {
			return physical.Record{}, err
		}
		record, held, until := s.effective()
		if record != seen || !held && s.worth.Load() {
			return record, nil
		}
		if err := wait(ctx, changed, until); err != nil {
			return physical.Record{}, err
		}
	}
}

// wait waits for a change, or until the instant if it is not 0.
func wait(ctx context.Context, changed <-chan struct{}, until boottime.Instant) error {
	var timer <-chan time.Time
	if until != 0 {
		t := time.NewTimer(max(boottime.Until(until), 0) + time.Millisecond)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-changed:
		return nil
	case <-timer:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
