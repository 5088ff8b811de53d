package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/locum-ha/locum/physical"
)

// Commit applies all ops or none.
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
	text, args := s.schema.commit(want, ops)
	var verdict string
	err := s.on(ctx, true, func(conn *sql.Conn) (err error) {
		for try := range deadlockTries {
			err = conn.QueryRowContext(ctx, text, args...).Scan(&verdict)
			if number(err) != errnoDeadlock {
				break
			}
			pause(ctx, try)
		}
		if err != nil {
			discard(conn)
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case verdict == "f":
		return fmt.Errorf("%w: the store's fence is not %v", physical.ErrFenced, want)
	case verdict != "":
		return fmt.Errorf("%w: a condition does not hold", physical.ErrConflict)
	}
	return nil
}

// deadlockTries bounds how often a commit that was rolled back for a deadlock is tried again.
const deadlockTries = 8

// pause waits a moment, longer each time.
func pause(ctx context.Context, try int) {
	timer := time.NewTimer(rand.N(time.Millisecond << min(try, 5)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// commit makes the text of a commit, which ends in a query for what became of it: "" done, "f" fenced, "c" a condition
// does not hold. If a statement fails, those behind it are not carried out, and the session must be given up.
func (s schema) commit(fence physical.Fence, ops []physical.Op) (string, []any) {
	var b strings.Builder
	var args []any
	add := func(text string, more ...any) {
		b.WriteString(text)
		args = append(args, more...)
	}
	add("START TRANSACTION; ")
	if locks := hashes(ops); len(locks) > 0 {
		add("SELECT COUNT(*) INTO @locum_rows FROM " + s.keys + " WHERE b IN (" + locks + ") FOR UPDATE; ")
	}
	// The row is shared first and read afterwards: what is read then is what holds until the commit.
	add("SELECT COUNT(*) INTO @locum_rows FROM " + s.fence + " WHERE id = 1 LOCK IN SHARE MODE; ")
	add("SELECT IF((SELECT COUNT(*) FROM "+s.fence+" WHERE id = 1 AND lineage = ? AND term = ? AND nonce = ?) = 0, 'f', IF(1",
		[]byte(fence.Lineage), fence.Term, fence.Nonce[:])
	var puts, deletes []physical.Op
	for _, op := range ops {
		switch op.Kind {
		case physical.OpRequireAbsent:
			add(" AND (SELECT COUNT(*) FROM "+s.entries+" WHERE k = ?) = 0", []byte(op.Key))
		case physical.OpRequireValue:
			add(" AND (SELECT COUNT(*) FROM "+s.entries+" WHERE k = ? AND v = ?) = 1", []byte(op.Key), notNull(op.Value))
		case physical.OpPut:
			puts = append(puts, op)
		case physical.OpDelete:
			deletes = append(deletes, op)
		}
	}
	add(", '', 'c')) INTO @locum; ")
	if len(puts) > 0 {
		add("INSERT INTO " + s.entries + " (k, v) SELECT d.k, d.v FROM (")
		for i, op := range puts {
			if i == 0 {
				add("SELECT ? AS k, ? AS v", []byte(op.Key), notNull(op.Value))
			} else {
				add(" UNION ALL SELECT ?, ?", []byte(op.Key), notNull(op.Value))
			}
		}
		add(") d WHERE @locum = '' ON DUPLICATE KEY UPDATE v = VALUES(v); ")
	}
	if len(deletes) > 0 {
		add("DELETE FROM " + s.entries + " WHERE @locum = '' AND k IN (?" + strings.Repeat(", ?", len(deletes)-1) + "); ")
		for _, op := range deletes {
			args = append(args, []byte(op.Key))
		}
	}
	add("COMMIT; SELECT @locum")
	return b.String(), args
}

// hashes lists the locks of all keys, ascending.
func hashes(ops []physical.Op) string {
	var all []int
	for _, op := range ops {
		h := fnv.New32a()
		_, _ = h.Write([]byte(op.Key))
		all = append(all, int(h.Sum32()%keyLocks))
	}
	slices.Sort(all)
	var b strings.Builder
	for i, h := range slices.Compact(all) {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprint(&b, h)
	}
	return b.String()
}

// notNull is a value that is not NULL, the empty one included.
func notNull(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}
