package cell

import (
	"context"
	"time"

	"github.com/locum-ha/locum/physical"
)

// Watch waits, on a cell that tells of changes, until the record of the lock differs from seen, or until its holder's time is
// over; it is physical.Watcher's method.
func Watch(ctx context.Context, l *Lock, cell Waiter, seen physical.Record) (physical.Record, error) {
	ctx, leave := l.enter(ctx)
	r, err := l.watch(ctx, cell, seen)
	return r, leave(err)
}

func (l *Lock) watch(ctx context.Context, cell Waiter, seen physical.Record) (physical.Record, error) {
	for {
		v, version, over, err := l.look(ctx)
		if err != nil {
			return physical.Record{}, err
		}
		now := v.Record
		if over || !v.held() {
			now = v.free()
		}
		if now != seen {
			return now, nil
		}
		if err := l.wait(ctx, cell, version, v.held() && !over); err != nil {
			return physical.Record{}, err
		}
	}
}

// wait returns when the value may have changed or, while the lock is held, when its time may be over.
func (l *Lock) wait(ctx context.Context, cell Waiter, version string, held bool) error {
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	if held {
		timer := time.AfterFunc(l.left(version), cancel)
		defer timer.Stop()
	}
	err := cell.Wait(waiting, version)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if waiting.Err() != nil {
		return nil // the holder's time may be over
	}
	return err
}

// left is how long the value of this version must still be seen unchanged.
func (l *Lock) left(version string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen.version != version {
		return 0
	}
	return max(l.seen.ttl-l.clock().Sub(l.seen.since), time.Millisecond)
}
