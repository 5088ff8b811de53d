package raft

import (
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	hraft "github.com/hashicorp/raft"

	"github.com/locum-ha/locum/internal/boottime"
)

// candidacy starts an election as soon as this node's promise to the last leader has run out, and another
// soon if it fails. The library's own timers are slow: they look only now and then, so a crash would be
// noticed after one to four heartbeat timeouts, and a failed election costs one to two. Nodes go one after
// the other, in an order that all of them know, so that votes are not split.
func (s *Store) candidacy(run *running) {
	for run.done.Err() == nil {
		changed := s.changed.wait()
		until, renewed := run.gate.promise()
		state := run.raft.State()
		switch {
		case state == hraft.Leader || state == hraft.Shutdown || !s.votes(run):
			// The configuration may change without a sign.
			s.await(run, s.timing.heartbeat, changed, nil)
		case state == hraft.Candidate:
			if s.await(run, s.timing.heartbeat/4+s.turn(run), changed, nil) && run.raft.State() == hraft.Candidate {
				run.trans.rest()
				s.poke(run)
			}
		default:
			vacant := run.gate.vacant()
			turn := s.turn(run)
			if vacant {
				turn = s.turnAfter(run, s.state.header().lock.Holder)
			}
			wait := boottime.Until(until.Add(turn))
			if !vacant {
				// Raft does not look before; after it led itself, that is later than any promise.
				wait = max(wait, s.timing.heartbeat-time.Since(run.raft.LastContact()))
			}
			if wait > 0 {
				s.await(run, wait, changed, renewed)
				continue
			}
			if vacant {
				run.trans.stand()
			} else {
				s.poke(run)
			}
			s.await(run, s.timing.heartbeat/4, changed, nil)
		}
	}
}

// await waits for d; false if one of the channels was closed before, or the node stops.
func (s *Store) await(run *running, d time.Duration, changed, renewed <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-changed:
	case <-renewed:
	case <-run.done.Done():
	}
	return false
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
func (s *Store) turn(run *running) time.Duration { return s.turnOf(run, "", s.timing.stagger) }

// turnAfter is the same after a death that all have heard of at the same time: the dead one has no place, and the next in order is
// given time to be elected, connections included, before another one asks for the same votes.
func (s *Store) turnAfter(run *running, dead string) time.Duration {
	return s.turnOf(run, dead, 4*s.timing.stagger)
}

func (s *Store) turnOf(run *running, without string, stagger time.Duration) time.Duration {
	servers := slices.Clone(run.raft.GetConfiguration().Configuration().Servers)
	slices.SortFunc(servers, func(a, b hraft.Server) int { return strings.Compare(string(a.ID), string(b.ID)) })
	place, voters := 0, 0
	for _, server := range servers {
		if server.Suffrage != hraft.Voter || string(server.ID) == without {
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
	return time.Duration(s.voteDelay.Load()) + time.Duration(place)*stagger + jitter
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
		if term, leads := run.leads(); leads {
			k.members(term)
			k.lapse(term)
		}
		k.storage()
	}
}
