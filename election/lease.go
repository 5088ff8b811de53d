package election

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
)

// Leadership is one term of this node as the active one.
type Leadership struct {
	Term  uint64
	Fence physical.Fence // carried by every write to storage (P1)
	Grant physical.Grant // as acquired; it can be serialised for a guardian
	Lease *Lease

	abort func(term uint64, cause error)
}

// Abort ends the leadership at once, because what Activate began cannot go on: the application died, a
// write was refused with physical.ErrFenced. The lease ends before Abort returns; Deactivate follows, then
// the lock is released, and the node backs off. It does nothing when the leadership is over. Not to be called
// while a lock is held that Deactivate needs.
func (l *Leadership) Abort(cause error) {
	l.Lease.end(cause)
	if l.abort != nil {
		l.abort(l.Term, cause)
	}
}

// Lease says until when this node may act as the active one. Once it has ended it stays so.
type Lease struct {
	clock    func() boottime.Instant
	deadline atomic.Int64 // a boottime.Instant; 0 when ended

	ctx    context.Context
	cancel context.CancelCauseFunc

	mu    sync.Mutex // guards extend against end, and timer
	timer *time.Timer
}

// recheck bounds how long the lease's timer sleeps: Go's timers stand still while the machine is suspended.
const recheck = time.Second

func newLease(parent context.Context, clock func() boottime.Instant, deadline boottime.Instant) *Lease {
	l := &Lease{clock: clock}
	l.ctx, l.cancel = context.WithCancelCause(parent)
	l.deadline.Store(int64(deadline))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = time.AfterFunc(l.sleep(), l.check)
	return l
}

// Valid reports whether the lease is in force at this instant (P4). It costs one reading of the clock, takes no lock,
// and may be asked for every request.
func (l *Lease) Valid() bool {
	d := l.deadline.Load()
	return d != 0 && l.clock() < boottime.Instant(d)
}

// Context ends when the lease does, by the deadline at the latest (while the process runs); its cause says why.
func (l *Lease) Context() context.Context { return l.ctx }

// Deadline returns the instant at which the lease ends unless it is renewed; 0 when it has ended.
func (l *Lease) Deadline() boottime.Instant { return boottime.Instant(l.deadline.Load()) }

// extend moves the deadline forward, unless it has passed, and reports whether the lease is in force.
func (l *Lease) extend(to boottime.Instant) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := boottime.Instant(l.deadline.Load())
	if d == 0 {
		return false
	}
	if l.clock() >= d {
		l.endLocked(ErrExpired)
		return false
	}
	l.deadline.Store(int64(max(to, d)))
	return true
}

// end ends the lease; the first cause stays.
func (l *Lease) end(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.endLocked(cause)
}

func (l *Lease) endLocked(cause error) {
	l.deadline.Store(0)
	l.cancel(cause)
	l.timer.Stop()
}

// check ends the lease if its deadline has passed, or sleeps on.
func (l *Lease) check() {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch d := boottime.Instant(l.deadline.Load()); {
	case d == 0:
	case l.clock() >= d:
		l.endLocked(ErrExpired)
	default:
		l.timer.Reset(l.sleep())
	}
}

func (l *Lease) sleep() time.Duration {
	left := boottime.Instant(l.deadline.Load()).Sub(l.clock())
	return max(min(left, recheck), 0)
}
