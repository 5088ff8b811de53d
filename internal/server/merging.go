package server

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/locum-ha/locum/internal/grouped"
	"github.com/locum-ha/locum/physical"
)

// merger lets commits that wait share one transaction of the store (package grouped), as the embedded store's do: a data store takes one
// transaction of thirty entries for little more than it takes one of one. If one of them does not apply, or they are too much for the
// store only together, each half of them is tried without the other.
type merger struct {
	physical.Backend
	stop  context.CancelCauseFunc
	group *grouped.Committer
}

const (
	mergeFlights = 2
	mergeCommits = 256
	mergeBytes   = 4 << 20
	mergeLimit   = 30 * time.Second // for one transaction, whatever its callers would wait
)

func newMerger(store physical.Backend) *merger {
	caps := store.Caps()
	limits := grouped.Limits{Flights: mergeFlights, Commits: mergeCommits, Ops: caps.MaxOps, Bytes: mergeBytes}
	if caps.MaxCommit > 0 {
		limits.Bytes = min(limits.Bytes, caps.MaxCommit)
	}
	m := &merger{Backend: store}
	life, stop := context.WithCancelCause(context.Background())
	m.stop = stop
	m.group = grouped.New(life, limits, m.send)
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
	return m.group.Commit(ctx, *fence, ops)
}

// send makes one transaction of commits, or two of its halves if it is refused, and so on down to the one that it is refused for.
func (m *merger) send(ctx context.Context, fence physical.Fence, commits [][]physical.Op) []error {
	ctx, cancel := context.WithTimeout(ctx, mergeLimit)
	defer cancel()
	results := make([]error, len(commits))
	m.commit(ctx, fence, commits, results)
	return results
}

func (m *merger) commit(ctx context.Context, fence physical.Fence, commits [][]physical.Op, results []error) {
	n := 0
	for _, c := range commits {
		n += len(c)
	}
	ops := make([]physical.Op, 0, n)
	for _, c := range commits {
		ops = append(ops, c...)
	}
	err := m.Backend.Commit(ctx, &fence, ops...)
	if len(commits) == 1 || !errors.Is(err, physical.ErrConflict) && !errors.Is(err, physical.ErrTooLarge) {
		for i := range results {
			results[i] = err
		}
		return
	}
	half := len(commits) / 2
	var first sync.WaitGroup
	first.Go(func() { m.commit(ctx, fence, commits[:half], results[:half]) })
	m.commit(ctx, fence, commits[half:], results[half:])
	first.Wait()
}

// Close ends what is on its way, refuses what waits, and closes the store.
func (m *merger) Close() error {
	m.stop(physical.ErrClosed)
	err := m.Backend.Close()
	m.group.Wait()
	return err
}
