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

// A store whose waits end although nothing has changed is slowed down (P12): by a version that is too old to be watched from, or by a
// proxy that ends every stream.
const (
	idleLeast = 50 * time.Millisecond
	idleMost  = time.Second
)

func (l *Lock) watch(ctx context.Context, cell Waiter, seen physical.Record) (physical.Record, error) {
	var before string // the version of the last wait
	var early bool    // it ended at once
	var gap time.Duration
	for {
		v, version, over, err := l.look(ctx)
		if err != nil {
			return physical.Record{}, err
		}
		now := v.Record
		held := v.held() && !over
		if !held {
			now = v.free()
		}
		if now != seen {
			return now, nil
		}
		if early && version == before {
			gap = min(max(2*gap, idleLeast), idleMost)
		} else {
			gap = 0
		}
		pause := gap
		if held {
			pause = min(pause, l.left(version))
		}
		if err := rest(ctx, pause); err != nil {
			return physical.Record{}, err
		}
		began := time.Now()
		told, err := l.wait(ctx, cell, version, held)
		if err != nil {
			return physical.Record{}, err
		}
		before, early = version, told && time.Since(began) < idleMost
	}
}

// rest sleeps, unless ctx ends.
func rest(ctx context.Context, pause time.Duration) error {
	if pause <= 0 {
		return nil
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// wait returns when the value may have changed, which the cell told, or, while the lock is held, when its time may be over.
func (l *Lock) wait(ctx context.Context, cell Waiter, version string, held bool) (told bool, err error) {
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	if held {
		timer := time.AfterFunc(l.left(version), cancel)
		defer timer.Stop()
	}
	err = cell.Wait(waiting, version)
	if cause := context.Cause(ctx); cause != nil {
		return false, cause
	}
	if waiting.Err() != nil {
		return false, nil // the holder's time may be over
	}
	return true, err
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
