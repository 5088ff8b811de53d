package redis

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	client "github.com/redis/go-redis/v9"

	"github.com/locum-ha/locum/physical"
)

// pollEvery is how often the lock is looked at while the server cannot tell of its changes.
const pollEvery = 100 * time.Millisecond

// Watch waits until the record of the lock differs from seen.
func (s *Store) Watch(ctx context.Context, seen physical.Record) (physical.Record, error) {
	for {
		changed := s.ear.changes()
		now, err := s.look(ctx)
		if err != nil {
			return physical.Record{}, err
		}
		if now.record != seen {
			return now.record, nil
		}
		if err := s.wait(ctx, changed, now); err != nil {
			return physical.Record{}, err
		}
	}
}

// wait returns when the record may have changed: told so, or because the lock has run out unless it was renewed.
func (s *Store) wait(ctx context.Context, changed <-chan struct{}, now state) error {
	limit := time.Hour
	if changed == nil {
		limit = pollEvery
	}
	if now.record.Holder != "" {
		limit = min(limit, now.left+time.Millisecond)
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ctx.Done():
		return physical.ErrClosed
	}
	return nil
}

// listener is the subscription on which the server tells of changes of the lock. It begins when somebody first watches.
type listener struct {
	store *Store
	start sync.Once

	mu      sync.Mutex
	up      bool
	changed chan struct{} // closed and made anew when the lock may have changed
}

// changes returns a channel that is closed when the lock may have changed after this call, or nil while the server
// cannot tell.
func (l *listener) changes() <-chan struct{} {
	l.start.Do(func() { l.store.spawn(l.run) })
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.up {
		return nil
	}
	return l.changed
}

// tell wakes all who wait, and says whether the server can tell from now on.
func (l *listener) tell(up bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.up = up
	close(l.changed)
	l.changed = make(chan struct{})
}

// run listens until the store is closed.
func (l *listener) run() {
	ctx := l.store.ctx
	pause := 50 * time.Millisecond
	for ctx.Err() == nil {
		began := time.Now()
		err := l.listen(ctx)
		if ctx.Err() != nil {
			return
		}
		l.store.cfg.Logger.Warn("not listening for changes of the lock; polling", "error", err.Error())
		if time.Since(began) > time.Minute {
			pause = 50 * time.Millisecond
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, 5*time.Second)
	}
}

// listenTimeout is how long the subscription may be quiet before the server is asked whether it is still there.
const listenTimeout = 10 * time.Second

// listen waits for messages on one subscription until it breaks.
func (l *listener) listen(ctx context.Context) error {
	sub := l.store.client.Subscribe(ctx, l.store.channel)
	defer sub.Close()
	defer l.tell(false)
	asked := false
	for {
		msg, err := sub.ReceiveTimeout(ctx, listenTimeout)
		var timeout net.Error
		switch {
		case err == nil:
			asked = false
		case errors.As(err, &timeout) && timeout.Timeout() && !asked:
			asked = true
			if err := sub.Ping(ctx); err != nil {
				return err
			}
			continue
		default:
			return err
		}
		switch msg.(type) {
		case *client.Subscription, *client.Message:
			l.tell(true)
		}
	}
}
