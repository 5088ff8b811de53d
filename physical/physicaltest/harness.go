package physicaltest

import (
	"context"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
)

// Harness makes a fresh, empty store. It is called once for each check, with the check's own t: what it
// registers with t.Cleanup runs after the check has closed its handles, and before the check looks for
// goroutines that were left behind.
type Harness func(t testing.TB) Store

// Handle is what Open gives: one node's way to the store. [Backend] asserts it to be a physical.Backend,
// [HABackend] to be a physical.HABackend.
type Handle interface {
	Caps() physical.Caps
	Close() error
}

// Store is one store under test. Only Open is required.
type Store struct {
	// Open opens the handle of node n (0, 1, 2, …), independent of the others: with its own connections,
	// and on the one store. After its handle was closed, a node may be opened again: it restarts. Open returns
	// when the store can serve on that handle, as far as it depends on it.
	Open func(n int) (Handle, error)

	// Nodes is how many nodes the store has, where it cannot be opened by any number of them: 1 for a store
	// of one process, the number of servers of an embedded one. The suites then open all of them before
	// they begin. 0: the suites open as many as they need, up to 32.
	Nodes int

	// Names is what the store calls its nodes, for a store that demands it as Record.Holder. nil: any name.
	Names func(n int) string

	// Writer waits until some node may write and returns its number, for stores on which only one can at a
	// time; on the others Commit, RaiseFence and current reads give ErrUnavailable. nil: all can.
	Writer func(ctx context.Context) (int, error)

	// ElectsItself: the store chooses by itself which node may acquire the lock, as raft does by electing a
	// leader; on the others Acquire gives ErrHeld or ErrUnavailable. The suites then offer the lock to all nodes until one
	// takes it; they do not expect that a lock is lost merely because it is not renewed, but that it is when
	// its holder is cut off by Isolate; and they use physical.Yielder to have another node chosen.
	ElectsItself bool

	// Restart restarts the store itself, its servers say. The suites call it while no handle is open. nil:
	// closing and opening the handles is all there is to it.
	Restart func() error

	// Isolate makes a black hole of everything between node n and the rest: what is sent is dropped without
	// an error and nothing arrives, until heal is called. nil: the suites simulate it before the handle, which
	// ElectsItself does not allow; the checks that need it are then skipped.
	Isolate func(n int) (heal func())

	// CutAnswers lets node n's requests through to the store and drops the answers, until heal is called.
	// nil: simulated before the handle.
	CutAnswers func(n int) (heal func())

	// Late is how much later than its TTL a lock that is not renewed may run out, and how long the store may take to
	// tell a watcher, on top of what a busy machine costs. 0: half a second.
	Late time.Duration

	// Settle is how long the store may take to serve again after a restart, a fault that has healed, or a
	// change of the node that may write. 0: ten seconds.
	Settle time.Duration
}

func (s *Store) ensureDefaults() {
	if s.Late == 0 {
		s.Late = 500 * time.Millisecond
	}
	if s.Settle == 0 {
		s.Settle = 10 * time.Second
	}
}
