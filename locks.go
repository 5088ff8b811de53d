package locum

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/internal/server"
	"github.com/locum-ha/locum/lock"
)

// What the locks' methods return.
var (
	// ErrHeld: somebody else holds the lock.
	ErrHeld = lock.ErrHeld
	// ErrLost: the lock is not held any more; also the cause of a Lock's context.
	ErrLost = lock.ErrLost
	// ErrReleased is the cause of a Lock's context after Release.
	ErrReleased = errors.New("lock released")
)

// Locks are named locks for whatever the program wants to do in one place at a time, which need not be the active node: any
// node takes and holds them, the active node keeps them, and they survive its failover.
type Locks struct{ node *Node }

// Locks returns the cluster's locks.
func (n *Node) Locks() *Locks { return &Locks{n} }

// LockOptions say how to take a lock.
type LockOptions struct {
	TTL    time.Duration // for how long it outlives a holder that is gone. Default 10 s
	Wait   time.Duration // for how long to wait while another holds it. Default: not at all
	Holder string        // who holds it, for people. Default: the node's name
}

// Lock is a lock that is held. It is renewed until Release.
type Lock struct {
	node   *Node
	req    lock.Request
	number uint64

	ctx  context.Context
	end  context.CancelCauseFunc
	over chan struct{} // closed when keep has ended

	mu       sync.Mutex
	deadline boottime.Instant
}

// Acquire takes the lock with this name. It returns ErrHeld if another holds it for longer than Wait, ctx's error, or that no
// active node could be reached.
func (l *Locks) Acquire(ctx context.Context, name string, o LockOptions) (*Lock, error) {
	s := l.node.running()
	if s == nil {
		return nil, errors.New("locum: the node has not started")
	}
	req := lock.Request{Name: name, Holder: o.Holder, Secret: rand.Text(), TTL: o.TTL, Wait: o.Wait}
	if req.TTL == 0 {
		req.TTL = lock.DefaultTTL
	}
	if req.Holder == "" {
		req.Holder = l.node.cfg.NodeName
	}
	until := boottime.Now().Add(o.Wait)
	for {
		asked := boottime.Now()
		req.Wait = max(until.Sub(asked), 0)
		grant, _, err := s.Lock(ctx, server.LockAcquire, req)
		switch {
		case err == nil:
			return l.hold(s, req, grant, asked)
		case errors.Is(err, server.ErrOutcomeUnknown) && ctx.Err() == nil:
			continue // the same request again: it is under its secret
		}
		return nil, err
	}
}

// hold begins to renew a lock that was granted. After a wait nobody here knows when that was: a renewal tells that it is held
// still, and from when its TTL counts.
func (l *Locks) hold(s *server.Server, req lock.Request, grant lock.Grant, asked boottime.Instant) (*Lock, error) {
	held := &Lock{node: l.node, req: req, number: grant.Number, deadline: deadlineFrom(asked, req.TTL), over: make(chan struct{})}
	held.ctx, held.end = context.WithCancelCause(context.Background())
	if boottime.Since(asked) > req.TTL/4 {
		held.deadline = deadlineFrom(boottime.Now(), req.TTL) // to ask until then, at most
		if !held.renew(s) {
			held.end(ErrLost)
			return nil, fmt.Errorf("lock %q was granted and ran out before this node heard of it: %w", req.Name, ErrLost)
		}
	}
	go held.keep(s)
	return held, nil
}

// deadlineFrom is when a holder stops, a little before the lock can run out.
func deadlineFrom(asked boottime.Instant, ttl time.Duration) boottime.Instant {
	return asked.Add(ttl - min(max(ttl/10, 10*time.Millisecond), time.Second))
}

// Number is this holding's: higher than that of every holder of this lock before. Whatever the lock protects should refuse
// lower numbers than it has seen.
func (l *Lock) Number() uint64 { return l.number }

// Name is the lock's.
func (l *Lock) Name() string { return l.req.Name }

// Context ends when the lock is not held any more, by the time at which it may have run out at the latest; its cause is ErrLost
// or ErrReleased. Work under the lock runs under it.
func (l *Lock) Context() context.Context { return l.ctx }

// Held reports whether the lock is held at this instant, on a clock that goes on while the machine sleeps.
func (l *Lock) Held() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ctx.Err() == nil && boottime.Now().Before(l.deadline)
}

// Release gives the lock up; its context ends first. If the active node cannot be reached it runs out by itself.
func (l *Lock) Release(ctx context.Context) error {
	l.end(ErrReleased)
	<-l.over
	s := l.node.running()
	for {
		_, _, err := s.Lock(ctx, server.LockRelease, l.req)
		if errors.Is(err, server.ErrOutcomeUnknown) && ctx.Err() == nil {
			continue
		}
		return err
	}
}

// keep renews the lock three times per TTL until it is lost or released.
func (l *Lock) keep(s *server.Server) {
	defer close(l.over)
	for {
		timer := time.NewTimer(l.req.TTL / 3)
		select {
		case <-l.ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if !l.renew(s) {
			l.end(fmt.Errorf("lock %q: %w", l.req.Name, ErrLost))
			return
		}
	}
}

// renew asks until an answer comes, and reports whether the lock is still held.
func (l *Lock) renew(s *server.Server) bool {
	for l.Held() {
		asked := boottime.Now()
		l.mu.Lock()
		left := boottime.Until(l.deadline)
		l.mu.Unlock()
		ctx, cancel := context.WithTimeout(l.ctx, max(left, 0))
		_, _, err := s.Lock(ctx, server.LockRenew, l.req)
		cancel()
		switch {
		case err == nil:
			l.mu.Lock()
			l.deadline = max(l.deadline, deadlineFrom(asked, l.req.TTL))
			l.mu.Unlock()
			return true
		case errors.Is(err, ErrLost):
			return false
		}
		pause := time.NewTimer(min(l.req.TTL/20, 250*time.Millisecond))
		select {
		case <-l.ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
	return false
}
