package postgres

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	"github.com/locum-ha/locum/internal/grouped"
	"github.com/locum-ha/locum/physical"
)

// limits of one call. The bytes bound what a server keeps in memory for it.
var limits = grouped.Limits{Flights: 3, Commits: 128, Ops: 2 * maxOps, Bytes: maxCommit}

// mostLocks is how many keys a call locks one by one; a server has room for some 6400 such locks unless configured
// otherwise.
const mostLocks = 400

// send carries out commits in one call, and returns the result of each.
func (s *Store) send(ctx context.Context, fence physical.Fence, commits [][]physical.Op) []error {
	answer, err := s.call(ctx, fence, commits)
	for try := 0; try < 5 && rolledBack(err); try++ {
		answer, err = s.call(ctx, fence, commits)
	}
	results := make([]error, len(commits))
	if r := refusal(err); r != nil && !ending(r) && !passing(r) && len(commits) > 1 {
		for i := range commits { // one of them is to blame
			results[i] = s.send(ctx, fence, commits[i:i+1])[0]
		}
		return results
	}
	for i, said := range answer.of(len(commits)) {
		if err != nil {
			results[i] = s.uncommitted(ctx, err)
		} else {
			results[i] = result(said, fence)
		}
	}
	return results
}

// notSentError marks a call for which no connection was to be had.
type notSentError struct{ error }

func (s *Store) uncommitted(ctx context.Context, err error) error {
	var early notSentError
	if errors.As(err, &early) {
		return s.notSent(ctx, early.error)
	}
	return s.failed(ctx, err, true)
}

// answer is what the function said of a group.
type answer []string

// of spreads the answer over the n commits: "" done, "f" fenced, "c" and the key of a condition that does not hold.
func (a answer) of(n int) []string {
	all := make([]string, n)
	for _, text := range a {
		number, key, found := strings.Cut(text, ":")
		i, err := strconv.Atoi(number)
		switch {
		case text == "f":
			for i := range all {
				all[i] = "f"
			}
		case found && err == nil && i >= 0 && i < n:
			all[i] = "c" + key
		}
	}
	return all
}

// result translates what was said of one commit.
func result(said string, fence physical.Fence) error {
	switch {
	case said == "":
		return nil
	case said == "f":
		return fmt.Errorf("%w: the store's fence is not %v", physical.ErrFenced, fence)
	}
	return fmt.Errorf("%w: at %q", physical.ErrConflict, said[1:])
}

// call makes one call of the commit function.
func (s *Store) call(ctx context.Context, fence physical.Fence, commits [][]physical.Op) (answer, error) {
	args := arguments(fence, commits)
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, notSentError{err}
	}
	defer conn.Release()
	var said []string
	err = conn.QueryRow(ctx, "SELECT "+s.schema.commit+"($1::text, $2::bigint, $3::bytea, $4::integer[], $5::integer[], $6::text[], $7::bytea[], $8::integer[], $9::text[], $10::integer[], $11::text[], $12::bytea[])",
		args...).Scan(&said)
	if isReadOnly(err) {
		_ = conn.Conn().PgConn().Conn().Close() // the server was demoted: look for the one that takes writes
	}
	return said, err
}

// arguments packs commits as the function takes them.
func arguments(fence physical.Fence, commits [][]physical.Op) []any {
	conditionOf, deleteOf, putOf := []int32{}, []int32{}, []int32{}
	conditions, deletes, puts := []string{}, []string{}, []string{}
	expected, values := [][]byte{}, [][]byte{}
	hashes := map[int32]bool{}
	for i, ops := range commits {
		for _, op := range ops {
			hashes[hash(op.Key)] = true
			switch op.Kind {
			case physical.OpPut:
				putOf, puts, values = append(putOf, int32(i)), append(puts, op.Key), append(values, notNull(op.Value))
			case physical.OpDelete:
				deleteOf, deletes = append(deleteOf, int32(i)), append(deletes, op.Key)
			case physical.OpRequireAbsent:
				conditionOf, conditions, expected = append(conditionOf, int32(i)), append(conditions, op.Key), append(expected, nil)
			case physical.OpRequireValue:
				conditionOf, conditions, expected = append(conditionOf, int32(i)), append(conditions, op.Key), append(expected, notNull(op.Value))
			}
		}
	}
	var locks []int32 // nil, which is NULL: all keys
	if len(hashes) <= mostLocks {
		locks = make([]int32, 0, len(hashes))
		for h := range hashes {
			locks = append(locks, h)
		}
		slices.Sort(locks)
	}
	return []any{fence.Lineage, int64(fence.Term), fence.Nonce[:], locks, conditionOf, conditions, expected, deleteOf, deletes, putOf, puts, values}
}

// notNull is a value that is not NULL, the empty one included.
func notNull(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}

// hash is which lock stands for a key; 0 is the fence's.
func hash(key string) int32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	return int32(max(h.Sum32(), 1))
}
