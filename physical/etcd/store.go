package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/locum-ha/locum/physical"
)

// Store is one node's way to etcd: a [physical.Backend], a [physical.HABackend] and a [physical.Watcher].
type Store struct {
	config Config
	client *clientv3.Client
	ctx    context.Context // ended by Close, with ErrClosed as its cause
	end    context.CancelCauseFunc
	caps   physical.Caps

	entries, fence, holder, term string // keys; entries is a prefix
}

var (
	_ physical.Backend   = (*Store)(nil)
	_ physical.HABackend = (*Store)(nil)
	_ physical.Watcher   = (*Store)(nil)
)

// The limits of a server that is configured as it comes: 1.5 MiB for a request, 128 operations.
const (
	maxCommit = 1280 << 10 // leaves 256 KiB for what frames the keys and values
	maxOps    = 127        // and the fence
)

// Open connects to the servers. It returns an error if none of them answers before ctx ends, and if they refuse.
func Open(ctx context.Context, config Config) (*Store, error) {
	config.ensureDefaults()
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	s := &Store{
		config:  config,
		entries: config.Path + "e/",
		fence:   config.Path + "fence",
		holder:  config.Path + "lock/holder",
		term:    config.Path + "lock/term",
		caps:    Caps(),
	}
	s.ctx, s.end = context.WithCancelCause(context.Background())
	if err := s.connect(ctx); err != nil {
		s.end(physical.ErrClosed)
		if why := config.probe(); why != nil {
			err = fmt.Errorf("%w: %w", physical.ErrUnavailable, why)
		}
		return nil, fmt.Errorf("etcd at %v: %w", config.Endpoints, err)
	}
	return s, nil
}

// openTime is how long Open waits for a server, unless its context is shorter.
const openTime = 10 * time.Second

func (s *Store) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	dialTime := 5 * time.Second
	if end, ok := ctx.Deadline(); ok {
		dialTime = max(min(dialTime, time.Until(end)), time.Millisecond) // for logging in, which heeds no context
	}
	config := clientv3.Config{
		Endpoints:            s.config.Endpoints,
		Username:             s.config.Username,
		Password:             s.config.Password.Reveal(),
		Token:                s.config.Token.Reveal(),
		DialTimeout:          dialTime,
		DialKeepAliveTime:    keepAlive,
		DialKeepAliveTimeout: keepAliveAnswer,
		MaxCallSendMsgSize:   maxCommit + 1<<20,
		Context:              s.ctx,
		Logger:               zapLogger(s.config.Logger),
	}
	if s.config.secure() {
		var err error
		if config.TLS, err = s.config.TLS.Load(); err != nil {
			return err
		}
	}
	client, err := clientv3.New(config)
	if err != nil {
		return failure(ctx, err, false)
	}
	s.client = client
	if _, err := s.Fence(ctx); err != nil {
		return errors.Join(err, client.Close())
	}
	if err := s.learnTTL(ctx); err != nil {
		return errors.Join(err, client.Close())
	}
	return nil
}

// learnTTL finds out the shortest lease that the servers give, one and a half of their election time-out in whole seconds,
// by asking for less.
func (s *Store) learnTTL(ctx context.Context) error {
	lease, err := asked(ctx, s, func(ctx context.Context) (*clientv3.LeaseGrantResponse, error) { return s.client.Grant(ctx, 1) })
	if err != nil {
		return failure(ctx, err, false)
	}
	s.revoke(ctx, lease.ID)
	s.caps.MinTTL = time.Duration(lease.TTL) * time.Second
	s.caps.DefaultTTL = max(5*time.Second, s.caps.MinTTL)
	return nil
}

// Caps is what the store can do with servers that are configured as they come: Open finds out the shortest TTL of those
// that it meets.
func Caps() physical.Caps {
	return physical.Caps{
		Name: "etcd", Entries: true, HA: true, Watch: true, Shared: true,
		MaxOps: maxOps, MaxValue: maxCommit - 8<<10, MaxCommit: maxCommit, MaxKey: 4 << 10,
		MinTTL: 2 * time.Second, DefaultTTL: 5 * time.Second,
		Failover: "Nothing is lost: etcd acknowledges what a majority has on disk; while it elects a leader (about 1 s) requests wait, and leases are counted anew.",
	}
}

// Caps says what the store can do.
func (s *Store) Caps() physical.Caps { return s.caps }

// Close lets go of the connections; a lock that is held is left to run out.
func (s *Store) Close() error {
	if s.ctx.Err() != nil {
		return nil
	}
	s.end(physical.ErrClosed)
	if err := s.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("etcd: close: %w", err)
	}
	return nil
}

// begin starts a method: the context that it gives ends with the store too. The caller calls end.
func (s *Store) begin(ctx context.Context) (both context.Context, end func(), err error) {
	if s.ctx.Err() != nil {
		return nil, nil, physical.ErrClosed
	}
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	both, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.ctx, func() { cancel(physical.ErrClosed) })
	return both, func() { stop(); cancel(nil) }, nil
}
