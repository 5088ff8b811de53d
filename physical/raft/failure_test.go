package raft

import (
	"bytes"
	"errors"
	"testing"
	"time"
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
