package postgres

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// listener is the connection on which the database tells of changes of the lock. It is made when somebody first
// watches, and made again when it breaks.
type listener struct {
	store *Store
	cfg   *pgx.ConnConfig
	start sync.Once

	mu      sync.Mutex
	up      bool
	changed chan struct{} // closed and made anew when the lock may have changed
}

func newListener(s *Store, cfg *pgx.ConnConfig) *listener {
	return &listener{store: s, cfg: cfg, changed: make(chan struct{})}
}

// changes returns a channel that is closed when the lock may have changed after this call, or nil while the database
// cannot tell.
func (l *listener) changes() <-chan struct{} {
	if l == nil {
		return nil
	}
	l.start.Do(func() { l.store.spawn(l.run) })
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.up {
		return nil
	}
	return l.changed
}

// tell wakes all who wait, and says whether the database can tell from now on.
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
		l.store.cfg.Logger.Warn("not listening for changes of the lock; polling", "error", plain(err))
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

// listen waits for notifications on one connection until it breaks.
func (l *listener) listen(ctx context.Context) error {
	cfg := l.cfg.Copy()
	if err := l.store.cfg.setPassword(ctx, cfg); err != nil {
		return err
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() {
		_ = conn.PgConn().Conn().Close()
		_ = conn.Close(ctx)
		<-conn.PgConn().CleanupDone()
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+quote(l.store.schema.channel), simple); err != nil {
		return err
	}
	l.tell(true)
	defer l.tell(false)
	for {
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return err
		}
		l.tell(true)
	}
}
