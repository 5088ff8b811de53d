package s3

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/locum-ha/locum/internal/cell"
	"github.com/locum-ha/locum/physical"
)

// request is a Commit or a RaiseFence that waits for a swap.
type request struct {
	fence *physical.Fence // of a commit; nil: there must be none
	ops   []physical.Op
	to    *physical.Fence // of a raise, whose from is fence

	done chan struct{}
	err  error // once done is closed

	mu         sync.Mutex
	dispatched bool // part of a swap: its outcome is not the caller's any more
	withdrawn  bool
}

// claim makes the request part of a swap, unless its caller has left.
func (r *request) claim() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dispatched = !r.withdrawn
	return r.dispatched
}

// withdraw takes the request back; false if that is too late.
func (r *request) withdraw() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.withdrawn = !r.dispatched
	return r.withdrawn
}

// committer puts all requests that wait into one swap, while the one before is under way.
type committer struct {
	store *Store
	wake  chan struct{}

	mu     sync.Mutex
	queue  []*request
	bytes  int
	closed bool
}

// Requests that wait are bounded (P12), and so is what one swap carries.
const (
	queueMost  = 4 << 10
	queueBytes = 64 << 20
	batchMost  = 256
	batchBytes = 8 << 20

	batchLimit = 30 * time.Second // for one swap with everything before it
	pauseMin   = 5 * time.Millisecond
	pauseMax   = 400 * time.Millisecond
)

func sizeOf(ops []physical.Op) int {
	n := 0
	for _, op := range ops {
		n += len(op.Key) + len(op.Value)
	}
	return n
}

// Commit applies all ops or none.
func (s *Store) Commit(ctx context.Context, fence *physical.Fence, ops ...physical.Op) error {
	if err := caps.Check(ops); err != nil {
		return err
	}
	mine := make([]physical.Op, len(ops)) // the caller may go on with its values if it leaves before the swap is done
	for i, op := range ops {
		mine[i] = physical.Op{Kind: op.Kind, Key: op.Key, Value: append([]byte{}, op.Value...)}
	}
	return s.request(ctx, &request{fence: fence, ops: mine, done: make(chan struct{})})
}

// RaiseFence replaces the fence from by to.
func (s *Store) RaiseFence(ctx context.Context, from, to physical.Fence) error {
	if !from.Below(to) {
		return fmt.Errorf("%w: %v is not above %v", physical.ErrFenced, to, from)
	}
	err := s.request(ctx, &request{fence: &from, to: &to, done: make(chan struct{})})
	if err == nil {
		s.garbage.sweepSoon()
	}
	return err
}

func (s *Store) request(ctx context.Context, r *request) error {
	ctx, leave := s.enter(ctx)
	if err := context.Cause(ctx); err != nil {
		return leave(err)
	}
	if err := s.commits.add(r); err != nil {
		return leave(err)
	}
	select {
	case <-r.done:
		return leave(r.err)
	case <-ctx.Done():
	}
	if r.withdraw() {
		return leave(context.Cause(ctx))
	}
	select {
	case <-r.done: // at the same instant
		return leave(r.err)
	default:
		return leave(fmt.Errorf("%w: %w", physical.ErrUnknown, context.Cause(ctx)))
	}
}

func (c *committer) add(r *request) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	size := sizeOf(r.ops)
	switch {
	case c.closed:
		return physical.ErrClosed
	case len(c.queue) >= queueMost || c.bytes+size > queueBytes:
		return fmt.Errorf("%w: too many commits wait", physical.ErrUnavailable)
	}
	c.queue = append(c.queue, r)
	c.bytes += size
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return nil
}

// take returns the requests of the next swap.
func (c *committer) take() (batch []*request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	size := 0
	for len(c.queue) > 0 && len(batch) < batchMost {
		r := c.queue[0]
		n := sizeOf(r.ops)
		if len(batch) > 0 && size+n > batchBytes {
			break
		}
		c.queue = c.queue[1:]
		c.bytes -= n
		if r.claim() {
			batch = append(batch, r)
			size += n
		}
	}
	return batch
}

// run carries the requests out, until the store is closed.
func (c *committer) run() {
	defer c.close()
	for {
		select {
		case <-c.wake:
		case <-c.store.life.Done():
			return
		}
		for batch := c.take(); len(batch) > 0; batch = c.take() {
			c.carryOut(batch)
		}
	}
}

func (c *committer) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, r := range c.queue {
		r.err = physical.ErrClosed
		close(r.done)
	}
	c.queue = nil
}

// carryOut brings a batch into the index: worked out on the index that is known, and anew while another swap came first.
func (c *committer) carryOut(batch []*request) {
	ctx, cancel := context.WithTimeoutCause(c.store.life, batchLimit, fmt.Errorf("no swap of the index within %v", batchLimit))
	defer cancel()
	v, ok := c.store.views.last()
	var err error
	for pause := pauseMin; ; pause = min(2*pause, pauseMax) {
		if !ok {
			v, err = c.store.views.present(ctx)
		}
		if err == nil {
			err = c.attempt(ctx, v, batch)
		}
		if !errors.Is(err, cell.ErrChanged) && !errors.Is(err, errNoObject) || ctx.Err() != nil {
			break
		}
		ok, err = false, nil
		pauseFor(ctx, rand.N(pause)) // so that not the same one loses every time
	}
	if err != nil && !errors.Is(err, physical.ErrUnknown) {
		err = fmt.Errorf("%w: %w", physical.ErrUnavailable, err) // nothing was swapped
		if c.store.life.Err() != nil {
			err = physical.ErrClosed
		}
	}
	for _, r := range batch {
		if err != nil {
			r.err = err
		}
		close(r.done)
	}
}

// attempt works the batch out on an index and swaps it. cell.ErrChanged or errNoObject: that index is not the present one, or was
// not to be read any more. The requests' own errors are only good if the attempt is.
func (c *committer) attempt(ctx context.Context, v view, batch []*request) error {
	d, err := c.store.draftOn(ctx, v)
	if err != nil {
		return err
	}
	for _, r := range batch {
		if r.err, err = d.apply(ctx, r); err != nil {
			return err
		}
	}
	if !d.changed() {
		now, err := c.store.views.present(ctx)
		if err == nil && now.etag != v.etag {
			err = cell.ErrChanged
		}
		return err
	}
	next, err := d.upload(ctx)
	if err != nil {
		c.store.garbage.add(d.written)
		return err
	}
	if err := c.swap(ctx, v, next); err != nil {
		if !errors.Is(err, physical.ErrUnknown) {
			c.store.garbage.add(d.written)
		}
		return err
	}
	c.store.garbage.add(d.replaced)
	return nil
}

// swap replaces the index v by next, and settles what came of a swap without an answer: while the index is still v it is
// sent again, which cannot take effect twice; once it is not, its marks tell.
func (c *committer) swap(ctx context.Context, v view, next *index) error {
	data, err := marshalIndex(next)
	if err != nil {
		return err
	}
	mark := next.Marks[len(next.Marks)-1]
	unclear := false
	for pause := pauseMin; ; pause = min(2*pause, pauseMax) {
		etag, err := c.store.objects.swap(ctx, indexName, data, v.etag)
		switch {
		case err == nil:
			c.store.views.learn(view{next, etag})
			return nil
		case errors.Is(err, physical.ErrUnknown):
			unclear = true
		case errors.Is(err, cell.ErrChanged), errors.Is(err, errNoObject):
			now, seen := c.store.views.present(ctx)
			switch {
			case seen == nil && now.marked(mark):
				return nil
			case seen == nil && now.etag != v.etag:
				return cell.ErrChanged
			case seen == nil:
				// Another swap was under way and has failed: try again.
			case !unclear:
				return seen
			}
		case !unclear:
			return err
		}
		if !pauseFor(ctx, pause/2+rand.N(pause)) {
			if !unclear {
				return context.Cause(ctx)
			}
			return fmt.Errorf("%w: the swap of the index was not answered: %w", physical.ErrUnknown, context.Cause(ctx))
		}
	}
}

// pauseFor waits and reports whether ctx is still good.
func pauseFor(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
