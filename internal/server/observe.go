package server

import (
	"time"

	"github.com/locum-ha/locum/election"
	"github.com/locum-ha/locum/forward"
	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/internal/metrics"
	"github.com/locum-ha/locum/supervise"
)

// electionObserver wakes the follower at every change besides what metrics wants to know.
func (s *Server) electionObserver() election.Observer {
	o := s.metrics.Election()
	o.StateChanged = func(election.State) {
		if u := s.life.Load(); u != nil {
			u.kick()
		}
	}
	if s.guardian != nil {
		o.Guard = s.guardian.lease
	}
	return o
}

// guardianObserver and applicationObserver are metrics' own.
func (s *Server) guardianObserver() supervise.GuardianObserver { return s.metrics.Guardian() }

func (s *Server) applicationObserver(name string) supervise.Observer {
	return s.metrics.Application(name)
}

// forwardObserver wakes the follower when a request begins to wait, or the active node is lost, besides what metrics wants to
// know.
func (s *Server) forwardObserver() forward.Observer {
	o := s.metrics.Forward()
	counted := o.HeldNow
	o.HeldNow = func(delta int) {
		if counted != nil {
			counted(delta)
		}
		if u := s.life.Load(); u != nil && delta > 0 && s.raft == nil && !u.hurries.Load() {
			u.kick()
		}
	}
	connected := o.Connected
	o.Connected = func(peerID string, up bool) {
		if connected != nil {
			connected(peerID, up)
		}
		if u := s.life.Load(); u != nil && !up {
			u.kick()
		}
	}
	return o
}

// state is what a scrape of the metrics shows of this instant.
func (s *Server) state() metrics.State {
	u := s.life.Load()
	if u == nil {
		return metrics.State{Sealed: true}
	}
	leader := s.leaderNow()
	st := metrics.State{Active: u.isActive(), LeaderKnown: leader.NodeID != "", Term: max(leader.Term, u.election.State().Term)}
	if l := u.leading.Load(); l != nil {
		st.LeaseRemaining = max(0, boottime.Until(l.term.Lease.Deadline()))
	}
	if since := s.leaderless.Load(); since != 0 && !st.LeaderKnown {
		st.Leaderless = time.Since(time.Unix(0, since))
	}
	if keys, err := s.barrier.KeyStatus(); err == nil {
		st.KeyTerm, st.KeyUses = keys.Term, keys.Encryptions
	}
	return st
}
