package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	client "github.com/redis/go-redis/v9"

	"github.com/locum-ha/locum/internal/conns"
	"github.com/locum-ha/locum/physical"
)

// Store is one node's way to the server: a [physical.HABackend] and a [physical.Watcher].
type Store struct {
	cfg     Config
	conns   conns.Set
	client  client.UniversalClient
	keys    []string // the lock, and what outlives it
	channel string
	ear     *listener

	ctx      context.Context // ends with Close
	stop     context.CancelCauseFunc
	mu       sync.Mutex     // held to start a goroutine, and to stop
	tasks    sync.WaitGroup // of the goroutines that may outlive a call
	closing  sync.Once
	finished chan struct{}
}

var (
	_ physical.HABackend = (*Store)(nil)
	_ physical.Watcher   = (*Store)(nil)
)

// quiet keeps the library from writing to this process's standard error by itself: what matters comes as errors.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// silence is for the whole process: the library has one logger.
var silence = sync.OnceFunc(func() { client.SetLogger(quiet{}) })

// Open connects and returns the store. The caller closes it.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg.ensureDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, finished: make(chan struct{})}
	s.ctx, s.stop = context.WithCancelCause(context.Background())
	options, err := cfg.options(&s.conns)
	if err != nil {
		return nil, err
	}
	silence()
	s.client = client.NewUniversalClient(options)
	s.keys = []string{"{" + cfg.Prefix + "}:lock", "{" + cfg.Prefix + "}:state"}
	s.channel = "{" + cfg.Prefix + "}:changed"
	s.ear = &listener{store: s, changed: make(chan struct{})}
	if err := s.run(ctx, false, func(ctx context.Context) error { return s.client.Ping(ctx).Err() }); err != nil {
		if !cfg.secure() && (strings.Contains(err.Error(), "EOF") || strings.Contains(err.Error(), "connection reset")) {
			err = fmt.Errorf("%w: the server ends a connection without TLS: does it want it (tls = true)?", err)
		}
		return nil, errors.Join(err, s.Close())
	}
	s.warn(ctx)
	return s, nil
}

// warn looks for settings of the server that do not go together with a lock. Not being allowed to look is no error.
func (s *Store) warn(ctx context.Context) {
	var info string
	err := s.run(ctx, false, func(ctx context.Context) (err error) {
		info, err = s.client.Info(ctx, "persistence", "memory").Result()
		return err
	})
	if err != nil {
		return
	}
	if strings.Contains(info, "aof_enabled:0") {
		s.cfg.Logger.Warn("Redis forgets the HA lock when it restarts: the nodes then wait for a TTL", "hint", "appendonly yes")
	}
	if strings.Contains(info, "maxmemory_policy:") && !strings.Contains(info, "maxmemory_policy:noeviction") && !strings.Contains(info, "maxmemory:0\r") {
		s.cfg.Logger.Warn("Redis may evict the HA lock when its memory is full", "hint", "maxmemory-policy noeviction, or a server of its own")
	}
}

// Caps is what the store can do.
func Caps() physical.Caps {
	return physical.Caps{
		Name: "redis", HA: true, Watch: true, Shared: true,
		MinTTL: 500 * time.Millisecond, DefaultTTL: 5 * time.Second,
		Failover: "Replication is asynchronous: a failover can lose the lock, and for up to a TTL two nodes may believe that they hold it; the fence in storage lets only one of them write.",
	}
}

// Caps says what the store can do.
func (s *Store) Caps() physical.Caps { return Caps() }

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

// Close ends all calls under way and all connections. A lock that is held is left to run out.
func (s *Store) Close() error {
	s.closing.Do(func() {
		defer close(s.finished)
		s.end()
		s.conns.Close()
		_ = s.client.Close() // the connections are closed already, which it may complain of
		s.tasks.Wait()
	})
	<-s.finished
	return nil
}

// run makes a call that its caller may leave, and translates its error; writes says whether it changes anything.
func (s *Store) run(ctx context.Context, writes bool, call func(ctx context.Context) error) error {
	if s.ctx.Err() != nil {
		return physical.ErrClosed
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	done := make(chan error, 1)
	if !s.spawn(func() { done <- call(ctx) }) {
		return physical.ErrClosed
	}
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-s.ctx.Done():
		err = <-done // soon: its connection is closed
	}
	return s.translate(ctx, err, writes)
}

// translate makes of the library's error one of package physical's.
func (s *Store) translate(ctx context.Context, err error, writes bool) error {
	var said client.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errReplicas):
		return fmt.Errorf("%w: %w", physical.ErrUnavailable, err)
	case errors.As(err, &said) && said != error(client.ErrClosed):
		return refused(said.Error())
	case notSent(err) && s.ctx.Err() == nil:
		return fmt.Errorf("%w: Redis: %s", physical.ErrUnavailable, err.Error())
	case writes && !errors.Is(err, client.ErrClosed):
		return fmt.Errorf("%w: Redis: %s", physical.ErrUnknown, err.Error())
	case s.ctx.Err() != nil || errors.Is(err, client.ErrClosed):
		return physical.ErrClosed
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: Redis: %s", physical.ErrUnavailable, err.Error())
}

// notSent reports whether a call failed before anything was sent: there was no connection to be had.
func notSent(err error) bool {
	return errors.Is(err, client.ErrPoolTimeout) || errors.Is(err, client.ErrPoolExhausted) || dialling(err)
}

// passing are the first words of answers with which a server says that it cannot serve now, and did nothing.
var passing = []string{
	"LOADING", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "NOREPLICAS", "OOM", "BUSY", "MISCONF", "MOVED", "ASK",
	"UNKILLABLE", "ERR max number of clients reached",
}

// commands are what the user must be allowed: those of the scripts, of the subscription, and of the look at the settings.
const commands = "+@connection +eval +evalsha +script|load +hmget +hset +del +pexpire +pttl +publish +subscribe +unsubscribe +wait +info"

// refused translates what the server itself said: it did nothing.
func refused(said string) error {
	for _, word := range passing {
		if strings.HasPrefix(said, word) {
			return fmt.Errorf("%w: Redis: %s", physical.ErrUnavailable, said)
		}
	}
	if strings.HasPrefix(said, "NOPERM") {
		return fmt.Errorf("redis: %s; the user needs: ~{prefix}:* &{prefix}:* %s", said, commands)
	}
	return fmt.Errorf("redis: %s", said)
}
