package mysql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"time"

	client "github.com/go-sql-driver/mysql"

	"github.com/locum-ha/locum/internal/conns"
)

// connector connects to the first server that takes writes, and sets up the session. It is what the pool makes
// connections with.
type connector struct {
	cfg     *Config
	options *client.Config

	mu     sync.Mutex
	silent map[string]time.Time // servers that did not answer in time, and until when they come last

	warned sync.Once // that replicas cannot be told
}

var _ driver.Connector = (*connector)(nil)

func newConnector(cfg *Config, set *conns.Set) (*connector, error) {
	o, err := cfg.options(set)
	return &connector{cfg: cfg, options: o, silent: make(map[string]time.Time)}, err
}

// Driver is asked for by database/sql.
func (c *connector) Driver() driver.Driver { return &client.MySQLDriver{} }

// errReadOnly: a server takes no writes, being a replica.
var errReadOnly = errors.New("the server is read-only")

// silence is for how long a server comes last that took longer to answer than it may.
const silence = 10 * time.Second

// Connect tries the servers in turn. A frozen one takes connections and says nothing: it gets its part of the caller's time and
// no more, so that the next one can be reached too.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	var faults []error
	servers := c.order()
	for i, address := range servers {
		limit := dialTimeout
		if deadline, ok := ctx.Deadline(); ok {
			limit = min(limit, time.Until(deadline)/time.Duration(len(servers)-i))
		}
		conn, err := c.one(ctx, address, limit)
		if err == nil {
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		faults = append(faults, fmt.Errorf("%s: %w", address, err))
	}
	return nil, errors.Join(faults...)
}

// order is the servers as configured, those last that were silent lately.
func (c *connector) order() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	var servers, last []string
	for _, address := range c.cfg.Addresses {
		if now.Before(c.silent[address]) {
			last = append(last, address)
		} else {
			servers = append(servers, address)
		}
	}
	return append(servers, last...)
}

// session is what every session needs: strings are bytes, each statement sees what was committed before it began, and no
// statement waits long for a lock.
const session = "SET NAMES binary; SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; " +
	"SET SESSION autocommit = 1, innodb_lock_wait_timeout = 2, sql_mode = 'STRICT_ALL_TABLES'"

// one connects to a server within limit.
func (c *connector) one(ctx context.Context, address string, limit time.Duration) (driver.Conn, error) {
	o, err := c.cfg.at(c.options, address)
	if err != nil {
		return nil, err
	}
	base, err := client.NewConnector(o)
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := base.Connect(limited)
	if err == nil {
		err = prepare(limited, conn)
		if err == nil && len(c.cfg.Addresses) > 1 && !c.cfg.SingleWriter {
			err = c.primary(limited, conn)
		}
		if err != nil {
			_ = conn.Close()
		}
	}
	if err != nil && limited.Err() != nil {
		c.mu.Lock()
		c.silent[address] = time.Now().Add(silence)
		c.mu.Unlock()
	}
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// prepare sets up a session. It returns errReadOnly where nothing can be written.
func prepare(ctx context.Context, conn driver.Conn) error {
	if _, err := conn.(driver.ExecerContext).ExecContext(ctx, session, nil); err != nil {
		return err
	}
	rows, err := conn.(driver.QueryerContext).QueryContext(ctx, "SELECT @@global.read_only", nil)
	if err != nil {
		return err
	}
	values := make([]driver.Value, 1)
	err = errors.Join(rows.Next(values), rows.Close())
	if err == nil && !writable(values[0]) {
		err = errReadOnly
	}
	return err
}
