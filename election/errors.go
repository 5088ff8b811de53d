package election

import (
	"errors"
	"fmt"

	"github.com/locum-ha/locum/physical"
)

// Why a leadership ends, or why it cannot be ended.
var (
	// ErrSteppedDown: it was given up as asked.
	ErrSteppedDown = errors.New("stepped down")
	// ErrShutdown: the node is stopping; the lock is given up as planned.
	ErrShutdown = errors.New("node is stopping")
	// ErrNotCandidate: the lock was won by a node that must not become active any more; it is given up.
	ErrNotCandidate = errors.New("node is not a candidate")
	// ErrExpired: the lease's deadline passed without a renewal.
	ErrExpired = errors.New("lease expired")
	// ErrNotActive: this node cannot step down, it is not active.
	ErrNotActive = errors.New("node is not active")
	// ErrTarget: this node cannot step down in favour of itself.
	ErrTarget = errors.New("a node cannot step down in favour of itself")
	// ErrStopped: the election's Run has returned, or is about to.
	ErrStopped = errors.New("election stopped")
)

var (
	errLate        = fmt.Errorf("%w: no answer in time", physical.ErrUnknown)
	errFenceLate   = errors.New("election: the fence could not be raised in time")
	errEarlierLife = errors.New("the lock is held by an earlier life of this node; it runs out by itself")
)

// isPlanned reports whether a leadership that ends for this cause was given up, and not lost.
func isPlanned(cause error) bool {
	return errors.Is(cause, ErrSteppedDown) || errors.Is(cause, ErrShutdown) || errors.Is(cause, ErrNotCandidate)
}
