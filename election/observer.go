package election

import (
	"time"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
)

// Observer is told of what is worth a metric or a line of history. Every func may be nil; they are called from
// the loop, one at a time, must return at once, and must not call the Election or Leadership.Abort.
type Observer struct {
	StateChanged  func(State)                                       // role, term, holder, paused or candidate changed
	Renewed       func(latency time.Duration, err error)            // an attempt to renew the lock was answered, or given up
	Guard         func(g physical.Grant, deadline boottime.Instant) // for a guardian: all that Activate began must have ended by deadline, whoever ends it; 0: it has
	Fenced        func(term uint64)                                 // the fence was raised to term
	Activated     func(term uint64, took time.Duration)             // active, after took since the lock was won
	Ended         func(term uint64, planned bool, cause error)      // a leadership is over; exactly once for each that got a Lease
	Lost          func(cause error)                                 // it was not planned
	LeaderlessFor func(d time.Duration)                             // somebody holds the lock again (this node: is active) after d without
}
