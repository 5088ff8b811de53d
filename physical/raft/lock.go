package raft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	hraft "github.com/hashicorp/raft"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
)

// lease is what this node knows of the lock that it gave out itself while it led raft: until when that
// is held. It is not shared: on every other node the lock is the leader's until another leads.
//
// A lock that is not renewed runs out one TTL after its deadline, and not at it: while the node leads in
// the same raft term and the record stands, nobody else can have held it, and a renewal that comes a little
// late costs nothing. What the holder may do after its deadline is for the holder to know.
type lease struct {
	mu       sync.Mutex
	raftTerm uint64           // the raft term that it was given out in
	deadline boottime.Instant // it runs out then
	epoch    uint64           // counts who the lock was given out to, or taken from
}

// begin gives the lock out anew: renewals of what was given out before come too late from here on.
func (l *lease) begin(raftTerm uint64, deadline boottime.Instant) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.raftTerm, l.deadline = raftTerm, deadline
	l.epoch++
}

// end gives the lease up.
func (l *lease) end() { l.begin(0, 0) }

// mark returns the epoch, for extend.
func (l *lease) mark() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch
}

// extend moves the deadline, never back; false if the lock was given out anew since mark.
func (l *lease) extend(epoch uint64, deadline boottime.Instant) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoch != epoch {
		return false
	}
	l.deadline = max(l.deadline, deadline)
	return true
}

// until returns the deadline, 0 if nothing was given out in the raft term.
func (l *lease) until(raftTerm uint64) boottime.Instant {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.raftTerm != raftTerm {
		return 0
	}
	return l.deadline
}

// live reports whether the deadline has not passed.
func (l *lease) live(raftTerm uint64) bool { return boottime.Now().Before(l.until(raftTerm)) }

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
	s.lockMu.Lock()
	defer s.lockMu.Unlock()
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
	s.lockMu.Lock()
	defer s.lockMu.Unlock()
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

// Yield hands raft leadership to the node named, or to any that is ready.
func (s *Store) Yield(ctx context.Context, to string) error {
	run, err := s.engine()
	if err != nil {
		return err
	}
	s.lockMu.Lock()
	defer s.lockMu.Unlock()
	term, leads := run.leads()
	if !leads {
		return nil
	}
	s.worth.Store(false)
	if record, held, _ := s.effective(); held {
		return &physical.HeldError{Record: record}
	}
	return s.handOver(ctx, run, term, to)
}

// lapse hands leadership on when this node's lock has run out, was not released, and nobody here has tried to take
// it for as long again: whoever held it hangs, and while this node leads no other can take it.
func (k *keeper) lapse(term uint64) {
	s := k.store
	lock := s.state.header().lock
	until := s.lease.until(term)
	if lock.Holder == "" || lock.raftTerm != term || until == 0 || boottime.Since(until) < 2*s.timing.heartbeat || !s.lockMu.TryLock() {
		return
	}
	defer s.lockMu.Unlock()
	if now := s.lease.until(term); now != until {
		return
	}
	s.logger.Warn("lock has run out and nobody on this node takes it: handing leadership on", "term", lock.Term)
	ctx, cancel := context.WithTimeout(k.run.done, s.timing.rpc)
	defer cancel()
	s.lease.end()
	if _, err := k.run.commits.submit(ctx, request{kind: kindRelease, term: lock.Term}); err != nil {
		s.logger.Warn("lock that has run out could not be released", "error", err)
		return
	}
	k.run.gate.waive(term)
	if err := s.handOver(ctx, k.run, term, ""); err != nil {
		s.logger.Warn("leadership could not be handed on", "error", err)
	}
}

// handOver transfers leadership of term. The lease must have been given up. If a peer was asked but did
// not take over, this node steps down: the request may still arrive, so it must never hold the lock in
// this term again.
func (s *Store) handOver(ctx context.Context, run *running, term uint64, to string) error {
	target, ok := s.successor(run, term, to)
	if !ok {
		return nil // nobody else is there to lead
	}
	run.trans.beginHandover(term)
	future := run.raft.LeadershipTransferToServer(target.ID, target.Address)
	done := make(chan error, 1)
	run.work.Go(func() { // ends within one election timeout: raft sees to it
		err := future.Error()
		run.trans.endHandover()
		if now, leads := run.leads(); leads && now == term && run.trans.handed(term) {
			run.trans.stepDown(term)
		}
		done <- err
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// successor chooses who takes over: the node asked for if it is there, else the voter whose log is
// closest to the leader's.
func (s *Store) successor(run *running, term uint64, to string) (hraft.Server, bool) {
	var best hraft.Server
	var match uint64
	found := false
	for _, server := range run.raft.GetConfiguration().Configuration().Servers {
		id := string(server.ID)
		if id == s.id || server.Suffrage != hraft.Voter {
			continue
		}
		p, known := s.peers.get(id, term)
		if !known || !p.answers || boottime.Since(p.sent) > s.timing.heartbeat {
			continue
		}
		if id == to {
			return server, true
		}
		if !found || p.match > match {
			best, match, found = server, p.match, true
		}
	}
	return best, found
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
