package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync"
	"time"

	"github.com/locum-ha/locum/internal/conns"
	"github.com/locum-ha/locum/internal/grouped"
	"github.com/locum-ha/locum/physical"
)

const (
	maxKey = 2048
	maxOps = 1024
	// mostValue bounds a value even where the server takes longer packets: it is held in memory several times over on
	// its way.
	mostValue = 16 << 20
)

// Store is one node's way to the database: a [physical.Backend] and a [physical.HABackend].
type Store struct {
	cfg    Config
	caps   physical.Caps
	conns  conns.Set
	db     *sql.DB // for entries
	calls  *sql.DB // for lock and fence: a lease must not wait behind entries
	schema schema
	seen   observed
	group  *grouped.Committer

	ctx      context.Context // ends with Close
	stop     context.CancelCauseFunc
	closing  sync.Once
	finished chan struct{}
}

var (
	_ physical.Backend   = (*Store)(nil)
	_ physical.HABackend = (*Store)(nil)
)

// Open connects, makes the tables unless they are there, and returns the store. Where a right is missing the error
// says which, with the SQL to run. The caller closes the store.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg.ensureDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, schema: newSchema(cfg.Database, cfg.Prefix), finished: make(chan struct{})}
	connector, err := newConnector(&s.cfg, &s.conns)
	if err != nil {
		return nil, err
	}
	s.ctx, s.stop = context.WithCancelCause(context.Background())
	s.db, s.calls = pool(connector, cfg.MaxConns), pool(connector, lockConns)
	if err := s.prepare(ctx); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// lockConns is how many connections are kept for the lock and the fence alone. A raise that is blocked needs two.
const lockConns = 3

// pool makes a pool of up to n connections.
func pool(c driver.Connector, n int) *sql.DB {
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	db.SetConnMaxLifetime(time.Hour)
	db.SetConnMaxIdleTime(5 * time.Minute)
	return db
}

// prepare finds out what the server can do, and makes the tables.
func (s *Store) prepare(ctx context.Context) error {
	l, err := s.ask(ctx)
	if err != nil {
		return err
	}
	if err := l.unfit(s.cfg.SingleWriter); err != nil {
		return err
	}
	s.caps = Caps(l.packet)
	s.group = grouped.New(s.ctx, grouped.Limits{Flights: 2, Commits: 64, Ops: maxOps, Bytes: s.caps.MaxCommit / 2}, s.send)
	return s.setUp(ctx)
}

// slack is room for the statements around keys and values.
const slack = 256 << 10

// Caps is what a store can do on a server with this max_allowed_packet. A value may double in a statement.
func Caps(packet int64) physical.Caps {
	most := int(packet/2) - slack
	return physical.Caps{
		Name: "mysql", Entries: true, HA: true, Shared: true,
		MaxKey: maxKey, MaxValue: min(most-maxKey, mostValue), MaxOps: maxOps, MaxCommit: min(most, 2*mostValue),
		MinTTL: 500 * time.Millisecond, DefaultTTL: 5 * time.Second,
		Failover: "Unavailable until a server takes writes again; if that is another one, a lock that nobody renews is held for one more TTL. Nothing acknowledged is lost if replication is synchronous.",
	}
}

// Caps says what the store can do.
func (s *Store) Caps() physical.Caps { return s.caps }

// Close ends all calls under way and all connections.
func (s *Store) Close() error {
	s.closing.Do(func() {
		defer close(s.finished)
		s.stop(physical.ErrClosed)
		s.conns.Close()
		if s.group != nil {
			s.group.Wait()
		}
		_, _ = s.db.Close(), s.calls.Close() // the connections are closed already, which they may complain of
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

// freshTries bounds how many dead connections of the pool a call may meet.
const freshTries = 4

// on makes a call on a connection of a pool, and translates its error. A connection that turns out to be dead before
// anything was sent is replaced.
func (s *Store) on(ctx context.Context, db *sql.DB, writes bool, call func(*sql.Conn) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	var err error
	for range freshTries {
		conn, dialled := db.Conn(ctx)
		if dialled != nil {
			return s.notSent(ctx, dialled)
		}
		err = call(conn)
		_ = conn.Close() // back to the pool
		if !errors.Is(err, driver.ErrBadConn) || s.isClosed() {
			break
		}
	}
	return s.failed(ctx, err, writes)
}

// query runs one statement that gives one row.
func (s *Store) query(ctx context.Context, db *sql.DB, writes bool, text string, args []any, to ...any) error {
	return s.on(ctx, db, writes, func(conn *sql.Conn) error {
		return conn.QueryRowContext(ctx, text, args...).Scan(to...)
	})
}

// change runs one statement that changes the lock, and returns how many, and the number that it left by LAST_INSERT_ID.
func (s *Store) change(ctx context.Context, text string, args ...any) (rows, id int64, err error) {
	err = s.on(ctx, s.calls, true, func(conn *sql.Conn) error {
		result, err := conn.ExecContext(ctx, text, args...)
		if err != nil {
			return err
		}
		rows, _ = result.RowsAffected() // this driver always knows
		id, _ = result.LastInsertId()
		return nil
	})
	return rows, id, err
}

// discard closes a connection instead of giving it back: a transaction may be open on it.
func discard(conn *sql.Conn) {
	_ = conn.Raw(func(any) error { return driver.ErrBadConn })
}
