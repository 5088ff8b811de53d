package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"

	client "github.com/go-sql-driver/mysql"

	"github.com/locum-ha/locum/physical"
)

// Error numbers that mean something of their own here.
const (
	errnoDeadlock    = 1213
	errnoLockTimeout = 1205
	errnoBinlog      = 1665
	errnoManyRows    = 1242 // of a subquery that may have one: see commitAll
	errnoDuplicate   = 1062 // see commitAll
)

var (
	// passing: the server cannot serve now, and may be later. It did nothing.
	passing = []uint16{
		1040, 1041, 1037, 1038, 1203, 1226, // too many connections, out of memory, over a quota
		1290, 1792, 1836, // read-only
		errnoDeadlock, errnoLockTimeout, 1206, 3024, 1969, // locks, limits of time
		1021, 1114, // full disk, full table
		1047, // a server of Galera that has lost its cluster
	}
	// unclear: the server or the session was ended; what it was doing is perhaps done.
	unclear = []uint16{1053, 1077, 1078, 1079, 1105, 1152, 1158, 1159, 1160, 1161, 1180, 1184, 1317, 1927, 3169}
	// rights: something is not allowed, or not there.
	rights = []uint16{1044, 1045, 1142, 1143, 1227, 1370}
	gone   = []uint16{1146, 1054, 1049}
)

// number returns the server's number for an error that it answered with, or 0.
func number(err error) uint16 {
	var said *client.MySQLError
	if errors.As(err, &said) {
		return said.Number
	}
	return 0
}

// notSent translates an error from before anything was sent: no connection was to be had.
func (s *Store) notSent(ctx context.Context, err error) error {
	switch {
	case s.isClosed():
		return physical.ErrClosed
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case slices.Contains(rights, number(err)):
		return fmt.Errorf("mysql: %w", plain(err))
	}
	return fmt.Errorf("%w: no connection to MySQL: %w", physical.ErrUnavailable, plain(err))
}

// failed translates the error of a statement that was sent; writes says whether it changes anything.
func (s *Store) failed(ctx context.Context, err error, writes bool) error {
	n := number(err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrNoRows):
		return physical.ErrNotFound
	case errors.Is(err, driver.ErrBadConn):
		return s.notSent(ctx, err)
	case n != 0 && !slices.Contains(unclear, n):
		return s.refused(n, err)
	case writes && ctx.Err() != nil:
		return fmt.Errorf("%w: %w", physical.ErrUnknown, context.Cause(ctx))
	case writes:
		return fmt.Errorf("%w: %w", physical.ErrUnknown, plain(err))
	}
	return s.notSent(ctx, err)
}

// refused translates what the server refused and did not do.
func (s *Store) refused(n uint16, err error) error {
	switch {
	case n == errnoLockTimeout:
		return fmt.Errorf("%w: MySQL: %w", physical.ErrUnavailable, errLockTimeout)
	case slices.Contains(passing, n):
		return fmt.Errorf("%w: MySQL: %w", physical.ErrUnavailable, plain(err))
	case slices.Contains(rights, n):
		return fmt.Errorf("MySQL: %w; run as an administrator:\n%s", plain(err), s.schema.grants(s.cfg.Username))
	case slices.Contains(gone, n):
		return fmt.Errorf("MySQL: %w: the tables of this storage are gone; start the node again to have them made", plain(err))
	case n == errnoBinlog:
		return fmt.Errorf("MySQL: %w: set binlog_format to ROW or MIXED", plain(err))
	}
	return fmt.Errorf("MySQL: %w", plain(err))
}

// plain makes an error of text: no type of the client library leaves this package.
func plain(err error) error {
	var said *client.MySQLError
	switch {
	case errors.As(err, &said):
		return fmt.Errorf("%s (error %d)", said.Message, said.Number)
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("no answer in time")
	}
	return errors.New(err.Error())
}
