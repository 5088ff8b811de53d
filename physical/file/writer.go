package file

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	bolt "go.etcd.io/bbolt"

	"github.com/locum-ha/locum/physical"
)

// maxBatch bounds how many commits share a transaction, and how many may wait for the next (P12).
const maxBatch = 256

// request is one Commit or RaiseFence on its way to the writer. Once done is sent to, or the caller has
// withdrawn it, nobody looks at it any more.
type request struct {
	fence physical.Fence  // the stored one must be this; zero: there must be none
	ops   []physical.Op   // values encoded, the request's own
	raise *physical.Fence // the new fence
	size  int

	taken atomic.Bool // by the writer, or back by the caller
	done  chan error
}

// Commit applies all ops or none.
func (s *Store) Commit(ctx context.Context, fence *physical.Fence, ops ...physical.Op) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	if err := caps.Check(ops); err != nil {
		return err
	}
	r := &request{ops: make([]physical.Op, len(ops)), done: make(chan error, 1)}
	if fence != nil {
		r.fence = *fence
	}
	for i, op := range ops {
		if op.Kind == physical.OpPut || op.Kind == physical.OpRequireValue {
			op.Value = encode(op.Value)
		}
		r.ops[i] = op
		r.size += len(op.Key) + len(op.Value)
	}
	return s.submit(ctx, r)
}

// RaiseFence replaces the fence from by to.
func (s *Store) RaiseFence(ctx context.Context, from, to physical.Fence) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	if !from.Below(to) {
		return fmt.Errorf("%w: %v is not above %v", physical.ErrFenced, to, from)
	}
	return s.submit(ctx, &request{fence: from, raise: &to, done: make(chan error, 1)})
}

// submit hands a request to the writer and waits for its outcome, or walks away from it.
func (s *Store) submit(ctx context.Context, r *request) error {
	select {
	case s.queue <- r:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing:
		return physical.ErrClosed
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		if r.taken.CompareAndSwap(false, true) {
			return ctx.Err()
		}
		return fmt.Errorf("%w: it is being written: %w", physical.ErrUnknown, ctx.Err())
	case <-s.stopped:
	}
	select {
	case err := <-r.done:
		return err
	default:
		return physical.ErrClosed // the writer returned without having looked at it
	}
}

// write is the one goroutine that writes. It ends with closing.
func (s *Store) write() {
	defer close(s.stopped)
	for {
		select {
		case <-s.closing:
			return
		case first := <-s.queue:
			s.writeBatch(s.collect(first))
		}
	}
}

// collect takes what waits, in order, as long as it fits into one transaction.
func (s *Store) collect(first *request) []*request {
	var batch []*request
	size := 0
	for r := first; ; {
		if r.taken.CompareAndSwap(false, true) {
			batch = append(batch, r)
			size += r.size
		}
		if len(batch) == maxBatch || size >= maxCommit {
			return batch
		}
		select {
		case r = <-s.queue:
		default:
			return batch
		}
	}
}

// errNothing ends a transaction in which there is nothing to write.
var errNothing = errors.New("nothing to write")

// writeBatch carries requests out in one transaction and tells their callers.
func (s *Store) writeBatch(batch []*request) {
	if len(batch) == 0 {
		return
	}
	var number uint64
	outcomes := make([]error, len(batch))
	err := s.db.Update(func(tx *bolt.Tx) error {
		writes := false
		for i, r := range batch {
			if outcomes[i] = r.check(tx); outcomes[i] != nil {
				continue
			}
			wrote, err := r.apply(tx)
			if err != nil {
				return err
			}
			writes = writes || wrote
		}
		if !writes {
			return errNothing
		}
		number = commits(tx) + 1
		return tx.Bucket(metaBucket).Put(commitsKey, binary.BigEndian.AppendUint64(nil, number))
	})
	if err != nil && !errors.Is(err, errNothing) {
		err = s.outcome(number, err)
		for i := range outcomes {
			// A refusal may rest on what an earlier request of this batch did, which is undone.
			outcomes[i] = err
		}
	}
	for i, r := range batch {
		r.done <- outcomes[i]
	}
}

// outcome finds out what has become of transaction number, which failed with err.
func (s *Store) outcome(number uint64, err error) error {
	there := true
	look := s.db.View(func(tx *bolt.Tx) error {
		there = number != 0 && commits(tx) >= number
		return nil
	})
	if !there && look == nil {
		return fmt.Errorf("%w: nothing was written: %w", physical.ErrUnavailable, explain(err))
	}
	failed := fmt.Errorf("%w: the disk failed, and the store must be opened again: %w", physical.ErrUnavailable, errors.Join(err, look))
	s.failed.Store(&failed)
	s.logger.Error("file storage failed", "path", s.path, "error", err)
	return fmt.Errorf("%w: written, but perhaps not to the disk: %w", physical.ErrUnknown, err)
}

// check returns why the request is refused, or nil.
func (r *request) check(tx *bolt.Tx) error {
	now, err := readFence(tx)
	if err != nil {
		return err
	}
	if now != r.fence {
		return fmt.Errorf("%w: the store's fence is %v", physical.ErrFenced, now)
	}
	entries := tx.Bucket(entriesBucket)
	for _, op := range r.ops {
		if !op.IsCondition() {
			continue
		}
		stored := entries.Get([]byte(op.Key))
		switch {
		case op.Kind == physical.OpRequireAbsent && stored != nil:
			return fmt.Errorf("%w: there is an entry at %q", physical.ErrConflict, op.Key)
		case op.Kind == physical.OpRequireValue && stored == nil:
			return fmt.Errorf("%w: there is no entry at %q", physical.ErrConflict, op.Key)
		case op.Kind == physical.OpRequireValue && !bytes.Equal(stored, op.Value):
			return fmt.Errorf("%w: another value at %q", physical.ErrConflict, op.Key)
		}
	}
	return nil
}

// apply makes the request's changes, and says whether there are any. An error means that the transaction
// cannot be written.
func (r *request) apply(tx *bolt.Tx) (wrote bool, err error) {
	if r.raise != nil {
		return true, writeFence(tx, *r.raise)
	}
	entries := tx.Bucket(entriesBucket)
	for _, op := range r.ops {
		switch op.Kind {
		case physical.OpPut:
			err = entries.Put([]byte(op.Key), op.Value)
		case physical.OpDelete:
			err = entries.Delete([]byte(op.Key))
		default:
			continue
		}
		if err != nil {
			return wrote, err
		}
		wrote = true
	}
	return wrote, nil
}
