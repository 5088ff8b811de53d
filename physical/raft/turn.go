package raft

import (
	"context"
	"fmt"

	"github.com/locum-ha/locum/physical"
)

// turn is a mutex whose wait ends with a context: it is held over I/O, by a restore for as long as the state takes. It has one slot.
type turn chan struct{}

// lock waits for the turn. On an error nothing was done.
func (t turn) lock(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: another operation on the lock, or a restore, is under way: %w", physical.ErrUnavailable, context.Cause(ctx))
	}
}

func (t turn) tryLock() bool {
	select {
	case t <- struct{}{}:
		return true
	default:
		return false
	}
}

func (t turn) unlock() { <-t }
