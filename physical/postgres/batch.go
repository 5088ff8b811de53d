package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/locum-ha/locum/physical"
)

const (
	// flights is how many calls are on their way at once. Commits that come while all are wait, and go together.
	flights = 3
	// Limits of one call. The bytes bound what a server keeps in memory for it.
	batchCommits = 128
	batchOps     = 2 * maxOps
	batchBytes   = maxCommit
	// mostLocks is how many keys a call locks one by one; a server has room for some 6400 such locks unless
	// configured otherwise.
	mostLocks = 400
)

// waiting is a commit on its way.
type waiting struct {
	fence physical.Fence
	ops   []physical.Op
	bytes int
	done  chan error // buffered
	left  bool       // its caller has gone; guarded by batcher.mu
	group *group     // that it is in, once it is sent; guarded by batcher.mu
}

// group is what goes in one call.
type group struct {
	members []*waiting
	present int                // callers that still wait
	cancel  context.CancelFunc // ends the call when nobody waits for it any more
}

// batcher joins commits into groups.
type batcher struct {
	store *Store

	mu     sync.Mutex
	queue  []*waiting
	flying int
}

func (b *batcher) init(s *Store) { b.store = s }

// commit sends ops, together with others where others wait, and returns their own result.
func (b *batcher) commit(ctx context.Context, fence physical.Fence, ops []physical.Op) error {
	w := &waiting{fence: fence, ops: ops, done: make(chan error, 1)}
	for _, op := range ops {
		w.bytes += len(op.Key) + len(op.Value)
	}
	if !b.enqueue(w) {
		return physical.ErrClosed
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return b.leave(ctx, w)
	}
}

// enqueue adds w and sends it if there is a flight free.
func (b *batcher) enqueue(w *waiting) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.store.isClosed() {
		return false
	}
	b.queue = append(b.queue, w)
	if b.flying < flights {
		b.flying++
		b.store.tasks.Go(b.fly)
	}
	return true
}

// leave takes a commit back whose caller goes. One that was sent already has an unknown outcome.
func (b *batcher) leave(ctx context.Context, w *waiting) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case err := <-w.done: // at the last moment
		return err
	default:
	}
	w.left = true
	if w.group == nil {
		b.queue = slices.DeleteFunc(b.queue, func(o *waiting) bool { return o == w })
		return context.Cause(ctx)
	}
	if w.group.present--; w.group.present == 0 {
		w.group.cancel()
	}
	return fmt.Errorf("%w: %w", physical.ErrUnknown, context.Cause(ctx))
}

// fly sends groups until nobody waits.
func (b *batcher) fly() {
	for {
		ctx, cancel := context.WithCancel(b.store.ctx)
		g := b.next(cancel)
		if g == nil {
			cancel()
			return
		}
		b.store.send(ctx, g.members)
		cancel()
	}
}

// next takes from the queue what can go in one call, commits that share no key: nil, and the flight ends, if nobody waits.
func (b *batcher) next(cancel context.CancelFunc) *group {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) == 0 {
		b.flying--
		return nil
	}
	g := &group{cancel: cancel}
	keys := make(map[string]bool)
	ops, size := 0, 0
	for _, w := range b.queue {
		ops, size = ops+len(w.ops), size+w.bytes
		if w.fence != b.queue[0].fence || len(g.members) > 0 && (ops > batchOps || size > batchBytes) || len(g.members) == batchCommits {
			break
		}
		if !disjoint(w.ops, keys) {
			break // it sees what the ones before it did, in the next call
		}
		w.group = g
		w.ops = cloned(w.ops) // the caller may go, and its values are its own then
		g.members = append(g.members, w)
	}
	g.present = len(g.members)
	b.queue = slices.Clone(b.queue[len(g.members):])
	return g
}

// disjoint adds the keys of ops, unless one of them is there: one op may stand beside another on the same key in a commit.
func disjoint(ops []physical.Op, keys map[string]bool) bool {
	for _, op := range ops {
		if keys[op.Key] {
			return false
		}
	}
	for _, op := range ops {
		keys[op.Key] = true
	}
	return true
}

// cloned copies ops with their values.
func cloned(ops []physical.Op) []physical.Op {
	ops = slices.Clone(ops)
	for i := range ops {
		ops[i].Value = bytes.Clone(ops[i].Value)
	}
	return ops
}

// send carries out a group and tells each member its own result.
func (s *Store) send(ctx context.Context, members []*waiting) {
	results, err := s.call(ctx, members)
	for try := 0; try < 5 && rolledBack(err); try++ {
		results, err = s.call(ctx, members)
	}
	if r := refusal(err); r != nil && !ending(r) && !passing(r) && len(members) > 1 {
		for i := range members { // one of them is to blame
			s.send(ctx, members[i:i+1])
		}
		return
	}
	said := results.of(len(members))
	for i, w := range members {
		if err != nil {
			w.done <- s.uncommitted(ctx, err)
		} else {
			w.done <- result(said[i], w.fence)
		}
	}
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
func (s *Store) call(ctx context.Context, members []*waiting) (answer, error) {
	args := arguments(members)
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
func arguments(members []*waiting) []any {
	fence := members[0].fence
	conditionOf, deleteOf, putOf := []int32{}, []int32{}, []int32{}
	conditions, deletes, puts := []string{}, []string{}, []string{}
	expected, values := [][]byte{}, [][]byte{}
	hashes := map[int32]bool{}
	for i, w := range members {
		for _, op := range w.ops {
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
