package file

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/locum-ha/locum/physical"
)

func openIn(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(Config{Path: path, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *Store) has(t *testing.T, key string) bool {
	t.Helper()
	_, err := s.Get(t.Context(), key)
	if err != nil && !errors.Is(err, physical.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// A caller can walk away while the disk is slow: from a commit that is being written its outcome is unknown,
// one that waits behind it is taken back. "Every other error says that nothing was written."
func TestWalkAway(t *testing.T) {
	s := openIn(t, t.TempDir())
	slow, err := s.db.Begin(true) // the writer cannot begin
	if err != nil {
		t.Fatal(err)
	}
	commit := func(key string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		return s.Commit(ctx, nil, physical.Put(key, nil))
	}
	if err := commit("taken"); !errors.Is(err, physical.ErrUnknown) {
		t.Errorf("a commit that the writer has taken: %v, want ErrUnknown", err)
	}
	if err := commit("waiting"); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, physical.ErrUnknown) {
		t.Errorf("a commit that waits: %v, want a refusal", err)
	}
	if err := slow.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(t.Context(), nil, physical.Put("after", nil)); err != nil {
		t.Fatal(err)
	}
	if !s.has(t, "taken") || s.has(t, "waiting") {
		t.Errorf("taken was written: %v, waiting: %v", s.has(t, "taken"), s.has(t, "waiting"))
	}
}

// Commits that wait together share a transaction, each judged on its own after those before it.
func TestBatch(t *testing.T) {
	s := openIn(t, t.TempDir())
	before := s.number(t)
	now := physical.Fence{Lineage: "l", Term: 1}
	batch := []*request{
		{ops: []physical.Op{physical.RequireAbsent("a"), {Kind: physical.OpPut, Key: "a", Value: encode([]byte("1"))}}},
		{ops: []physical.Op{physical.RequireAbsent("a"), {Kind: physical.OpPut, Key: "b", Value: encode(nil)}}},
		{ops: []physical.Op{{Kind: physical.OpRequireValue, Key: "a", Value: encode([]byte("1"))}, {Kind: physical.OpPut, Key: "a", Value: encode([]byte("2"))}}},
		{raise: &now},
		{ops: []physical.Op{{Kind: physical.OpPut, Key: "c", Value: encode(nil)}}},
		{fence: now, ops: []physical.Op{{Kind: physical.OpPut, Key: "d", Value: encode(nil)}}},
	}
	for _, r := range batch {
		r.done = make(chan error, 1)
	}
	s.writeBatch(batch)
	for i, want := range []error{nil, physical.ErrConflict, nil, nil, physical.ErrFenced, nil} {
		if err := <-batch[i].done; !errors.Is(err, want) {
			t.Errorf("request %d: %v, want %v", i, err, want)
		}
	}
	if n := s.number(t) - before; n != 1 {
		t.Errorf("%d transactions, want 1", n)
	}
	if e, err := s.Get(t.Context(), "a"); err != nil || string(e.Value) != "2" || s.has(t, "b") || s.has(t, "c") || !s.has(t, "d") {
		t.Errorf("the batch left a = %v (%v), b %v, c %v, d %v", e, err, s.has(t, "b"), s.has(t, "c"), s.has(t, "d"))
	}
	s.writeBatch([]*request{{fence: now, done: make(chan error, 1)}}) // checks, and writes nothing
	if n := s.number(t) - before; n != 1 {
		t.Errorf("a commit without writes cost a transaction")
	}
}

// number returns the number of the last transaction.
func (s *Store) number(t *testing.T) (n uint64) {
	t.Helper()
	if err := s.db.View(func(tx *bolt.Tx) error { n = commits(tx); return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// A transaction that failed is looked up: not there, nothing was written and the store goes on; there, but not synced, the
// outcome is unknown and nothing works until the store is opened again.
func TestOutcomeOfFailedTransaction(t *testing.T) {
	path := t.TempDir()
	s := openIn(t, path)
	if err := s.Commit(t.Context(), nil, physical.Put("a", nil)); err != nil {
		t.Fatal(err)
	}
	err := s.outcome(s.number(t)+1, syscall.ENOSPC)
	if !errors.Is(err, physical.ErrUnavailable) || errors.Is(err, physical.ErrUnknown) || !strings.Contains(err.Error(), "make room") {
		t.Errorf("a full disk: %v", err)
	}
	if err := s.Commit(t.Context(), nil, physical.Put("b", nil)); err != nil {
		t.Errorf("after a full disk: %v", err)
	}
	if err := s.outcome(s.number(t), syscall.EIO); !errors.Is(err, physical.ErrUnknown) {
		t.Errorf("a transaction that is there and was not synced: %v", err)
	}
	if err := s.Commit(t.Context(), nil, physical.Put("c", nil)); !errors.Is(err, physical.ErrUnavailable) {
		t.Errorf("a commit after the disk failed: %v", err)
	}
	if _, err := s.Get(t.Context(), "a"); !errors.Is(err, physical.ErrUnavailable) {
		t.Errorf("a read after the disk failed: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s = openIn(t, path); !s.has(t, "a") || !s.has(t, "b") {
		t.Errorf("what was acknowledged is gone")
	}
}
