package mysql

import (
	"context"
	"database/sql"
	"errors"
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
	return s.group.Commit(ctx, want, ops)
}

// deadlockTries bounds how often a group of commits that was rolled back for a deadlock is tried again.
const deadlockTries = 8

// send carries out commits, and returns the result of each: in the short form if the fence stands and all conditions hold; else
// each by what holds for it.
func (s *Store) send(ctx context.Context, fence physical.Fence, commits [][]physical.Op) []error {
	results := make([]error, len(commits))
	all, allArgs := s.schema.commitAll(fence, commits)
	var whole bool // everything was carried out
	var verdict, conditions string
	err := s.on(ctx, s.db, true, func(conn *sql.Conn) error {
		err := persist(ctx, conn, func() error {
			_, err := conn.ExecContext(ctx, all, allArgs...)
			return err
		})
		if whole = err == nil; !refuted(err) {
			return err
		}
		text, args := s.schema.commit(fence, commits)
		return persist(ctx, conn, func() error { return conn.QueryRowContext(ctx, text, args...).Scan(&verdict, &conditions) })
	})
	if err != nil && !errors.Is(err, physical.ErrUnknown) && !errors.Is(err, physical.ErrUnavailable) && ctx.Err() == nil && len(commits) > 1 {
		for i := range commits { // one of them is to blame
			results[i] = s.send(ctx, fence, commits[i:i+1])[0]
		}
		return results
	}
	if whole {
		return results
	}
	for i, ops := range commits {
		holds := true
		if slices.ContainsFunc(ops, physical.Op.IsCondition) && err == nil && verdict == "" {
			holds = strings.HasPrefix(conditions, "+")
			conditions = conditions[min(1, len(conditions)):]
		}
		switch {
		case err != nil:
			results[i] = err
		case verdict != "":
			results[i] = fmt.Errorf("%w: the store's fence is not %v", physical.ErrFenced, fence)
		case !holds:
			results[i] = fmt.Errorf("%w: a condition does not hold", physical.ErrConflict)
		}
	}
	return results
}

// persist makes a call again that was rolled back for a deadlock. After any other failure the session is given up; one that failed
// for what commitAll requires is rolled back.
func persist(ctx context.Context, conn *sql.Conn, call func() error) (err error) {
	for try := range deadlockTries {
		if err = call(); number(err) != errnoDeadlock {
			break
		}
		pause(ctx, try)
	}
	if err == nil {
		return nil
	}
	if refuted(err) {
		if _, ended := conn.ExecContext(ctx, "ROLLBACK"); ended == nil {
			return err
		}
	}
	discard(conn)
	return err
}

// refuted reports whether commitAll failed for what it takes for granted.
func refuted(err error) bool {
	return number(err) == errnoManyRows || number(err) == errnoDuplicate
}

// pause waits a moment, longer each time.
func pause(ctx context.Context, try int) {
	timer := time.NewTimer(rand.N(time.Millisecond << min(try, 5)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// builder puts a text of several statements together.
type builder struct {
	strings.Builder
	args []any
}

func (b *builder) add(text string, args ...any) {
	b.WriteString(text)
	b.args = append(b.args, args...)
}

// begin opens the transaction and takes the locks of commits.
func (s schema) begin(b *builder, commits [][]physical.Op) {
	b.add("START TRANSACTION; ")
	if locks := hashes(commits); len(locks) > 0 {
		b.add("SELECT COUNT(*) INTO @locum_rows FROM " + s.keys + " FORCE INDEX (PRIMARY) WHERE b IN (" + locks + ") FOR UPDATE; ")
	}
}

// commitAll makes the text of commits that share a fence and no key, for the case that the fence stands and all their conditions
// hold. If not, the statement that reads the fence fails, as a subquery with two rows does, or the one that makes entries which must not be there yet;
// and those behind it are not carried out.
func (s schema) commitAll(fence physical.Fence, commits [][]physical.Op) (string, []any) {
	b := &builder{}
	s.begin(b, commits)
	b.add("SELECT IF(COUNT(*) = 1")
	var absent, fresh, puts []any
	deletes := &builder{}
	for _, ops := range commits {
		for _, op := range ops {
			switch key := []byte(op.Key); op.Kind {
			case physical.OpRequireAbsent:
				if !has(ops, physical.OpPut, op.Key) {
					absent = append(absent, key)
				}
			case physical.OpRequireValue:
				b.add(" AND (SELECT COUNT(*) FROM "+s.entries+" WHERE k = ? AND v = ?) = 1", key, notNull(op.Value))
			case physical.OpPut:
				if has(ops, physical.OpRequireAbsent, op.Key) {
					fresh = append(fresh, key, notNull(op.Value))
				} else {
					puts = append(puts, key, notNull(op.Value))
				}
			case physical.OpDelete:
				deletes.add("DELETE FROM "+s.entries+" WHERE k = ?; ", key)
			}
		}
	}
	if len(absent) > 0 {
		b.add(" AND (SELECT COUNT(*) FROM "+s.entries+" FORCE INDEX (PRIMARY) WHERE k IN (?"+strings.Repeat(",?", len(absent)-1)+")) = 0", absent...)
	}
	b.add(", 1, (SELECT 1 UNION SELECT 2)) INTO @locum_rows")
	// A read that locks reads what holds until the commit.
	b.add(" FROM "+s.fence+" WHERE id = 1 AND lineage = ? AND term = ? AND nonce = ? LOCK IN SHARE MODE; ", []byte(fence.Lineage), fence.Term, fence.Nonce[:])
	insert := func(rows []any, end string) {
		if len(rows) > 0 {
			b.add("INSERT INTO "+s.entries+" (k, v) VALUES (?,?)"+strings.Repeat(",(?,?)", len(rows)/2-1)+end, rows...)
		}
	}
	insert(fresh, "; ")
	insert(puts, " ON DUPLICATE KEY UPDATE v = VALUES(v); ")
	b.add(deletes.String()+"COMMIT", deletes.args...)
	return b.String(), b.args
}

// has reports whether there is an op of a kind for a key.
func has(ops []physical.Op, kind physical.OpKind, key string) bool {
	return slices.ContainsFunc(ops, func(o physical.Op) bool { return o.Kind == kind && o.Key == key })
}

// commit makes the text of commits that share a fence and no key. It ends in a query for what became of them: "" or "f" for
// fenced, and "+" or "c" for each commit with conditions, in order. If a statement fails, those behind it are not carried out, and
// the session must be given up.
func (s schema) commit(fence physical.Fence, commits [][]physical.Op) (string, []any) {
	b := &builder{}
	s.begin(b, commits)
	// The row is shared first and read afterwards: what is read then is what holds until the commit.
	b.add("SELECT COUNT(*) INTO @locum_rows FROM " + s.fence + " WHERE id = 1 LOCK IN SHARE MODE; ")
	b.add("SELECT IF((SELECT COUNT(*) FROM "+s.fence+" WHERE id = 1 AND lineage = ? AND term = ? AND nonce = ?) = 0, 'f', '') INTO @locum; ",
		[]byte(fence.Lineage), fence.Term, fence.Nonce[:])
	var said []string
	for i, ops := range commits {
		only := "@locum = ''"
		if slices.ContainsFunc(ops, physical.Op.IsCondition) {
			variable := fmt.Sprintf("@locum%d", i)
			said = append(said, variable)
			only += " AND " + variable + " = '+'"
			s.conditions(b, ops, variable)
		}
		s.writes(b, ops, only)
	}
	b.add("COMMIT; SELECT @locum, CONCAT(''")
	for _, variable := range said {
		b.add(", " + variable)
	}
	b.add(")")
	return b.String(), b.args
}

// conditions finds out whether all conditions of a commit hold.
func (s schema) conditions(b *builder, ops []physical.Op, variable string) {
	b.add("SELECT IF(1")
	for _, op := range ops {
		switch op.Kind {
		case physical.OpRequireAbsent:
			b.add(" AND (SELECT COUNT(*) FROM "+s.entries+" WHERE k = ?) = 0", []byte(op.Key))
		case physical.OpRequireValue:
			b.add(" AND (SELECT COUNT(*) FROM "+s.entries+" WHERE k = ? AND v = ?) = 1", []byte(op.Key), notNull(op.Value))
		}
	}
	b.add(", '+', 'c') INTO " + variable + "; ")
}

// writes carries out the writes of a commit if only holds. One by one: several rows would go through a temporary table, which
// for values is one on disk, and a list of keys might be looked for by another plan than that by the key.
func (s schema) writes(b *builder, ops []physical.Op, only string) {
	for _, op := range ops {
		switch op.Kind {
		case physical.OpPut:
			b.add("INSERT INTO "+s.entries+" (k, v) SELECT ?, ? FROM DUAL WHERE "+only+" ON DUPLICATE KEY UPDATE v = VALUES(v); ",
				[]byte(op.Key), notNull(op.Value))
		case physical.OpDelete:
			b.add("DELETE FROM "+s.entries+" WHERE k = ? AND "+only+"; ", []byte(op.Key))
		}
	}
}

// hashes lists the locks of all keys, ascending.
func hashes(commits [][]physical.Op) string {
	var all []int
	for _, ops := range commits {
		for _, op := range ops {
			h := fnv.New32a()
			_, _ = h.Write([]byte(op.Key))
			all = append(all, int(h.Sum32()%keyLocks))
		}
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
