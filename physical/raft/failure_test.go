package raft

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	hraft "github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// P12: a store whose disk fails says so, so that its process ends and does not stay as a standby that knows nothing.
func TestFailureIsTold(t *testing.T) {
	s, err := Open(Config{Path: t.TempDir(), Advertise: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Failure() != nil {
		t.Fatal("failed before it failed")
	}
	s.stateFailed(errors.New("no space left on device"))
	select {
	case <-s.Failed():
	case <-time.After(5 * time.Second):
		t.Fatal("not told")
	}
	s.log.onBroken(errors.New("a later one"))
	if got := s.Failure(); got == nil || got.Error() != "no space left on device" {
		t.Fatalf("Failure = %v, want the first one", got)
	}
}

// slowReader takes a few bytes and then nothing, until it is let go.
type slowReader struct{ begun, free chan struct{} }

func (w *slowReader) Write(p []byte) (int, error) {
	close(w.begun)
	<-w.free
	return 0, errors.New("gone")
}

// P12: who asks for a snapshot and does not read it holds nobody up, not even a restore.
func TestSlowSnapshotHoldsNobodyUp(t *testing.T) {
	s, err := Open(Config{Path: t.TempDir(), Advertise: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w := &slowReader{make(chan struct{}), make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- s.Snapshot(t.Context(), w) }()
	<-w.begun
	if !s.state.mu.TryLock() {
		t.Error("the state is locked while the reader sleeps")
	} else {
		s.state.mu.Unlock()
	}
	close(w.free)
	if err := <-done; err == nil {
		t.Error("a snapshot that nobody took is no success")
	}
	var whole bytes.Buffer
	if err := s.Snapshot(t.Context(), &whole); err != nil || whole.Len() == 0 {
		t.Fatalf("%d bytes, %v", whole.Len(), err)
	}
}

// A follower to which the leader sends its state while a snapshot of its own is begun takes it at once (P12: nothing waits without a
// bound). The engine begins a snapshot, then waits for its main loop, which waits for the restore.
func TestRestoreWaitsForNoSnapshot(t *testing.T) {
	m, snaps := openTestState(t), hraft.NewInmemSnapshotStore()
	sink := func() hraft.SnapshotSink {
		s, err := snaps.Create(1, 2, 1, hraft.Configuration{}, 1, nil)
		must(t, err)
		return s
	}
	var sent bytes.Buffer
	must(t, m.state.view(func(tx *bbolt.Tx) error { return writeSnapshot(&sent, tx) }))
	begun, err := m.Snapshot()
	must(t, err)
	done := make(chan error, 1)
	go func() { done <- m.Restore(io.NopCloser(&sent)) }()
	select {
	case err := <-done:
		must(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("the restore waits for a snapshot that waits for it")
	}
	if err := begun.Persist(sink()); !errors.Is(err, errSuperseded) {
		t.Errorf("writing a snapshot of what is gone: %v", err)
	}
	begun.Release()
	next, err := m.Snapshot()
	must(t, err)
	must(t, next.Persist(sink()))
	next.Release()
}
