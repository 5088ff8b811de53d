// Package grouped joins commits that wait while others are on their way to a data store, so that they go together in one
// call: they share the round trip, the planning of statements and the sync of the store's log. It is for data stores
// alone.
//
// # Design
//
// A commit goes at once if a flight is free; else it waits for the next flight, together with all that wait. There is no timer,
// so a lone writer waits for nobody. Commits go together only if they carry the same fence and name no key in common; so a
// store may carry them out in any order within a call, and those that see what others wrote go in a later one.
package grouped

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/locum-ha/locum/physical"
)

// Limits bound one call.
type Limits struct {
	Flights int // calls on their way at once
	Commits int // in a call
	Ops     int // in a call, unless one commit has more
	Bytes   int // of keys and values in a call, unless one commit has more
}

// Send carries out commits that share a fence, the zero Fence for none, and no key. It returns one result for each, in
// the terms of package physical. Its context ends when nobody waits for a result any more, or with the store.
type Send func(ctx context.Context, fence physical.Fence, commits [][]physical.Op) []error

// Committer joins commits into groups.
type Committer struct {
	life   context.Context
	limits Limits
	send   Send
	tasks  sync.WaitGroup

	mu     sync.Mutex
	queue  []*waiting
	flying int
	ended  bool // by Wait
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

// Wait returns when all flights have ended, after life has.
func (c *Committer) Wait() {
	c.mu.Lock()
	c.ended = true
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
	if !c.enqueue(w) {
		return physical.ErrClosed
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return c.leave(ctx, w)
	}
}

// enqueue adds w, and begins a flight if one is free.
func (c *Committer) enqueue(w *waiting) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || c.life.Err() != nil {
		return false
	}
	c.queue = append(c.queue, w)
	if c.flying < c.limits.Flights {
		c.flying++
		c.tasks.Go(c.fly)
	}
	return true
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
		return context.Cause(ctx)
	}
	if w.group.present--; w.group.present == 0 {
		w.group.cancel()
	}
	return fmt.Errorf("%w: %w", physical.ErrUnknown, context.Cause(ctx))
}

// fly sends groups until nobody waits.
func (c *Committer) fly() {
	for {
		ctx, cancel := context.WithCancel(c.life)
		g := c.next(cancel)
		if g == nil {
			cancel()
			return
		}
		commits := make([][]physical.Op, len(g.members))
		for i, w := range g.members {
			commits[i] = w.ops
		}
		for i, err := range c.send(ctx, g.members[0].fence, commits) {
			g.members[i].done <- err
		}
		cancel()
	}
}

// next takes from the queue what can go in one call: nil, and the flight ends, if nobody waits.
func (c *Committer) next(cancel context.CancelFunc) *group {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) == 0 {
		c.flying--
		return nil
	}
	g := &group{cancel: cancel}
	keys := make(map[string]bool)
	ops, size := 0, 0
	for _, w := range c.queue {
		ops, size = ops+len(w.ops), size+w.size
		full := len(g.members) > 0 && (ops > c.limits.Ops || size > c.limits.Bytes) || len(g.members) == c.limits.Commits
		if full || w.fence != c.queue[0].fence || !disjoint(w.ops, keys) {
			break
		}
		w.group = g
		w.ops = cloned(w.ops) // the caller may go, and its values are its own then
		g.members = append(g.members, w)
	}
	g.present = len(g.members)
	c.queue = slices.Clone(c.queue[len(g.members):])
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
