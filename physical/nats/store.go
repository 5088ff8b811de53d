package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/locum-ha/locum/internal/cell"
	"github.com/locum-ha/locum/internal/conns"
	"github.com/locum-ha/locum/physical"
)

// Store is one node's way to the bucket: a [physical.HABackend] and a [physical.Watcher].
type Store struct {
	*cell.Lock
	key   *key
	conns conns.Set
	conn  *client.Conn

	rights rights

	mu    sync.Mutex    // also held to start a goroutine, and to stop
	again chan struct{} // closed and made anew when the connection has been made again

	ctx      context.Context // ends with Close
	stop     context.CancelCauseFunc
	tasks    sync.WaitGroup
	closing  sync.Once
	finished chan struct{}
}

var (
	_ physical.HABackend = (*Store)(nil)
	_ physical.Watcher   = (*Store)(nil)
)

// Open connects, makes the bucket unless it is there, and returns the store. The caller closes it.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg.ensureDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Store{finished: make(chan struct{}), again: make(chan struct{})}
	s.ctx, s.stop = context.WithCancelCause(context.Background())
	if err := s.connect(ctx, cfg); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// connect makes the connection in a goroutine that is left when ctx ends: the library's own dialling heeds no context.
func (s *Store) connect(ctx context.Context, cfg Config) error {
	options, err := cfg.options(dialer{set: &s.conns, ctx: s.ctx})
	if err != nil {
		return err
	}
	options = append(options, client.ErrorHandler(func(_ *client.Conn, _ *client.Subscription, err error) {
		s.rights.noticed(err)
		cfg.Logger.Warn("NATS", "error", err.Error())
	}), client.ReconnectHandler(func(*client.Conn) {
		s.mu.Lock()
		defer s.mu.Unlock()
		close(s.again)
		s.again = make(chan struct{})
	}))
	done := make(chan error, 1)
	s.spawn(func() {
		conn, err := client.Connect(strings.Join(cfg.URLs, ","), options...)
		s.mu.Lock()
		s.conn = conn
		s.mu.Unlock()
		done <- err
	})
	select {
	case err = <-done:
	case <-ctx.Done():
		return context.Cause(ctx) // Close waits for the goroutine
	}
	switch {
	case errors.Is(err, client.ErrAuthorization) || errors.Is(err, client.ErrAuthExpired) || errors.Is(err, client.ErrAuthRevoked):
		return fmt.Errorf("nats: %w", plain(err))
	case err != nil:
		return fmt.Errorf("%w: no connection to NATS: %w", physical.ErrUnavailable, plain(err))
	}
	js, err := jetstream.New(s.conn)
	if err != nil {
		return fmt.Errorf("nats: %w", plain(err))
	}
	s.key = &key{store: s, cfg: cfg, changed: make(chan struct{})}
	if err := s.key.open(ctx, js); err != nil {
		return err
	}
	s.Lock = cell.NewLock(s.key, nil)
	return nil
}

// nextConnection is closed when the connection has been made again.
func (s *Store) nextConnection() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.again
}

// reconnecting is how long a call waits for a connection that is being made again.
const reconnecting = 2 * time.Second

// connected waits until there is a connection: nothing is sent, and nothing kept to be sent later, without one.
func (s *Store) connected(ctx context.Context) error {
	timer := time.NewTimer(reconnecting)
	defer timer.Stop()
	for {
		again := s.nextConnection()
		if s.conn.IsConnected() {
			return nil
		}
		select {
		case <-again:
		case <-timer.C:
			return fmt.Errorf("%w: no connection to NATS", physical.ErrUnavailable)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.ctx.Done():
			return physical.ErrClosed
		}
	}
}

// plain makes an error of text: no type of the client library leaves this package.
func plain(err error) error { return errors.New(strings.TrimPrefix(err.Error(), "nats: ")) }

// Caps is what the store can do.
func Caps() physical.Caps {
	return physical.Caps{
		Name: "nats", HA: true, Watch: true, Shared: true,
		MinTTL: 500 * time.Millisecond, DefaultTTL: 5 * time.Second,
		Failover: "A bucket with three replicas goes on after its leader was elected anew, within some seconds; with one it waits for its server. The lock is kept.",
	}
}

// Caps says what the store can do.
func (s *Store) Caps() physical.Caps { return Caps() }

// Watch waits until the record of the lock differs from seen.
func (s *Store) Watch(ctx context.Context, seen physical.Record) (physical.Record, error) {
	return cell.Watch(ctx, s.Lock, s.key, seen)
}

// spawn starts a goroutine that Close waits for; not once the store is closed.
func (s *Store) spawn(task func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return false
	}
	s.tasks.Go(task)
	return true
}

// end lets no goroutine begin any more, and tells those that run.
func (s *Store) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop(physical.ErrClosed)
}

// disconnect closes the connection, if there is one by now.
func (s *Store) disconnect() {
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
}

// Close ends all calls under way and the connection. A lock that is held is left to run out.
func (s *Store) Close() error {
	s.closing.Do(func() {
		defer close(s.finished)
		s.end()
		if s.Lock != nil {
			_ = s.Lock.Close()
		}
		s.conns.Close()
		s.disconnect() // what waits for an answer gets none
		s.tasks.Wait()
		s.disconnect()
	})
	<-s.finished
	return nil
}
