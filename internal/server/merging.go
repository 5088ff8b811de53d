package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/locum-ha/locum/physical"
)

// merger lets commits that wait share one transaction of the store, while the ones before are on their way, as the embedded
// store's do: a data store takes one transaction of thirty entries for little more than it takes one of one. Only commits
// under the same fence, whose keys have nothing to do with each other, go together. If one of them does not apply, its half of them is
// tried without the other.
type merger struct {
	physical.Backend

	life context.Context
	stop context.CancelCauseFunc
	wg   sync.WaitGroup // the lanes

	mu     sync.Mutex
	queue  []*waitingCommit
	bytes  int
	lanes  int
	closed bool
}

// waitingCommit is one commit on its way.
type waitingCommit struct {
	fence physical.Fence
	ops   []physical.Op
	size  int
	done  chan error

	taken, left bool // guarded by merger.mu: part of a transaction; its caller has gone before
}

const (
	mergeLanes   = 2
	mergeCommits = 256
	mergeBytes   = 4 << 20
	mergeLimit   = 30 * time.Second // for one transaction, whatever its callers would wait

	// Commits that wait are bounded (P12).
	mergeQueue      = 16 << 10
	mergeQueueBytes = 64 << 20
)

func newMerger(store physical.Backend) *merger {
	m := &merger{Backend: store}
	m.life, m.stop = context.WithCancelCause(context.Background())
	return m
}

// Commit goes to the store, perhaps together with others.
func (m *merger) Commit(ctx context.Context, fence *physical.Fence, ops ...physical.Op) error {
	if fence == nil {
		return m.Backend.Commit(ctx, nil, ops...)
	}
	if err := m.Caps().Check(ops); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	c := &waitingCommit{fence: *fence, ops: make([]physical.Op, 0, len(ops)), done: make(chan error, 1)}
	for _, op := range ops {
		// The caller may go on with its values if it leaves before the store has answered.
		c.ops = append(c.ops, physical.Op{Kind: op.Kind, Key: op.Key, Value: append([]byte{}, op.Value...)})
		c.size += len(op.Key) + len(op.Value)
	}
	if err := m.add(c); err != nil {
		return err
	}
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
	}
	m.mu.Lock()
	c.left = !c.taken
	m.mu.Unlock()
	if c.left {
		return context.Cause(ctx)
	}
	select {
	case err := <-c.done: // at the same instant
		return err
	default:
		return fmt.Errorf("%w: %w", physical.ErrUnknown, context.Cause(ctx))
	}
}

// add queues a commit, and starts a lane if there may be one more.
func (m *merger) add(c *waitingCommit) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return physical.ErrClosed
	case len(m.queue) >= mergeQueue || m.bytes+c.size > mergeQueueBytes:
		return fmt.Errorf("%w: too many commits wait for it", physical.ErrUnavailable)
	}
	m.queue = append(m.queue, c)
	m.bytes += c.size
	if m.lanes < mergeLanes {
		m.lanes++
		m.wg.Go(m.lane)
	}
	return nil
}

// lane carries transactions out until nothing waits.
func (m *merger) lane() {
	for batch := m.take(); len(batch) > 0; batch = m.take() {
		m.carryOut(batch)
	}
}

// take returns what goes together with the first commit that waits; nothing ends the lane.
func (m *merger) take() (batch []*waitingCommit) {
	m.mu.Lock()
	defer m.mu.Unlock()
	caps := m.Caps()
	mostOps, mostBytes := caps.MaxOps, mergeBytes
	if caps.MaxCommit > 0 {
		mostBytes = min(mostBytes, caps.MaxCommit)
	}
	ops, size, keys := 0, 0, map[string]bool{}
	rest := m.queue[:0]
	for _, c := range m.queue {
		switch {
		case c.left:
			m.bytes -= c.size
			continue
		case len(batch) == 0:
		case len(batch) >= mergeCommits, size+c.size > mostBytes, mostOps > 0 && ops+len(c.ops) > mostOps, c.fence != batch[0].fence, meets(c.ops, keys):
			rest = append(rest, c)
			continue
		}
		c.taken = true
		batch = append(batch, c)
		ops, size = ops+len(c.ops), size+c.size
		m.bytes -= c.size
		for _, op := range c.ops {
			keys[op.Key] = true
		}
	}
	clear(m.queue[len(rest):])
	m.queue = rest
	if len(batch) == 0 {
		m.lanes--
	}
	return batch
}

// meets reports whether ops have to do with one of the keys.
func meets(ops []physical.Op, keys map[string]bool) bool {
	for _, op := range ops {
		if keys[op.Key] {
			return true
		}
	}
	return false
}

func (m *merger) carryOut(batch []*waitingCommit) {
	ctx, cancel := context.WithTimeout(m.life, mergeLimit)
	defer cancel()
	m.commit(ctx, batch)
}

// commit makes one transaction of a batch, or two of its halves if a condition does not hold, and so on down to whose it is.
func (m *merger) commit(ctx context.Context, batch []*waitingCommit) {
	n := 0
	for _, c := range batch {
		n += len(c.ops)
	}
	ops := make([]physical.Op, 0, n)
	for _, c := range batch {
		ops = append(ops, c.ops...)
	}
	err := m.Backend.Commit(ctx, &batch[0].fence, ops...)
	if len(batch) == 1 || !errors.Is(err, physical.ErrConflict) {
		for _, c := range batch {
			c.done <- err
		}
		return
	}
	half := len(batch) / 2
	var first sync.WaitGroup
	first.Go(func() { m.commit(ctx, batch[:half]) })
	m.commit(ctx, batch[half:])
	first.Wait()
}

// Close ends what is on its way, refuses what waits, and closes the store.
func (m *merger) Close() error {
	m.mu.Lock()
	m.closed = true
	for _, c := range m.queue {
		c.done <- physical.ErrClosed
	}
	m.queue, m.bytes = nil, 0
	m.mu.Unlock()
	err := m.Backend.Close()
	m.stop(physical.ErrClosed)
	m.wg.Wait()
	return err
}
