package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/locum-ha/locum/internal/conns"
	"github.com/locum-ha/locum/internal/grouped"
	"github.com/locum-ha/locum/physical"
)

// Limits of one commit. A btree index takes keys of some 2700 bytes; a value is held in memory several times over on
// its way.
const (
	maxKey    = 2048
	maxValue  = 16 << 20
	maxOps    = 1024
	maxCommit = 32 << 20
)

// lockConns is how many connections are kept for the lock and the fence alone.
const lockConns = 2

// simple is the simple query protocol: one packet there, one result back. Whatever stands in the way, poolers for
// instance, understands it, and a call cannot be cut in the middle.
const simple = pgx.QueryExecModeSimpleProtocol

// Store is one node's way to the database: a [physical.Backend], a [physical.HABackend] and a [physical.Watcher].
type Store struct {
	cfg    Config
	caps   physical.Caps
	conns  conns.Set
	pool   *pgxpool.Pool // for entries
	calls  *pgxpool.Pool // for lock and fence: a lease must not wait behind entries
	schema schema
	user   string
	pooler bool
	group  *grouped.Committer
	seen   observed
	ear    *listener // nil where nobody can listen

	ctx      context.Context // ends with Close
	stop     context.CancelCauseFunc
	mu       sync.Mutex     // held to start a goroutine, and to stop
	tasks    sync.WaitGroup // of the goroutines that outlive a call
	closing  sync.Once
	finished chan struct{}
}

var (
	_ physical.Backend   = (*Store)(nil)
	_ physical.HABackend = (*Store)(nil)
	_ physical.Watcher   = (*Store)(nil)
)

// Open connects, makes the tables unless they are there, and returns the store. Where a right is missing the error
// says which, with the SQL to run. The caller closes the store.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg.ensureDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, finished: make(chan struct{})}
	s.ctx, s.stop = context.WithCancelCause(context.Background())
	if err := s.connect(ctx); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// connect finds out how the database can be talked to, and prepares it.
func (s *Store) connect(ctx context.Context) error {
	conn, err := s.try(ctx, s.cfg.Pooler == PoolerYes)
	if err != nil && s.cfg.Pooler == PoolerDetect && refusesParameters(err) {
		conn, err = s.try(ctx, true)
	}
	if err != nil {
		return s.notSent(ctx, err)
	}
	defer func() {
		if conn != nil {
			conn.Release()
		}
	}()
	var schema, encoding string
	var pid uint32
	row := conn.QueryRow(ctx, `SELECT coalesce(current_schema(), 'public'), current_setting('server_encoding'), pg_backend_pid(), current_user`, simple)
	if err := row.Scan(&schema, &encoding, &pid, &s.user); err != nil {
		return s.failed(ctx, err, false)
	}
	if encoding != "UTF8" {
		return fmt.Errorf("postgresql: the database's encoding is %s; Locum needs one with ENCODING 'UTF8'", encoding)
	}
	if s.cfg.Pooler == PoolerDetect && !s.pooler && pid != conn.Conn().PgConn().PID() {
		conn.Release()
		s.pool.Close()
		if conn, err = s.try(ctx, true); err != nil {
			return s.notSent(ctx, err)
		}
	}
	if s.cfg.Schema != "" {
		schema = s.cfg.Schema
	}
	if !names.MatchString(schema) {
		return fmt.Errorf("postgresql: the schema %q needs quotes; set schema to one of lower-case letters, digits and \"_\"", schema)
	}
	s.schema = newSchema(schema, s.cfg.Prefix)
	if err := s.setUp(ctx, conn); err != nil {
		return err
	}
	return s.ready(ctx)
}

// try makes the pool and its first connection.
func (s *Store) try(ctx context.Context, pooler bool) (*pgxpool.Conn, error) {
	cfg, err := s.cfg.pool(&s.conns, pooler)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	conn, err := pool.Acquire(ctx)
	if err != nil {
		pool.Close()
		return nil, err
	}
	s.pool, s.pooler = pool, pooler
	return conn, nil
}

// refusesParameters reports whether a connection was refused for the settings that it asked for, as poolers do.
func refusesParameters(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && refused.Code == "08P01"
}

// ready fixes what the store can do.
func (s *Store) ready(ctx context.Context) error {
	s.group = grouped.New(s.ctx, limits, s.send)
	cfg, err := s.cfg.pool(&s.conns, s.pooler)
	if err != nil {
		return err
	}
	cfg.MaxConns = lockConns
	if s.calls, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return fmt.Errorf("postgresql: %w", plain(err))
	}
	if err := s.calls.Ping(ctx); err != nil { // the first call finds a connection
		return s.notSent(ctx, err)
	}
	if !s.pooler || s.cfg.ListenURL != "" {
		listen, err := s.cfg.listen(&s.conns)
		if err != nil {
			return err
		}
		s.ear = newListener(s, listen)
	} else {
		s.cfg.Logger.Warn("the database is reached through a transaction pooler: standbys poll the lock",
			"hint", "set listen_url to the database's own address")
	}
	s.caps = Caps()
	s.caps.Watch = s.ear != nil
	return nil
}

// Caps is what a store here can do where it can listen.
func Caps() physical.Caps {
	return physical.Caps{
		Name: "postgresql", Entries: true, HA: true, Watch: true, Shared: true,
		MaxKey: maxKey, MaxValue: maxValue, MaxOps: maxOps, MaxCommit: maxCommit,
		MinTTL: 500 * time.Millisecond, DefaultTTL: 5 * time.Second,
		Failover: "Unavailable until a server takes writes again; then a lock that nobody renews is held for one more TTL. Nothing acknowledged is lost if replication is synchronous.",
	}
}

// Caps says what the store can do.
func (s *Store) Caps() physical.Caps { return s.caps }

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

// Close ends all calls under way and all connections.
func (s *Store) Close() error {
	s.closing.Do(func() {
		defer close(s.finished)
		s.end()
		s.conns.Close()
		if s.group != nil {
			s.group.Wait()
		}
		for _, pool := range []*pgxpool.Pool{s.pool, s.calls} {
			if pool != nil {
				pool.Close()
			}
		}
		s.tasks.Wait()
	})
	<-s.finished
	return nil
}

func (s *Store) isClosed() bool { return s.ctx.Err() != nil }

// enter says why a call cannot be carried out, or nil.
func (s *Store) enter(ctx context.Context) error {
	if s.isClosed() {
		return physical.ErrClosed
	}
	return ctx.Err()
}

// query runs one statement that gives one row, and translates its error; writes says whether it changes anything.
func (s *Store) query(ctx context.Context, pool *pgxpool.Pool, writes bool, sql string, args []any, to ...any) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return s.notSent(ctx, err)
	}
	defer conn.Release()
	// The library's own word on whether anything was sent is of no use: the error of a closed connection takes the place of
	// the one that closed it.
	err = conn.QueryRow(ctx, sql, args...).Scan(to...)
	if errors.Is(err, pgx.ErrNoRows) {
		return physical.ErrNotFound
	}
	if err != nil && isReadOnly(err) {
		_ = conn.Conn().PgConn().Conn().Close() // the server was demoted: look for the one that takes writes
	}
	return s.failed(ctx, err, writes)
}

// text prepends the protocol to a statement's arguments.
func text(args ...any) []any { return append([]any{simple}, args...) }
