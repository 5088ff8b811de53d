package mysql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	client "github.com/go-sql-driver/mysql"

	"github.com/locum-ha/locum/internal/conns"
)

// connector connects to the first server that takes writes, and sets up the session. It is what the pool makes
// connections with.
type connector struct {
	cfg     *Config
	options *client.Config
}

var _ driver.Connector = (*connector)(nil)

func newConnector(cfg *Config, set *conns.Set) (*connector, error) {
	o, err := cfg.options(set)
	return &connector{cfg: cfg, options: o}, err
}

// Driver is asked for by database/sql.
func (c *connector) Driver() driver.Driver { return &client.MySQLDriver{} }

// errReadOnly: a server takes no writes, being a replica.
var errReadOnly = errors.New("the server is read-only")

// Connect tries the servers in turn.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	var faults []error
	for _, address := range c.cfg.Addresses {
		conn, err := c.one(ctx, address)
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

// session is what every session needs: strings are bytes, each statement sees what was committed before it began, and no
// statement waits long for a lock.
const session = "SET NAMES binary; SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; " +
	"SET SESSION autocommit = 1, innodb_lock_wait_timeout = 2, sql_mode = 'STRICT_ALL_TABLES'"

func (c *connector) one(ctx context.Context, address string) (_ driver.Conn, err error) {
	o, err := c.cfg.at(c.options, address)
	if err != nil {
		return nil, err
	}
	base, err := client.NewConnector(o)
	if err != nil {
		return nil, err
	}
	conn, err := base.Connect(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	if _, err := conn.(driver.ExecerContext).ExecContext(ctx, session, nil); err != nil {
		return nil, err
	}
	rows, err := conn.(driver.QueryerContext).QueryContext(ctx, "SELECT @@global.read_only", nil)
	if err != nil {
		return nil, err
	}
	values := make([]driver.Value, 1)
	err = errors.Join(rows.Next(values), rows.Close())
	if err == nil && values[0] != int64(0) {
		err = errReadOnly
	}
	return conn, err
}
