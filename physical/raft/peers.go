package raft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	hraft "github.com/hashicorp/raft"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
)

// Peer is one member of the cluster.
type Peer struct {
	ID     string `json:"id"`
	Addr   string `json:"addr"`
	Voter  bool   `json:"voter"`
	Leader bool   `json:"leader"`

	// What only the leader knows; zero elsewhere, and of the leader itself.
	Heard   time.Duration `json:"heard_ns,omitempty"` // since the last message that it acknowledged
	Match   uint64        `json:"match,omitempty"`    // its log agrees with the leader's up to this index
	Healthy bool          `json:"healthy"`            // heard within a heartbeat timeout; on the leader only
}

// ErrQuorum: the change would leave the cluster without a majority that is there.
var ErrQuorum = errors.New("would lose quorum")

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

// SetPeerAddress tells this node where a peer is, whatever the configuration says. It counts for dialling
// at once; the leader makes it the cluster's.
func (s *Store) SetPeerAddress(id, addr string) { s.peers.learn(id, addr) }

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

// Caught up means: at most promoteBehind entries behind, without a failed message for promoteSteady.
const promoteBehind = 64

// members is the leader's rule for the cluster, one change a round at most: addresses follow their nodes,
// newcomers get a vote when they have caught up, the replaced and the dead go.
func (k *keeper) members(term uint64) {
	s, run := k.store, k.run
	ctx, cancel := context.WithTimeout(run.done, s.timing.rpc)
	defer cancel()
	c := run.raft.GetConfiguration().Configuration()
	if id, addr, ok := k.strayAddress(c); ok {
		if err := s.agree(ctx, run, id, addr); err != nil && run.done.Err() == nil {
			s.logger.Warn("address of a member could not be changed", "peer", id, "error", err)
		}
		return
	}
	for _, server := range c.Servers {
		what, begin := k.rule(c, server, term)
		if begin == nil {
			continue
		}
		if err := s.change(ctx, run, what, server.ID, begin); err != nil && run.done.Err() == nil {
			s.logger.Warn("change of members failed", "change", what, "peer", string(server.ID), "error", err)
		}
		return
	}
}

// strayAddress finds an address that is not as the cluster has agreed: of this node, of one that came back
// elsewhere, or of one that is no member any more.
func (k *keeper) strayAddress(c hraft.Configuration) (id, addr string, found bool) {
	s := k.store
	addrs, members, taken := s.state.header().addrs, map[string]bool{}, map[string]bool{}
	for _, server := range c.Servers {
		members[string(server.ID)] = true
	}
	for id, addr := range addrs {
		if !members[id] {
			return id, "", true
		}
		taken[addr] = true
	}
	if addrs[s.id] != s.cfg.Advertise {
		return s.id, s.cfg.Advertise, true
	}
	for id := range members {
		if addr, ok := s.peers.moved(id); ok && addr != addrs[id] && !taken[addr] {
			return id, addr, true
		}
	}
	return "", "", false
}

// rule says what is to be done about one member, if anything.
func (k *keeper) rule(c hraft.Configuration, server hraft.Server, term uint64) (string, func() hraft.IndexFuture) {
	s, engine := k.store, k.run.raft
	id := string(server.ID)
	if id == s.id {
		return "", nil
	}
	p, known := s.peers.get(id, term)
	if server.Suffrage != hraft.Voter {
		behind := engine.LastIndex() - min(p.match, engine.LastIndex())
		steady := known && p.answers && boottime.Since(p.since) >= s.timing.heartbeat/2 && s.healthy(id, term)
		if steady && p.match > 0 && behind <= promoteBehind {
			return "member promoted to voter", func() hraft.IndexFuture {
				return engine.AddVoter(server.ID, server.Address, 0, 0)
			}
		}
	}
	if k.expendable(c, server, term) {
		return "silent member removed", func() hraft.IndexFuture { return engine.RemoveServer(server.ID, 0, 0) }
	}
	return "", nil
}

// expendable reports whether a silent member may be removed by rule: it was replaced by another that
// votes now, or has been silent for the configured time; and without it three voters or more remain, all
// of them there.
func (k *keeper) expendable(c hraft.Configuration, server hraft.Server, term uint64) bool {
	s := k.store
	id := string(server.ID)
	replaced := s.state.header().addrs[id] == "" // another has its address now
	if s.healthy(id, term) {
		return false
	}
	voters, there, coming := 0, 0, 0
	for _, other := range c.Servers {
		switch {
		case other.ID == server.ID:
			continue
		case other.Suffrage != hraft.Voter:
			coming++
			continue
		}
		voters++
		if string(other.ID) == s.id || s.healthy(string(other.ID), term) {
			there++
		}
	}
	if !replaced && !k.silentFor(id, term, s.cfg.DeadPeerTimeout) {
		return false
	}
	if server.Suffrage != hraft.Voter {
		return true
	}
	return there == voters && (voters >= 3 || replaced && voters >= 2 && coming == 0)
}

// silentFor reports whether a peer has not answered for d while this node led.
func (k *keeper) silentFor(id string, term uint64, d time.Duration) bool {
	if d < 0 {
		return false
	}
	if k.silence == nil || k.silenceTerm != term {
		k.silence, k.silenceTerm = map[string]boottime.Instant{}, term
	}
	if k.store.healthy(id, term) {
		delete(k.silence, id)
		return false
	}
	since, ok := k.silence[id]
	if !ok {
		k.silence[id] = boottime.Now()
		return false
	}
	return boottime.Since(since) >= d
}
