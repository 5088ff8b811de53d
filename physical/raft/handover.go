package raft

import (
	"context"

	hraft "github.com/hashicorp/raft"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
)

// Yield hands raft leadership to the node named, or to any that is ready.
func (s *Store) Yield(ctx context.Context, to string) error {
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
	if lock.Holder == "" || lock.raftTerm != term || until == 0 || boottime.Since(until) < 2*s.timing.heartbeat || !s.lockTurn.tryLock() {
		return
	}
	defer s.lockTurn.unlock()
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
