package raft

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"

	hraft "github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"github.com/locum-ha/locum/physical"
)

// result is what one request came to. It is the same on every node.
type result struct {
	err    error
	record lockRecord     // acquire, release: the record as it is now
	fence  physical.Fence // fenced commits and raises: the fence as it is now
}

// machine applies committed log entries to the state. It implements raft's BatchingFSM. Its decisions
// depend on the state and the entry only, never on time, node or order of arrival elsewhere.
type machine struct {
	state   *state
	logger  *slog.Logger
	changed func(header) // called after fence or lock changed, or entries were exchanged; may be nil
	fail    func(error)  // called when the state cannot be written
	hurry   atomic.Bool  // the node stops: a snapshot that is being written is given up

	begun *stateSnapshot // the last one that was begun; it and its transaction may be over. Only raft's FSM goroutine uses it.
}

// Apply applies one entry.
func (m *machine) Apply(entry *hraft.Log) any { return m.ApplyBatch([]*hraft.Log{entry})[0] }

// ApplyBatch applies committed entries in one transaction. Entries that the state has already, because
// the process was restarted, are passed over.
func (m *machine) ApplyBatch(entries []*hraft.Log) []any {
	out := make([]any, len(entries))
	var before, after header
	err := m.state.update(func(tx *bbolt.Tx, h header) (header, error) {
		before = h
		bucket := tx.Bucket(bucketEntries)
		for i, entry := range entries {
			if entry.Index <= h.index {
				continue
			}
			if entry.Type == hraft.LogCommand {
				results, err := applyEntry(bucket, &h, entry)
				if err != nil {
					return h, err
				}
				out[i] = results
			}
			h.index, h.term = entry.Index, entry.Term
		}
		after = h
		return h, nil
	})
	if err != nil {
		// The entry is committed: every other node has it. This one cannot go on without it.
		err = fmt.Errorf("apply log entries %d to %d: %w", entries[0].Index, entries[len(entries)-1].Index, err)
		m.fail(err)
		for i := range out {
			out[i] = err
		}
		return out
	}
	if m.changed != nil && (after.lock != before.lock || after.fence != before.fence || !maps.Equal(after.addrs, before.addrs)) {
		m.changed(after)
	}
	return out
}

// applyEntry carries out all requests of an entry, in order. Only an entry that cannot be read, or a
// state that cannot be written, is an error.
func applyEntry(bucket *bbolt.Bucket, h *header, entry *hraft.Log) ([]result, error) {
	requests, err := decodeEntry(entry.Data)
	if err != nil {
		return nil, err
	}
	results := make([]result, len(requests))
	for i := range requests {
		r := &requests[i]
		switch r.kind {
		case kindCommit:
			if results[i].err = checkCommit(bucket, h, r); results[i].err == nil {
				if err := write(bucket, r.ops); err != nil {
					return nil, err
				}
			}
		case kindRaise:
			if h.fence == r.fence && h.fence.Below(r.to) {
				h.fence = r.to
			} else {
				results[i].err = physical.ErrFenced
			}
		case kindAcquire:
			h.lock = lockRecord{raftTerm: entry.Term, floor: h.lock.floor, Record: physical.Record{
				Holder: r.holder, Name: r.name, Term: max(h.lock.Term, h.lock.floor, h.fence.Term, r.term) + 1,
			}}
		case kindRelease:
			if h.lock.Holder != "" && h.lock.Term == r.term {
				h.lock = lockRecord{floor: h.lock.floor, Record: physical.Record{Term: r.term, Next: r.next}}
			}
		case kindAddress:
			h.addrs = withAddress(h.addrs, r.holder, r.name)
		}
		results[i].record, results[i].fence = h.lock, h.fence
	}
	return results, nil
}

// checkCommit judges fence and conditions against the state before the commit.
func checkCommit(bucket *bbolt.Bucket, h *header, r *request) error {
	if r.fenced && h.fence != r.fence || !r.fenced && !h.fence.IsZero() {
		return physical.ErrFenced
	}
	for i := range r.ops {
		op := &r.ops[i]
		switch op.Kind {
		case physical.OpRequireAbsent:
			if bucket.Get([]byte(op.Key)) != nil {
				return fmt.Errorf("%w: %q is there", physical.ErrConflict, op.Key)
			}
		case physical.OpRequireValue:
			if v := bucket.Get([]byte(op.Key)); v == nil || !bytes.Equal(v, op.Value) {
				return fmt.Errorf("%w: %q holds something else", physical.ErrConflict, op.Key)
			}
		}
	}
	return nil
}

func write(bucket *bbolt.Bucket, ops []physical.Op) error {
	for i := range ops {
		op := &ops[i]
		var err error
		switch op.Kind {
		case physical.OpPut:
			err = bucket.Put([]byte(op.Key), op.Value)
		case physical.OpDelete:
			err = bucket.Delete([]byte(op.Key))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Snapshot begins a snapshot of the state as it is now.
func (m *machine) Snapshot() (hraft.FSMSnapshot, error) {
	m.state.mu.RLock()
	if m.state.closed {
		m.state.mu.RUnlock()
		return nil, physical.ErrClosed
	}
	tx, err := m.state.db.Begin(false)
	if err != nil {
		m.state.mu.RUnlock()
		return nil, err
	}
	m.begun = &stateSnapshot{tx: tx, hurry: &m.hurry, unlock: m.state.mu.RUnlock}
	return m.begun, nil
}

// stateSnapshot is a read transaction that outlives the call in which it began. Until it ends, the state's file cannot be exchanged.
type stateSnapshot struct {
	hurry  *atomic.Bool
	unlock func()

	mu    sync.Mutex // held while the snapshot is written
	tx    *bbolt.Tx  // nil once it is over
	stale atomic.Bool
}

// Persist writes the snapshot. It also ends it: not every caller calls Release.
func (s *stateSnapshot) Persist(sink hraft.SnapshotSink) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tx == nil {
		_ = sink.Cancel()
		return errSuperseded
	}
	defer s.end()
	if err := writeSnapshot(&hurriedWriter{w: sink, hurry: s.hurry, stale: &s.stale}, s.tx); err != nil {
		_ = sink.Cancel()
		return err
	}
	return sink.Close()
}

// Release ends the transaction.
func (s *stateSnapshot) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end()
}

// end is called with mu held.
func (s *stateSnapshot) end() {
	if s.tx != nil {
		_ = s.tx.Rollback()
		s.tx = nil
		s.unlock()
	}
}

// supersede ends the snapshot because the state is about to be replaced by a newer one. It waits for nobody but a writer, who gives up:
// the engine's snapshot goroutine, before it writes, asks the main loop for the configuration, and the main loop waits for the
// restore, so a restore that waited for the snapshot would wait for ever.
func (s *stateSnapshot) supersede() {
	s.stale.Store(true)
	s.Release()
}

var errSuperseded = errors.New("the state was replaced by a newer one meanwhile")

// hurriedWriter gives up when the node stops, or the snapshot is of no use any more.
type hurriedWriter struct {
	w            io.Writer
	hurry, stale *atomic.Bool
}

func (h *hurriedWriter) Write(b []byte) (int, error) {
	switch {
	case h.hurry.Load():
		return 0, errStopping
	case h.stale.Load():
		return 0, errSuperseded
	}
	return h.w.Write(b)
}

// Restore replaces the state by a snapshot's. The old state stays until the new one is whole.
func (m *machine) Restore(r io.ReadCloser) error {
	defer func() { _ = r.Close() }()
	if m.begun != nil {
		m.begun.supersede()
	}
	if err := m.state.restore(r); err != nil {
		return err
	}
	if m.changed != nil {
		m.changed(m.state.header())
	}
	return nil
}
