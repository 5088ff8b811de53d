package raft

import (
	"context"
	"errors"
	"fmt"
	"slices"

	hraft "github.com/hashicorp/raft"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
)

// Peer is one member of the cluster.
type Peer = physical.Peer

// ErrQuorum: the change would leave the cluster without a majority that is there.
var ErrQuorum = physical.ErrQuorum

// Peers returns the members of the cluster as this node knows them, the newest configuration even if it
// is not committed yet.
func (s *Store) Peers() ([]Peer, error) {
	run := s.running()
	if run == nil {
		if s.isClosed() {
			return nil, physical.ErrClosed
		}
		return s.describe(s.storedMembers(), nil), nil
	}
	return s.describe(run.raft.GetConfiguration().Configuration(), run), nil
}

func (s *Store) describe(c hraft.Configuration, run *running) []Peer {
	leader, term, leads := s.LeaderID(), uint64(0), false
	if run != nil {
		term, leads = run.leads()
	}
	out := make([]Peer, 0, len(c.Servers))
	for _, server := range c.Servers {
		addr := s.cfg.Advertise
		if string(server.ID) != s.id {
			addr, _ = s.peers.addr(string(server.ID))
		}
		p := Peer{
			ID: string(server.ID), Addr: addr,
			Voter: server.Suffrage == hraft.Voter, Leader: leader != "" && string(server.ID) == leader,
		}
		if leads {
			if known, ok := s.peers.get(p.ID, term); ok {
				p.Heard, p.Match = boottime.Since(known.sent), known.match
			}
			p.Healthy = p.ID == s.id || s.healthy(p.ID, term)
		}
		out = append(out, p)
	}
	return out
}

// healthy reports whether a peer acknowledged something within the last heartbeat timeout.
func (s *Store) healthy(id string, term uint64) bool {
	heard, ok := s.peers.heard(id, term)
	return ok && heard <= s.timing.heartbeat
}

// Removed reports whether this node was a member of the cluster and is not any more: it must be emptied
// and join anew.
func (s *Store) Removed() bool {
	var c hraft.Configuration
	if run := s.running(); run != nil {
		c = run.raft.GetConfiguration().Configuration()
	} else {
		c = s.storedMembers()
	}
	if len(c.Servers) == 0 {
		return false
	}
	for _, server := range c.Servers {
		if string(server.ID) == s.id {
			return s.peers.outcast(c)
		}
	}
	return true
}

// AddPeer adds a node as a non-voter; it is promoted once it has caught up. A member that is there
// already has its address changed. A new identity at the address of an old one replaces it: the old one
// is removed once the newcomer votes. Only the leader can do it.
func (s *Store) AddPeer(ctx context.Context, id, addr string) error {
	run, _, err := s.leading()
	if err != nil {
		return err
	}
	if id == "" || addr == "" {
		return fmt.Errorf("%w: a peer needs identity and address", physical.ErrInvalid)
	}
	if addr == s.cfg.Advertise && id != s.id {
		return fmt.Errorf("%w: %s is the address of the leader itself", physical.ErrInvalid, addr)
	}
	s.peers.learn(id, addr)
	member := slices.ContainsFunc(run.raft.GetConfiguration().Configuration().Servers, func(m hraft.Server) bool { return string(m.ID) == id })
	if !member {
		err := s.change(ctx, run, "member added", hraft.ServerID(id), func() hraft.IndexFuture {
			return run.raft.AddNonvoter(hraft.ServerID(id), nominal(id), 0, s.timing.rpc)
		})
		if err != nil {
			return err
		}
	}
	return s.agree(ctx, run, id, addr)
}

// agree makes an address the cluster's.
func (s *Store) agree(ctx context.Context, run *running, id, addr string) error {
	if s.state.header().addrs[id] == addr {
		return nil
	}
	_, err := run.commits.submit(ctx, request{kind: kindAddress, holder: id, name: addr})
	if err == nil {
		s.logger.Info("address of a member", "peer", id, "addr", addr)
	}
	return err
}

// RemovePeer removes a node from the cluster. It refuses with ErrQuorum if too few of those that remain
// are there. The leader can remove itself: another takes over. Only the leader can do it.
func (s *Store) RemovePeer(ctx context.Context, id string) error {
	run, term, err := s.leading()
	if err != nil {
		return err
	}
	c := run.raft.GetConfiguration().Configuration()
	var found *hraft.Server
	voters, healthy := 0, 0
	for _, server := range c.Servers {
		if string(server.ID) == id {
			found = &server
			continue
		}
		if server.Suffrage == hraft.Voter {
			voters++
			if string(server.ID) == s.id || s.healthy(string(server.ID), term) {
				healthy++
			}
		}
	}
	switch {
	case found == nil:
		return fmt.Errorf("%w: no member %q", physical.ErrNotFound, id)
	case found.Suffrage == hraft.Voter && voters == 0:
		return fmt.Errorf("%w: %q is the last voter", ErrQuorum, id)
	case found.Suffrage == hraft.Voter && healthy < voters/2+1:
		return fmt.Errorf("%w: of the %d voters that would remain only %d are there", ErrQuorum, voters, healthy)
	}
	return s.change(ctx, run, "member removed", hraft.ServerID(id), func() hraft.IndexFuture {
		return run.raft.RemoveServer(hraft.ServerID(id), 0, s.timing.rpc)
	})
}

// leading returns what runs if this node leads raft.
func (s *Store) leading() (*running, uint64, error) {
	run, err := s.engine()
	if err != nil {
		return nil, 0, err
	}
	term, leads := run.leads()
	if !leads {
		return nil, 0, s.notLeader()
	}
	return run, term, nil
}

// change makes one change to the configuration and waits for it.
func (s *Store) change(ctx context.Context, run *running, what string, id hraft.ServerID, begin func() hraft.IndexFuture) error {
	done := make(chan error, 1)
	run.work.Go(func() { done <- begin().Error() })
	select {
	case err := <-done:
		switch {
		case err == nil:
			s.logger.Info(what, "peer", string(id))
			return nil
		case errors.Is(err, hraft.ErrNotLeader):
			return s.notLeader()
		case errors.Is(err, hraft.ErrEnqueueTimeout), errors.Is(err, hraft.ErrLeadershipTransferInProgress):
			return fmt.Errorf("%w: %w", physical.ErrUnavailable, err)
		}
		return fmt.Errorf("%w: change the members: %w", physical.ErrUnknown, err)
	case <-ctx.Done():
		return fmt.Errorf("%w: change the members: %w", physical.ErrUnknown, context.Cause(ctx))
	}
}
