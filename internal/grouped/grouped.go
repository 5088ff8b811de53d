// Package grouped joins commits that wait while others are on their way to a data store, so that they go together in one
// call: they share the round trip, the planning of statements and the sync of the store's log. It is for data stores
// alone.
//
// # Design
//
// A commit goes at once if nothing is on its way; else it waits for the next flight, together with all that wait. One more flight
// beside others begins when as many commits wait as each of those carries: a transaction takes the store much more processor time than one
// more commit in it, and flights of a few commits each take that from those who make the next commits. A lone writer waits for
// nobody; and while a flight is free, nobody waits longer than patience, so that a flight that takes long, the store being far away or
// stalled, holds up no other.
//
// Commits go together only if they carry the same fence and name no key in common; so a store may carry them out in any
// order within a call, and those that see what others wrote go in a later one.
package grouped

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/locum-ha/locum/physical"
)

// Limits bound one call.
type Limits struct {
	Flights int // calls on their way at once
	Commits int // in a call
	Ops     int // in a call, unless one commit has more; 0: any number
	Bytes   int // of keys and values in a call, unless one commit has more
}

// Commits that wait are bounded (P12).
const (
	mostWaiting = 16 << 10
	mostBytes   = 64 << 20
)

// patience is how long commits wait for more of them while a flight is free.
const patience = 5 * time.Millisecond

// Send carries out commits that share a fence, the zero Fence for none, and no key. It returns one result for each, in
// the terms of package physical. Its context ends when nobody waits for a result any more, or with the store.
type Send func(ctx context.Context, fence physical.Fence, commits [][]physical.Op) []error

// Committer joins commits into groups.
type Committer struct {
	life   context.Context
	limits Limits
	send   Send
	tasks  sync.WaitGroup

	mu      sync.Mutex
	queue   []*waiting
	bytes   int // in the queue
	flying  int
	aloft   int         // commits that are in flight
	overdue *time.Timer // has what waits fly although it is little; nil while nothing waits for more
	ended   bool        // by Wait
}

// waiting is a commit on its way.
type waiting struct {
	fence physical.Fence
	ops   []physical.Op
	size  int
	done  chan error // buffered
	group *group     // that it is in, once it is sent; guarded by Committer.mu
}

// group is what goes in one call.
type group struct {
	members []*waiting
	present int                // callers that still wait
	cancel  context.CancelFunc // ends the call when nobody waits for it any more
}

// New makes a Committer that lives until life ends; its owner calls Wait then.
func New(life context.Context, limits Limits, send Send) *Committer {
	return &Committer{life: life, limits: limits, send: send}
}

// Wait refuses what waits, and returns when all flights have ended, after life has.
func (c *Committer) Wait() {
	c.mu.Lock()
	c.ended = true
	c.calm()
	for _, w := range c.queue {
		w.done <- physical.ErrClosed
	}
	c.queue = nil
	c.mu.Unlock()
	c.tasks.Wait()
}

// Commit sends ops, together with others where others wait, and returns their own result. If ctx ends first, what was not sent
// yet will not be; of the rest the outcome is unknown.
func (c *Committer) Commit(ctx context.Context, fence physical.Fence, ops []physical.Op) error {
	w := &waiting{fence: fence, ops: ops, done: make(chan error, 1)}
	for _, op := range ops {
		w.size += len(op.Key) + len(op.Value)
	}
	if err := c.enqueue(w); err != nil {
		return err
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return c.leave(ctx, w)
	}
}

// enqueue adds w, and begins a flight if one is due.
func (c *Committer) enqueue(w *waiting) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ended || c.life.Err() != nil:
		return physical.ErrClosed
	case len(c.queue) >= mostWaiting || c.bytes+w.size > mostBytes && len(c.queue) > 0:
		return fmt.Errorf("%w: too many commits wait for it", physical.ErrUnavailable)
	}
	c.queue = append(c.queue, w)
	c.bytes += w.size
	if c.due() {
		c.begin()
	}
	return nil
}

// due reports whether one more flight is to begin with what waits; else, while one is free, it will be soon. The caller holds mu.
func (c *Committer) due() bool {
	switch {
	case len(c.queue) == 0 || c.flying == c.limits.Flights:
		return false
	case c.flying == 0 || len(c.queue)*c.flying >= c.aloft:
		return true
	case c.overdue == nil:
		c.overdue = time.AfterFunc(patience, c.hurry)
	}
	return false
}

// hurry begins a flight with the little that waits.
func (c *Committer) hurry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.overdue = nil
	if len(c.queue) > 0 && c.flying < c.limits.Flights && !c.ended {
		c.begin()
	}
}

// calm undoes what due has set up. The caller holds mu.
func (c *Committer) calm() {
	if c.overdue != nil {
		c.overdue.Stop()
		c.overdue = nil
	}
}

// begin begins a flight. The caller holds mu.
func (c *Committer) begin() {
	c.flying++
	c.tasks.Go(c.fly)
}

// Waiting is how many commits wait for a flight.
func (c *Committer) Waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.queue)
}

// leave takes a commit back whose caller goes.
func (c *Committer) leave(ctx context.Context, w *waiting) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case err := <-w.done: // at the last moment
		return err
	default:
	}
	if w.group == nil {
		c.queue = slices.DeleteFunc(c.queue, func(o *waiting) bool { return o == w })
		c.bytes -= w.size
		return context.Cause(ctx)
	}
	if w.group.present--; w.group.present == 0 {
		w.group.cancel()
	}
	return fmt.Errorf("%w: %w", physical.ErrUnknown, context.Cause(ctx))
}

// fly sends groups until none is due.
func (c *Committer) fly() {
	for more := true; more; {
		ctx, cancel := context.WithCancel(c.life)
		g := c.take(cancel)
		if len(g.members) > 0 {
			commits := make([][]physical.Op, len(g.members))
			for i, w := range g.members {
				commits[i] = w.ops
			}
			for i, err := range c.send(ctx, g.members[0].fence, commits) {
				g.members[i].done <- err
			}
		}
		cancel()
		more = c.land(g)
	}
}

// land ends a call, and reports whether its flight goes on with another.
func (c *Committer) land(g *group) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.aloft -= len(g.members)
	c.flying--
	if !c.due() {
		return false
	}
	c.flying++
	return true
}

// take takes from the queue what can go in one call: nothing if another flight was faster, or at the end of life, when what waits is
// refused.
func (c *Committer) take(cancel context.CancelFunc) *group {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calm()
	g := &group{cancel: cancel}
	keys := make(map[string]bool)
	var rest []*waiting
	ops, size := 0, 0
	for _, w := range c.queue {
		full := len(g.members) > 0 && (c.limits.Ops > 0 && ops+len(w.ops) > c.limits.Ops || size+w.size > c.limits.Bytes) || len(g.members) == c.limits.Commits
		switch {
		case c.life.Err() != nil:
			w.done <- physical.ErrClosed
			continue
		case full || w.fence != c.queue[0].fence || !disjoint(w.ops, keys):
			rest = append(rest, w)
			continue
		}
		ops, size = ops+len(w.ops), size+w.size
		w.group = g
		w.ops = cloned(w.ops) // the caller may go, and its values are its own then
		g.members = append(g.members, w)
	}
	c.queue, c.bytes = rest, 0
	for _, w := range rest {
		c.bytes += w.size
	}
	g.present = len(g.members)
	c.aloft += g.present
	return g
}

// disjoint adds the keys of ops, unless one of them is there: one op may stand beside another on the same key in a commit.
func disjoint(ops []physical.Op, keys map[string]bool) bool {
	for _, op := range ops {
		if keys[op.Key] {
			return false
		}
	}
	for _, op := range ops {
		keys[op.Key] = true
	}
	return true
}

// cloned copies ops with their values.
func cloned(ops []physical.Op) []physical.Op {
	ops = slices.Clone(ops)
	for i := range ops {
		ops[i].Value = bytes.Clone(ops[i].Value)
	}
	return ops
}
