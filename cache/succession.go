package cache

import (
	"context"
	"errors"
	"syscall"
	"time"

	hraft "github.com/hashicorp/raft"
)

// A leader that is silent may be frozen, or behind a cut: its voters wait an election timeout for it. One whose process has ended need not
// be waited for (P7): its connections end at once, and then its port refuses new ones, or another incarnation answers there. A
// voter that learns this asks the others; when so many find the same that they are a majority, it stands for election, and they vote for
// it although they have heard of the leader a moment ago. Nothing rests on that being true: a term has one leader in any case.

// suspect has it looked at whether the leader is still there: a connection that it had made has ended.
func (m *member) suspect(peer string) {
	if _, id := m.raft.LeaderWithID(); string(id) != peer {
		return
	}
	select {
	case m.suspects <- peer:
	default:
	}
}

// succeed stands for election as soon as it is known that the leader's process has ended.
func (m *member) succeed() {
	for {
		select {
		case <-m.ctx.Done():
			return
		case id := <-m.suspects:
			if m.gone(id) {
				m.bury(id)
			}
		}
	}
}

// bury stands for election in the place of a leader that is gone, unless another does: in turn, so that votes are not split.
func (m *member) bury(id string) {
	const rounds = 4 // then it is left to raft's timers
	addr, _ := m.raft.LeaderWithID()
	m.cfg.Logger.Info("the cache's leader has ended", "leader", id, "host", hostOf(addr))
	before := 0
	for _, h := range m.hostList() {
		if h == m.cfg.Self {
			break
		}
		if h != hostOf(addr) {
			before++
		}
	}
	for range rounds {
		term := m.raft.CurrentTerm()
		timer := time.NewTimer(time.Duration(before) * m.cfg.ElectionTimeout / 8)
		select {
		case <-timer.C:
		case <-m.ctx.Done():
			timer.Stop()
			return
		}
		if _, now := m.raft.LeaderWithID(); now != "" && string(now) != id {
			return
		}
		if m.raft.State() != hraft.Follower || !m.votes() {
			return
		}
		if m.raft.CurrentTerm() != term { // another stands: it is given time
			continue
		}
		if m.agreeGone(id) {
			_ = m.trans.stand() // or it is stopping
			return
		}
	}
}

// agreeGone reports whether a majority of the voters knows that the leader is gone.
func (m *member) agreeGone(id string) bool {
	config, _ := m.log.latest()
	limit := m.cfg.ElectionTimeout / 4
	voters, asked := 0, 0
	answers := make(chan bool, len(config.Servers))
	for _, s := range config.Servers {
		if s.Suffrage != hraft.Voter {
			continue
		}
		voters++
		if peer := string(s.ID); peer != id && peer != m.id && m.background(func() { answers <- m.trans.asksGone(peer, s.Address, limit, id) }) {
			asked++
		}
	}
	agreed := 1
	for range asked {
		if <-answers {
			agreed++
		}
		if agreed > voters/2 {
			return true
		}
	}
	return false
}

// gone reports whether a leader's process is known to have ended, or at least not to lead any more.
func (m *member) gone(id string) bool {
	addr, leader := m.raft.LeaderWithID()
	if string(leader) != id {
		return leader == ""
	}
	ctx, cancel := context.WithTimeout(m.ctx, m.cfg.ElectionTimeout/5)
	defer cancel()
	conn, err := m.trans.dialer.dial(ctx, hostOf(addr), hello{purpose: forRaft, cluster: m.cluster, from: m.id, to: id, host: m.cfg.Self})
	if err == nil {
		_ = conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, errNotThere)
}
