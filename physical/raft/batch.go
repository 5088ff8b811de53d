package raft

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	hraft "github.com/hashicorp/raft"

	"github.com/locum-ha/locum/physical"
)

// batcher puts all requests that wait into one log entry, while the one before is on its way. The only
// writer there is never waits for others, and many writers share syncs and messages.
type batcher struct {
	engine    *hraft.Raft
	observer  Observer
	notLeader func() error

	mu      sync.Mutex
	queue   []*pending
	bytes   int
	stopped bool
	paused  int
	busy    int       // lanes that carry an entry
	flying  int       // requests in those entries
	wake    sync.Cond // on mu: a lane may have something to do
	idle    sync.Cond // on mu: busy has become less

	lanes sync.WaitGroup
}

const (
	// batchLanes is how many entries of requests may be on their way at once. With two, the leader writes
	// one while the followers write the other. The second waits until as many requests have gathered as the
	// first has: entries of one request cost as much as entries of thirty.
	batchLanes = 2
	// batchBytes is how large an entry may grow by gathering; one request may exceed it alone.
	batchBytes = 1 << 20
	// Requests that wait are bounded (P12).
	queueEntries = 16 << 10
	queueBytes   = 64 << 20
)

// pending is a request on its way.
type pending struct {
	data       []byte // the request as it goes into an entry
	dispatched bool   // guarded by batcher.mu
	done       chan outcome
}

type outcome struct {
	result result
	err    error
}

func newBatcher(engine *hraft.Raft, observer Observer, notLeader func() error) *batcher {
	b := &batcher{engine: engine, observer: observer, notLeader: notLeader}
	b.wake.L, b.idle.L = &b.mu, &b.mu
	for range batchLanes {
		b.lanes.Go(b.lane)
	}
	return b
}

// close refuses new requests and waits for those on their way. Raft must still run: it answers all of
// them, at the latest when it gives leadership up.
func (b *batcher) close() {
	b.mu.Lock()
	b.stopped = true
	for _, p := range b.queue {
		p.done <- outcome{err: errNotRunning}
	}
	b.queue, b.bytes = nil, 0
	b.wake.Broadcast()
	b.mu.Unlock()
	b.lanes.Wait()
}

// submit puts a request through the log and returns its result. When the context ends first, the outcome
// is unknown unless the request was still waiting.
func (b *batcher) submit(ctx context.Context, req request) (result, error) {
	if err := ctx.Err(); err != nil {
		return result{}, context.Cause(ctx)
	}
	if b.engine.State() != hraft.Leader {
		return result{}, b.notLeader()
	}
	p := &pending{data: req.append(make([]byte, 0, req.size())), done: make(chan outcome, 1)}
	b.mu.Lock()
	switch {
	case b.stopped:
		b.mu.Unlock()
		return result{}, errNotRunning
	case len(b.queue) >= queueEntries || b.bytes+len(p.data) > queueBytes && len(b.queue) > 0:
		b.mu.Unlock()
		return result{}, fmt.Errorf("%w: too many writes are waiting", physical.ErrUnavailable)
	}
	b.queue = append(b.queue, p)
	b.bytes += len(p.data)
	b.wake.Signal()
	b.mu.Unlock()
	select {
	case out := <-p.done:
		return out.result, out.err
	case <-ctx.Done():
		return b.abandon(ctx, p)
	}
}

// abandon takes p out of the queue if it is still there.
func (b *batcher) abandon(ctx context.Context, p *pending) (result, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case out := <-p.done: // the answer came at the same moment
		return out.result, out.err
	default:
	}
	if p.dispatched {
		return result{}, fmt.Errorf("%w: %w", physical.ErrUnknown, context.Cause(ctx))
	}
	for i, q := range b.queue {
		if q == p {
			b.queue = append(b.queue[:i], b.queue[i+1:]...)
			b.bytes -= len(p.data)
			break
		}
	}
	return result{}, context.Cause(ctx)
}

// lane carries one entry after the other through raft.
func (b *batcher) lane() {
	for {
		group := b.next()
		if group == nil {
			return
		}
		b.carry(group)
		b.mu.Lock()
		b.busy--
		b.flying -= len(group)
		b.wake.Signal()
		b.idle.Broadcast()
		b.mu.Unlock()
	}
}

// pause waits until nothing is on its way and holds new entries back until resume.
func (b *batcher) pause() (resume func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.paused++
	for b.busy > 0 {
		b.idle.Wait()
	}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.paused--
		b.wake.Broadcast()
	}
}

// next waits until it is worth while and takes as many requests as go into one entry. It returns nil at the end.
func (b *batcher) next() []*pending {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.queue) == 0 || len(b.queue) < b.flying || b.paused > 0 {
		if b.stopped {
			return nil
		}
		b.wake.Wait()
	}
	n, size := 0, 0
	for n < len(b.queue) && (n == 0 || size+len(b.queue[n].data) <= batchBytes) {
		b.queue[n].dispatched = true
		size += len(b.queue[n].data)
		n++
	}
	group := append([]*pending(nil), b.queue[:n]...)
	clear(b.queue[:n])
	if b.queue = b.queue[n:]; len(b.queue) == 0 {
		b.queue = nil
	}
	b.bytes -= size
	b.busy++
	b.flying += len(group)
	return group
}

// carry puts a group through raft and hands out the results.
func (b *batcher) carry(group []*pending) {
	size := 1
	for _, p := range group {
		size += len(p.data)
	}
	data := append(make([]byte, 0, size), commandFormat)
	for _, p := range group {
		data = append(data, p.data...)
	}
	start := time.Now()
	future := b.engine.ApplyLog(hraft.Log{Data: data}, enqueueTimeout)
	err := future.Error()
	if err == nil {
		if results, ok := future.Response().([]result); ok && len(results) == len(group) {
			if b.observer.Committed != nil {
				b.observer.Committed(len(group), len(data), time.Since(start))
			}
			for i, p := range group {
				p.done <- outcome{result: results[i], err: results[i].err}
			}
			return
		}
		err = fmt.Errorf("%w: applied without a result: %v", physical.ErrUnknown, future.Response())
	} else {
		err = b.translate(err)
	}
	for _, p := range group {
		p.done <- outcome{err: err}
	}
}

// enqueueTimeout is how long an entry may wait before raft takes it.
const enqueueTimeout = 5 * time.Second

// translate says in the contract's words what the library reported for an entry.
func (b *batcher) translate(err error) error {
	switch {
	case errors.Is(err, hraft.ErrNotLeader):
		return b.notLeader()
	case errors.Is(err, hraft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("%w: leadership is being handed over", physical.ErrUnavailable)
	case errors.Is(err, hraft.ErrEnqueueTimeout): // only before raft took the entry
		return fmt.Errorf("%w: raft is too busy", physical.ErrUnavailable)
	default: // ErrLeadershipLost, ErrAbortedByRestore, ErrRaftShutdown, a failed write to the log, …
		return fmt.Errorf("%w: %w", physical.ErrUnknown, err)
	}
}
