package raft

import (
	"context"
	"time"

	hraft "github.com/hashicorp/raft"

	"github.com/locum-ha/locum/internal/boottime"
)

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

// addingGrace is how long a member that was added may be without an address.
const addingGrace = 10 * time.Second

// expendable reports whether a silent member may be removed by rule: it was replaced by another that
// votes now, or has been silent for the configured time; and without it three voters or more remain, all
// of them there.
func (k *keeper) expendable(c hraft.Configuration, server hraft.Server, term uint64) bool {
	s := k.store
	id := string(server.ID)
	if s.healthy(id, term) {
		return false
	}
	replaced := s.state.header().addrs[id] == "" // another has its address now
	if replaced && server.Suffrage != hraft.Voter {
		// Or it is just being added, and its address is not agreed on yet.
		replaced = k.silentFor(id, term, addingGrace)
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
