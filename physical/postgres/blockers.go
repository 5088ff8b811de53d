package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

// blockers ends the sessions that have held a lock on the fence for more than a second: those in the middle of a commit
// whose client has gone silent, and those of people who have left a transaction open. Since when a session of another role is in its
// transaction is hidden from roles without the right to see it; it is left alone.
const blockers = `
SELECT a.pid, coalesce(a.usename, ''), coalesce(a.application_name, ''), a.xact_start IS NULL,
  CASE WHEN a.xact_start IS NULL THEN false ELSE pg_terminate_backend(a.pid) END
FROM pg_stat_activity a
WHERE a.pid <> pg_backend_pid() AND (a.xact_start IS NULL OR a.xact_start < clock_timestamp() - interval '1 second') AND EXISTS (
  SELECT 1 FROM pg_locks l WHERE l.pid = a.pid AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND (
    l.locktype = 'advisory' AND l.classid = '@fence'::regclass AND l.objid = 0 AND l.objsubid = 2
    OR l.locktype = 'relation' AND l.relation = '@fence'::regclass AND l.mode NOT IN ('AccessShareLock')))`

// errBlocked is a raise that timed out because another session holds what it needs.
var errBlocked = errors.New("another session holds the fence")

// blocked reports whether a raise failed because of a session that has now been ended, so that it is worth another try. The
// sessions that are ended were silent or blocked themselves; what they were doing is rolled back.
func (s *Store) blocked(ctx context.Context, failure error) bool {
	if !errors.Is(failure, errBlocked) {
		return false
	}
	conn, err := s.calls.Acquire(ctx)
	if err != nil {
		return false
	}
	defer conn.Release()
	rows, _ := conn.Query(ctx, s.schema.expand(blockers), simple)
	type session struct {
		PID               int32
		User, Application string
		Hidden, Ended     bool
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[session])
	hint := "GRANT pg_read_all_stats, pg_signal_backend TO " + quote(s.user)
	if err != nil {
		s.cfg.Logger.Warn("a session blocks the fence and cannot be ended", "error", plain(err), "hint", hint)
		return false
	}
	for _, b := range found {
		if b.Hidden {
			s.cfg.Logger.Warn("a session of another role blocks the fence, and this role must not look into it", "pid", b.PID, "user", b.User, "hint", hint)
			return false
		}
		s.cfg.Logger.Warn("ended a session that blocked the fence", "pid", b.PID, "user", b.User, "application", b.Application, "ended", b.Ended)
	}
	if len(found) == 0 { // many short ones: wait for a gap
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
	return ctx.Err() == nil
}
