package forward

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

const (
	dialTimeout = 5 * time.Second
	redialFirst = 5 * time.Millisecond
	redialMax   = 500 * time.Millisecond
)

// A follower keeps one connection to one target, for as long as that is the one to follow. Each has a
// goroutine of its own: one that hangs on a dead node delays no newer one.
type follower struct {
	target  *Target
	ctx     context.Context
	cancel  context.CancelCauseFunc
	started bool
	conn    atomic.Pointer[session] // connected, leading or not
	number  uint64                  // rising; a connection of a later follower replaces one of an earlier
	dials   atomic.Uint64
}

func newFollower(t *Target) *follower {
	ctx, cancel := context.WithCancelCause(context.Background())
	return &follower{target: t, ctx: ctx, cancel: cancel}
}

// stopFollowing gives up the follower, its connection and everything in flight on it. Called with r.mu held.
func (r *Router) stopFollowing(cause error) {
	if r.follower == nil {
		return
	}
	f := r.follower
	r.follower, r.session = nil, nil
	f.cancel(cause)
}

// follow dials the target again and again until the follower is given up.
func (r *Router) follow(f *follower) {
	if f.target.Dial == nil {
		return // good for redirects alone
	}
	wait, said := redialFirst, ""
	for f.ctx.Err() == nil {
		up, err := r.followOnce(f)
		if f.ctx.Err() != nil || r.isOver(f.target.Term) {
			return
		}
		if up {
			wait, said = redialFirst, ""
		}
		level := slog.LevelWarn
		if err.Error() == said {
			level = slog.LevelDebug // a state is logged when it changes
		}
		said = err.Error()
		r.log.Log(f.ctx, level, "no forwarding connection", "active", f.target.Name, "cluster_addr", f.target.ClusterAddr, "error", err)
		t := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-t.C:
		case <-f.ctx.Done():
			t.Stop()
			return
		}
		wait = min(2*wait, redialMax)
	}
}

func (r *Router) isOver(term uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return term <= r.ended
}

// followOnce makes one connection and serves it until it ends. up: it got as far as the handshake.
func (r *Router) followOnce(f *follower) (up bool, err error) {
	ctx, cancel := context.WithTimeoutCause(f.ctx, dialTimeout, fmt.Errorf("forward: no connection within %v", dialTimeout))
	nc, err := f.target.Dial(ctx)
	cancel()
	if err != nil {
		return false, fmt.Errorf("forward: dial: %w", err)
	}
	if f.ctx.Err() != nil {
		_ = nc.Close()
		return false, context.Cause(f.ctx)
	}
	s := newSession(r, f, nc)
	if err := s.handshake(f.ctx); err != nil {
		return false, err
	}
	if s.peer.nodeID != f.target.NodeID {
		err := fmt.Errorf("%w: %q instead of %q", ErrPeer, s.peer.nodeID, f.target.NodeID)
		s.fail(err)
		return false, err
	}
	f.conn.Store(s)
	r.cfg.Observer.Connected(f.target.NodeID, true)
	r.log.Info("connected to the active node", "active", f.target.Name, "term", f.target.Term)
	err = s.run(f.ctx)
	f.conn.CompareAndSwap(s, nil)
	r.cfg.Observer.Connected(f.target.NodeID, false)
	return true, err
}

// sessionState is what a session's peer says of itself: leading in the term that is followed, or not (yet).
func (r *Router) sessionState(s *session, leading bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.follower != s.follower {
		return
	}
	switch {
	case leading && r.session != s:
		r.session = s
	case !leading && r.session == s:
		r.session = nil
		r.cause = "the node that was active does not lead"
	default:
		return
	}
	r.update()
}

// sessionLost is called before the streams of the session are failed, so that what is decided anew finds
// the new place.
func (r *Router) sessionLost(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.session != s {
		return
	}
	r.session = nil
	r.cause = "the connection to the active node is lost"
	r.update()
}

// sessionDrained: the active node has said that it steps down. Its term is over; what it has accepted it
// still answers.
func (r *Router) sessionDrained(s *session, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.follower != s.follower {
		return
	}
	r.ended = max(r.ended, s.follower.target.Term)
	r.session = nil
	r.holding, r.cause = true, "the active node steps down"
	r.update()
	r.log.Info("the active node steps down", "active", s.follower.target.Name, "reason", reason)
}
