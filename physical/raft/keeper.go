package raft

import (
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	hraft "github.com/hashicorp/raft"

	"github.com/locum-ha/locum/internal/boottime"
)

// candidacy starts an election as soon as this node's promise to the last leader has run out. The
// library's own timer looks only now and then, so a crash would be noticed after one to four heartbeat
// timeouts. Nodes go one after the other, in an order that all of them know, so that votes are not split.
func (s *Store) candidacy(run *running) {
	for {
		changed := s.changed.wait()
		until, renewed := run.gate.promise()
		if run.raft.State() != hraft.Follower || !s.votes(run) {
			select {
			case <-changed:
				continue
			case <-time.After(s.timing.heartbeat): // the configuration may change without a sign
				continue
			case <-run.done.Done():
				return
			}
		}
		wait := boottime.Until(until.Add(s.turn(run)))
		if wait > 0 {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-renewed:
			case <-changed:
			case <-run.done.Done():
				timer.Stop()
				return
			}
			timer.Stop()
			continue
		}
		s.poke(run)
		select { // the engine is a candidate now; if it was not, it is asked again
		case <-changed:
		case <-time.After(s.timing.heartbeat / 4):
		case <-run.done.Done():
			return
		}
	}
}

// poke makes the engine look at its heartbeat timer now. A shorter timeout does; the difference to the
// one in force is a nanosecond, and it is put back at once.
func (s *Store) poke(run *running) {
	c := run.raft.ReloadableConfig()
	c.HeartbeatTimeout = s.timing.heartbeat - 1
	if run.raft.ReloadableConfig().HeartbeatTimeout == c.HeartbeatTimeout {
		c.HeartbeatTimeout = s.timing.heartbeat
		_ = run.raft.ReloadConfig(c)
		c.HeartbeatTimeout--
	}
	_ = run.raft.ReloadConfig(c)
}

// votes reports whether this node is a voter.
func (s *Store) votes(run *running) bool {
	for _, server := range run.raft.GetConfiguration().Configuration().Servers {
		if string(server.ID) == s.id {
			return server.Suffrage == hraft.Voter
		}
	}
	return false
}

// turn is how long after the promise's end this node asks for votes: its own delay, and its place among
// the voters.
func (s *Store) turn(run *running) time.Duration {
	servers := slices.Clone(run.raft.GetConfiguration().Configuration().Servers)
	slices.SortFunc(servers, func(a, b hraft.Server) int { return strings.Compare(string(a.ID), string(b.ID)) })
	place, voters := 0, 0
	for _, server := range servers {
		if server.Suffrage != hraft.Voter {
			continue
		}
		if string(server.ID) == s.id {
			place = voters
		}
		voters++
	}
	if voters == 1 {
		return 0
	}
	jitter := time.Duration(rand.Int64N(int64(s.timing.stagger)/2 + 1))
	return time.Duration(s.voteDelay.Load()) + time.Duration(place)*s.timing.stagger + jitter
}

// keep does what has to be done from time to time: the cluster's membership while this node leads,
// snapshots, and writing the commit index down when the log falls silent.
func (s *Store) keep(run *running) {
	ticker := time.NewTicker(s.timing.tick)
	defer ticker.Stop()
	k := &keeper{store: s, run: run}
	for {
		select {
		case <-run.done.Done():
			return
		case <-ticker.C:
		}
		s.peers.configure(run.raft.GetConfiguration().Configuration())
		if term, leads := run.leads(); leads {
			k.members(term)
		}
		k.storage()
	}
}
