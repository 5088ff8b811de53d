package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"
)

// blockedFor is how long a raise waits before it looks for who blocks it.
const blockedFor = time.Second

// raise runs the statement that raises the fence, and meanwhile ends the sessions that block it.
func (s *Store) raise(ctx context.Context, text string, args ...any) (raised bool, err error) {
	for {
		err = s.on(ctx, s.calls, true, func(conn *sql.Conn) error {
			var id int64
			if err := conn.QueryRowContext(ctx, "SELECT CONNECTION_ID()").Scan(&id); err != nil {
				return err
			}
			watching, stop := context.WithCancel(ctx)
			var watch sync.WaitGroup
			watch.Go(func() { s.unblock(watching, id) })
			defer watch.Wait()
			defer stop()
			result, err := conn.ExecContext(ctx, text, args...)
			if err != nil {
				return err
			}
			rows, _ := result.RowsAffected() // this driver always knows
			raised = rows == 1
			return nil
		})
		if !errors.Is(err, errLockTimeout) || ctx.Err() != nil {
			return raised, err
		}
	}
}

// errLockTimeout: a statement waited too long for a lock; it did nothing.
var errLockTimeout = errors.New("another session holds the row")

// unblock ends, once a second until ctx ends, the sessions for which the session id has waited.
func (s *Store) unblock(ctx context.Context, id int64) {
	ticker := time.NewTicker(blockedFor)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		sessions, err := s.blockers(ctx, id)
		if err != nil && ctx.Err() == nil {
			s.cfg.Logger.Warn("the fence is blocked, and the sessions that block it cannot be told", "error", plain(err), "hint", "GRANT PROCESS ON *.* TO "+s.cfg.Username)
			sessions, err = s.idle(ctx)
		}
		if err != nil {
			continue
		}
		for _, session := range sessions {
			_, err := s.calls.ExecContext(ctx, fmt.Sprintf("KILL CONNECTION %d", session))
			s.cfg.Logger.Warn("ended a session that blocked the fence", "session", session, "ended", err == nil)
		}
	}
}

// waits tells who blocks a session: in MariaDB, and in MySQL 8.
var waits = []string{
	"SELECT DISTINCT b.trx_mysql_thread_id FROM information_schema.INNODB_LOCK_WAITS w " +
		"JOIN information_schema.INNODB_TRX r ON r.trx_id = w.requesting_trx_id JOIN information_schema.INNODB_TRX b ON b.trx_id = w.blocking_trx_id " +
		"WHERE r.trx_mysql_thread_id = ? AND b.trx_started < NOW() - INTERVAL 1 SECOND",
	"SELECT DISTINCT b.trx_mysql_thread_id FROM performance_schema.data_lock_waits w " +
		"JOIN information_schema.INNODB_TRX r ON r.trx_id = w.REQUESTING_ENGINE_TRANSACTION_ID JOIN information_schema.INNODB_TRX b ON b.trx_id = w.BLOCKING_ENGINE_TRANSACTION_ID " +
		"WHERE r.trx_mysql_thread_id = ? AND b.trx_started < NOW() - INTERVAL 1 SECOND",
}

// blockers lists the sessions that have held for more than a second what the session id waits for.
func (s *Store) blockers(ctx context.Context, id int64) (sessions []int64, err error) {
	for _, query := range waits {
		if sessions, err = s.sessions(ctx, query, id); err == nil {
			return sessions, nil
		}
	}
	return nil, err
}

// idle lists the sessions of this user that have done nothing for more than a second: without the right to see
// transactions, one of them may be the one. Their clients, if they live, connect anew.
func (s *Store) idle(ctx context.Context) ([]int64, error) {
	return s.sessions(ctx, "SELECT ID FROM information_schema.PROCESSLIST WHERE COMMAND = 'Sleep' AND TIME >= 1 AND DB = DATABASE() AND USER = ? AND ID <> CONNECTION_ID()", s.cfg.Username)
}

func (s *Store) sessions(ctx context.Context, query string, args ...any) (ids []int64, err error) {
	rows, err := s.calls.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}
