package postgres

import (
	"context"
	"fmt"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/locum-ha/locum/physical"
)

// Get returns the entry at key.
func (s *Store) Get(ctx context.Context, key string) (*physical.Entry, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	if err := physical.CheckKey(key); err != nil {
		return nil, err
	}
	e := &physical.Entry{Key: key}
	err := s.query(ctx, s.pool, false, "SELECT value FROM "+s.schema.entries+" WHERE key = $1", []any{key}, &e.Value)
	if err != nil {
		return nil, err
	}
	return e, nil
}

// list walks the keys below a prefix. From each it jumps to the first key that gives another name, so a folder costs
// one step, however much is in it. No key has control characters: key || chr(1) is where the next one can begin.
const list = `
WITH RECURSIVE walk(key) AS (
  (SELECT key FROM @entries WHERE key >= $2 AND key < $3 ORDER BY key LIMIT 1)
  UNION ALL
  SELECT (SELECT e.key FROM @entries e WHERE e.key < $3 AND e.key >=
      CASE WHEN strpos(substr(w.key, $4), '/') > 0 THEN $1 || split_part(substr(w.key, $4), '/', 1) || '0' ELSE w.key || chr(1) END COLLATE "C"
    ORDER BY e.key LIMIT 1)
  FROM walk w WHERE w.key IS NOT NULL
)
SELECT name FROM (
  SELECT CASE WHEN strpos(substr(key, $4), '/') > 0 THEN split_part(substr(key, $4), '/', 1) || '/' ELSE substr(key, $4) END AS name
  FROM walk WHERE key IS NOT NULL
) names WHERE convert_to(name, 'UTF8') > $5::bytea LIMIT $6`

// end stands behind all keys: no UTF-8 sorts behind it.
const end = "\U0010FFFF\U0010FFFF"

// List returns the direct children of prefix, as they were at one instant.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	if err := physical.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	last := end
	if prefix != "" {
		last = prefix[:len(prefix)-1] + "0" // "0" is the byte after "/"
	}
	var rows any // NULL: no limit
	if limit > 0 {
		rows = int64(limit)
	}
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, s.notSent(ctx, err)
	}
	defer conn.Release()
	found, _ := conn.Query(ctx, s.schema.expand(list), prefix, prefix+readable(after), last, int32(len([]rune(prefix))+1), []byte(after), rows)
	names, err := pgx.CollectRows(found, pgx.RowTo[string])
	if err != nil {
		return nil, s.failed(ctx, err, false)
	}
	return names, nil
}

// readable is as much of after as can stand in a key: the walk begins there, and passes over what is not greater.
func readable(after string) string {
	for i, r := range after {
		if r == 0 || r == utf8.RuneError {
			return after[:i]
		}
	}
	return after
}

// Commit applies all ops or none. It may go together with others that are waiting.
func (s *Store) Commit(ctx context.Context, fence *physical.Fence, ops ...physical.Op) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	if err := s.caps.Check(ops); err != nil {
		return err
	}
	var want physical.Fence
	if fence != nil {
		if fence.IsZero() {
			return fmt.Errorf("%w: a fence without a lineage", physical.ErrFenced)
		}
		want = *fence
	}
	if _, _, err := terms(want.Term, 0); err != nil {
		return err
	}
	return s.group.Commit(ctx, want, ops)
}

// RaiseFence replaces the fence from by to.
func (s *Store) RaiseFence(ctx context.Context, from, to physical.Fence) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	if !from.Below(to) {
		return fmt.Errorf("%w: %v is not above %v", physical.ErrFenced, to, from)
	}
	fromTerm, toTerm, err := terms(from.Term, to.Term)
	if err != nil {
		return err
	}
	args := text(from.Lineage, fromTerm, from.Nonce[:], to.Lineage, toTerm, to.Nonce[:])
	for {
		var raised bool
		err := s.query(ctx, s.calls, true, "SELECT "+s.schema.raise+"($1::text, $2::bigint, $3::bytea, $4::text, $5::bigint, $6::bytea)", args, &raised)
		switch {
		case err == nil && raised:
			return nil
		case err == nil:
			return fmt.Errorf("%w: the store's fence is not %v", physical.ErrFenced, from)
		case !s.blocked(ctx, err):
			return err
		}
	}
}

// Fence returns the stored fence.
func (s *Store) Fence(ctx context.Context) (physical.Fence, error) {
	var f physical.Fence
	var term int64
	var nonce []byte
	var format int
	err := s.query(ctx, s.calls, false, "SELECT lineage, term, nonce, format FROM "+s.schema.fence+" WHERE id = 1", nil, &f.Lineage, &term, &nonce, &format)
	if err != nil {
		return physical.Fence{}, err
	}
	f.Term = uint64(term)
	copy(f.Nonce[:], nonce)
	return f, newer(s.schema.fence, format)
}

// terms gives the numbers as the database keeps them.
func terms(a, b uint64) (int64, int64, error) {
	if int64(a) < 0 || int64(b) < 0 {
		return 0, 0, fmt.Errorf("%w: a term above 2^63-1", physical.ErrInvalid)
	}
	return int64(a), int64(b), nil
}
