package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/locum-ha/locum/internal/conns"
	"github.com/locum-ha/locum/physical"
)

// Store is one node's way to ZooKeeper: a [physical.Backend], a [physical.HABackend] and a [physical.Watcher].
type Store struct {
	dialer dialer
	conns  conns.Set
	rights acl
	ctx    context.Context // ended by Close, with ErrClosed as its cause
	end    context.CancelCauseFunc
	caps   physical.Caps
	main   session // over which everything goes but the lock's own session
	writes gate
	hints  *hints

	base, entries, deletes, fence, lock, term, holder string // nodes
}

var (
	_ physical.Backend   = (*Store)(nil)
	_ physical.HABackend = (*Store)(nil)
	_ physical.Watcher   = (*Store)(nil)
)

// The servers take no packet of more than jute.maxbuffer, 1 MiB less a byte unless configured.
const (
	maxPacket = 1<<20 - 1
	maxBody   = maxPacket - 20 // of a multi: without its head
	maxCommit = 900 << 10      // leaves the rest for what frames the keys and values
	maxValue  = 892 << 10
	maxKey    = 512
	maxOps    = 128
)

// sessionTime is the time-out of the session that is not a lock's: a server that is silent for two thirds of it is given
// up for another.
const sessionTime = 6 * time.Second

// Open connects to one of the servers, and makes the nodes that everything lies below if they are not there. It returns
// an error if no server answers before ctx ends, and if it refuses.
func Open(ctx context.Context, config Config) (*Store, error) {
	config.ensureDefaults()
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("zookeeper: %w", err)
	}
	s := &Store{
		base: config.Path, entries: config.Path + "/e", deletes: config.Path + "/deletes", fence: config.Path + "/fence",
		lock: config.Path + "/lock", term: config.Path + "/lock/term", holder: config.Path + "/lock/holder",
		rights: acl{"world", "anyone"},
		writes: newGate(),
		hints:  newHints(),
		caps:   Caps(),
	}
	s.dialer.servers, s.dialer.dial = config.Servers, s.conns.Dial
	s.dialer.turn.Store(rand.Uint32())
	if config.Username != "" {
		s.dialer.digest = physical.Secret(config.Username + ":" + config.Password.Reveal())
		s.rights = acl{"auth", ""} // ZooKeeper's own word for whoever creates it
	}
	if config.UseTLS {
		var err error
		if s.dialer.tls, err = config.TLS.Load(); err != nil {
			return nil, fmt.Errorf("zookeeper: %w", err)
		}
	}
	s.main = session{dialer: &s.dialer, turn: make(chan struct{}, 1)}
	s.ctx, s.end = context.WithCancelCause(context.Background())
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	err := s.initialise(ctx)
	if err == nil {
		err = s.learnTTL(ctx)
	}
	if err != nil {
		_ = s.Close() // always nil
		return nil, fmt.Errorf("zookeeper at %v: %w", config.Servers, err)
	}
	return s, nil
}

// openTime is how long Open waits for a server, unless its context is shorter.
const openTime = 10 * time.Second

// learnTTL finds out the shortest session that the servers give, two of their ticks unless configured, by asking for less.
func (s *Store) learnTTL(ctx context.Context) error {
	c, err := s.dialer.attach(ctx, credentials{}, time.Millisecond, 0)
	if err != nil {
		return translate(ctx, err, false)
	}
	defer c.close()
	_, _ = c.call(ctx, opCloseSession, nil) // else it runs out
	s.caps.MinTTL = c.timeout
	s.caps.DefaultTTL = max(5*time.Second, c.timeout)
	return nil
}

// initialise makes the nodes that are needed, and finds out whether they can be read. The node "none" of a fence that was never raised is made with all others
// in one step, so that it cannot come back.
func (s *Store) initialise(ctx context.Context) error {
	got, err := s.ask(ctx, query{op: opSync, path: "/"}, query{op: opGetData, path: s.term}) // not exists, which needs no right
	if err != nil {
		return err
	}
	if got[1].err == nil {
		return nil
	}
	for i := 1; i < len(s.base); i++ { // the nodes above, and the node itself
		if s.base[i] == '/' {
			if err := s.create(ctx, s.base[:i]); err != nil {
				return err
			}
		}
	}
	if err := s.create(ctx, s.base); err != nil {
		return err
	}
	_, err = s.multi(ctx, []step{
		createStep(s.fence, nil), createStep(s.fenceNode(physical.Fence{}), nil),
		createStep(s.entries, nil), createStep(s.deletes, nil),
		createStep(s.lock, nil), createStep(s.term, encodeRecord(physical.Record{})),
	})
	var failed *multiError
	if errors.As(err, &failed) && failed.code == codeError(codeNodeExists) {
		return nil // another node came first
	}
	return translate(ctx, err, false)
}

func (s *Store) create(ctx context.Context, path string) error {
	_, err := s.multi(ctx, []step{createStep(path, nil)})
	var failed *multiError
	if errors.As(err, &failed) && failed.code == codeError(codeNodeExists) {
		return nil
	}
	return translate(ctx, err, false)
}

// Caps is what the store can do with servers that are configured as they come: Open finds out the shortest TTL of those
// that it meets.
func Caps() physical.Caps {
	return physical.Caps{
		Name: "zookeeper", Entries: true, HA: true, Watch: true, Shared: true,
		MaxOps: maxOps, MaxKey: maxKey, MaxValue: maxValue, MaxCommit: maxCommit,
		MinTTL: 4 * time.Second, DefaultTTL: 5 * time.Second,
		Failover: "Nothing is lost: ZooKeeper acknowledges what a majority has on disk; while it elects a leader requests wait, and sessions are counted anew.",
	}
}

// Caps says what the store can do.
func (s *Store) Caps() physical.Caps { return s.caps }

// Close lets go of the connection; a lock that is held is left to run out.
func (s *Store) Close() error {
	if s.ctx.Err() == nil {
		s.end(physical.ErrClosed)
		s.main.close()
		s.conns.Close()
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

// translate turns a failure into one of package physical's. A write that may have been sent has an unknown outcome.
func translate(ctx context.Context, err error, write bool) error {
	if err == nil {
		return nil
	}
	kind := physical.ErrUnavailable
	if write && errors.Is(err, errSent) {
		kind = physical.ErrUnknown
	}
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", kind, cause)
	} else if cause != nil {
		return fmt.Errorf("%w: %w: %v", kind, cause, err)
	}
	if errors.Is(err, physical.ErrUnavailable) || errors.Is(err, physical.ErrTooLarge) {
		return err
	}
	return fmt.Errorf("%w: %v", kind, err)
}
