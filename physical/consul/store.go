package consul

import (
	"context"
	"fmt"
	"time"

	"github.com/locum-ha/locum/physical"
)

// Store is one node's way to Consul: a [physical.Backend], a [physical.HABackend] and a [physical.Watcher].
type Store struct {
	api    *api
	ctx    context.Context // ended by Close, with ErrClosed as its cause
	end    context.CancelCauseFunc
	caps   physical.Caps
	minTTL time.Duration

	sessionNode string // whose session holds the lock; "": the agent's

	entries, fence, fenceIs, lock string // keys; entries and fenceIs are prefixes
}

var (
	_ physical.Backend   = (*Store)(nil)
	_ physical.HABackend = (*Store)(nil)
	_ physical.Watcher   = (*Store)(nil)
)

// The limits of an agent that is configured as it comes: 64 operations in a transaction, whose JSON, with values in
// base64, is 512 KiB long at most.
const (
	maxOps    = 63 // and the fence
	maxKey    = 512
	maxCommit = 352 << 10
	maxValue  = 344 << 10
)

// Open connects to the agent. It returns an error if the agent, or Consul behind it, does not answer before ctx ends, and
// if it refuses.
func Open(ctx context.Context, config Config) (*Store, error) {
	config.ensureDefaults()
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	s := &Store{
		entries: config.Path + "e/",
		fence:   config.Path + "fence",
		fenceIs: config.Path + "fence-is/",
		lock:    config.Path + "lock",
		minTTL:  config.MinTTL,

		sessionNode: config.SessionNode,

		caps: capsOf(config),
	}
	var err error
	if s.api, err = newAPI(config); err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	s.ctx, s.end = context.WithCancelCause(context.Background())
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	if _, err := s.Fence(ctx); err != nil {
		return nil, fmt.Errorf("consul at %s: %w", config.Address, joinClose(err, s))
	}
	return s, nil
}

// openTime is how long Open waits for an answer, unless its context is shorter.
const openTime = 10 * time.Second

func joinClose(err error, s *Store) error {
	_ = s.Close() // always nil
	return err
}

// Caps is what the store can do unless it is configured otherwise.
func Caps() physical.Caps {
	var config Config
	config.ensureDefaults()
	return capsOf(config)
}

func capsOf(config Config) physical.Caps {
	return physical.Caps{
		Name: "consul", Entries: true, HA: true, Watch: true, Shared: true,
		MaxOps: maxOps, MaxKey: maxKey, MaxValue: maxValue, MaxCommit: maxCommit,
		MinTTL: config.MinTTL, DefaultTTL: config.MinTTL,
		Failover: "Nothing is lost: Consul acknowledges what a majority has on disk; while it elects a leader requests wait (up to 7 s), and sessions are counted anew.",
	}
}

// Caps says what the store can do.
func (s *Store) Caps() physical.Caps { return s.caps }

// Close lets go of the connections; a lock that is held is left to run out.
func (s *Store) Close() error {
	if s.ctx.Err() == nil {
		s.end(physical.ErrClosed)
		s.api.close()
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
