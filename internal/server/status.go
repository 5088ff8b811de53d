package server

import (
	"context"
	"time"

	"github.com/locum-ha/locum/api"
	"github.com/locum-ha/locum/auth"
	"github.com/locum-ha/locum/cluster"
)

// Sealed reports whether the node is sealed or not initialised.
func (s *Server) Sealed() bool { return s.life.Load() == nil }

// Status is a snapshot of what the status paths show. It reads memory only, takes no lock that is held over I/O, and
// never waits (P10).
func (s *Server) Status() api.Status {
	st := api.Status{
		Name: s.cfg.NodeName, Version: s.opts.Version, BuildDate: s.opts.BuildDate, ClusterName: s.cfg.ClusterName,
		StorageType: s.cfg.Storage.Type, Warnings: s.cfg.Warnings, HAEnabled: s.ha, Sealed: true,
	}
	s.sealStatus(&st)
	u := s.life.Load()
	if u == nil {
		st.NotReady = "sealed"
		if !st.Initialized {
			st.NotReady = "not initialised"
		}
		return st
	}
	st.Sealed = false
	if id := s.clusterID.Load(); id != nil {
		st.ClusterID = *id
	}
	st.Leader = s.leaderNow()
	if l := u.leading.Load(); l != nil && u.isActive() {
		st.Active, st.ActiveSince = true, l.since
	}
	st.LastEcho = -1
	if link, ok := s.router.Connected(); ok {
		st.Connected, st.EchoTime, st.ClockSkew = link.Up, link.RTT, link.Skew
		if !link.LastEcho.IsZero() {
			st.LastEcho = time.Since(link.LastEcho)
			st.Connected = link.Up && st.LastEcho < echoLate
		}
	}
	if s.raft != nil {
		stats := s.raft.Stats()
		st.Raft = &api.RaftIndex{Committed: stats.CommitIndex, Applied: stats.AppliedIndex, Voter: stats.Voter}
		st.Removed = s.raft.Removed()
	}
	switch {
	case s.stopping.Load():
		st.NotReady = "shutting down"
	case s.orders.Load().inMaintenance(s.cfg.NodeName):
		st.NotReady = "in maintenance"
	case st.Removed:
		st.NotReady = "removed from the cluster"
	case !st.Active && !st.Connected:
		st.NotReady = "no connection to an active node"
	}
	return st
}

func (s *Server) sealStatus(st *api.Status) {
	now := s.sealing.Load()
	st.Initialized = now.initialized
	st.Seal.Type = s.cfg.Seal.Type
	if now.config == nil {
		return
	}
	st.Seal = api.SealStatus{Type: now.config.Type, Shares: now.config.Shares, Threshold: now.config.Threshold}
	if now.collector != nil {
		p := now.collector.Progress()
		st.Seal.Progress, st.Seal.Nonce = p.Given, p.Nonce
	}
}

// leaderNow is the active node as far as this node knows; zero if none.
func (s *Server) leaderNow() api.Leader {
	u := s.life.Load()
	if u == nil {
		return api.Leader{}
	}
	if l := u.leading.Load(); l != nil {
		if !u.isActive() {
			return api.Leader{}
		}
		return api.Leader{
			NodeID: s.id, Name: s.cfg.NodeName, APIAddr: s.apiAddr, ClusterAddr: s.clusterAddr,
			Listener: s.listenerAddr(), Term: l.term.Term,
		}
	}
	ad := u.leader.Load()
	if ad == nil || !s.connected() {
		return api.Leader{}
	}
	return leaderOf(ad)
}

// echoLate is when an active node that does not answer counts as out of reach: three echoes.
const echoLate = 3 * time.Second

// connected reports whether the active node that this one follows is there.
func (s *Server) connected() bool {
	link, ok := s.router.Connected()
	return ok && link.Up
}

func leaderOf(ad *cluster.Advertisement) api.Leader {
	return api.Leader{
		NodeID: ad.NodeID, Name: ad.Name, APIAddr: ad.APIAddr, ClusterAddr: ad.ClusterAddr, Listener: ad.Listener, Term: ad.Term,
	}
}

// Authorize checks a token for a path that this node answers itself, from its own copy of the entries or the store.
func (s *Server) Authorize(ctx context.Context, token string, need api.Access) error {
	if s.life.Load() == nil {
		return api.ErrDenied
	}
	tokens, err := s.newTokens(s.barrier.View(nil))
	if err != nil {
		return err
	}
	return tokens.Check(ctx, auth.Secret(token), need)
}
