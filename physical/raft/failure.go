package raft

import "sync"

// failure is the end of a store that cannot go on by itself: its disk did not take what had to be stored.
type failure struct {
	once sync.Once
	ch   chan struct{}
	err  error // set before ch is closed
}

func (f *failure) set(err error) {
	f.once.Do(func() {
		f.err = err
		close(f.ch)
	})
}

// Failed is closed once log or state could not be written: this node takes no part any more, and what it
// reads locally stays as it was. Failure says why. Nothing that was acknowledged is lost; when the cause is
// mended, the node is to be started again.
func (s *Store) Failed() <-chan struct{} { return s.failure.ch }

// Failure returns why the store failed; nil as long as it has not.
func (s *Store) Failure() error {
	select {
	case <-s.failure.ch:
		return s.failure.err
	default:
		return nil
	}
}
