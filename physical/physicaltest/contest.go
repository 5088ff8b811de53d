package physicaltest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/locum-ha/locum/physical"
)

const contenders = 32

// checkContest: 32 contenders for 100 rounds; each winner renews, releases or leaves the lock to run out, and
// tries afterwards to renew and to release what it lost. The history is checked with porcupine against the model of a
// lock with rising terms (lockModel).
func checkContest(s *scene) {
	s.quick()
	rounds := int64(100)
	if testing.Short() {
		rounds = 25
	}
	c := &contest{scene: s, rounds: rounds, start: time.Now(), refused: make(map[uint64]int)}
	c.abandons.Store(min(8, 1+int64(5*time.Second/s.ttl())))
	nodes := s.several(contenders)
	for n := range nodes {
		s.lock(n)
	}
	s.parallel(contenders, func(ctx context.Context, i int) error {
		n := i % nodes
		who := s.record(n)
		if s.store.Names == nil {
			who.Holder = fmt.Sprintf("contender-%d", i)
		}
		if err := c.contend(ctx, i, n, who); err != nil {
			return fmt.Errorf("contender %d: %w", i, err)
		}
		return nil
	})
	s.Logf("%d attempts, renewals and releases; %d rounds", len(c.history), c.won.Load())
	model := lockModel(s.store.ElectsItself)
	if result := porcupine.CheckOperationsTimeout(model, c.history, time.Minute); result != porcupine.Ok {
		s.Errorf("the history of the lock is not that of one lock with rising terms: porcupine says %s", result)
	}
}

type contest struct {
	*scene
	rounds   int64
	won      atomic.Int64
	abandons atomic.Int64 // how many more locks may be left to run out
	start    time.Time

	mu      sync.Mutex
	history []porcupine.Operation
	refused map[uint64]int // by term: how many refusals are in the history
}

// refusalsKept is how many refusals of one term are put into the history. They change nothing, so their order is free,
// and the search for one would take exponentially long with all 31 contenders refused at once on a store that is slow.
const refusalsKept = 4

func (c *contest) now() int64 { return int64(time.Since(c.start)) }

// record adds an operation that was called at call and returns now.
func (c *contest) record(client int, in lockInput, out lockOutput) {
	out.at = c.now()
	op := porcupine.Operation{ClientId: client, Input: in, Call: in.at, Output: out, Return: out.at}
	if out.outcome == outcomeUnknown {
		op.Return = int64(1) << 62 // it may be carried out at any time from now on
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if out.outcome == outcomeHeld {
		if c.refused[out.term]++; c.refused[out.term] > refusalsKept {
			return
		}
	}
	c.history = append(c.history, op)
}

func (c *contest) contend(ctx context.Context, client, n int, who physical.Record) error {
	lock := c.lock(n)
	for ctx.Err() == nil && c.won.Load() < c.rounds {
		g, err := c.acquire(ctx, client, lock, who)
		if err == nil {
			c.won.Add(1)
			err = c.use(ctx, client, lock, g)
			if y, ok := lock.(physical.Yielder); ok && rand.N(10) == 0 {
				_ = y.Yield(ctx, "")
			}
		} else if mayRetry(err) {
			err = c.wait(ctx, lock, err)
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// wait returns when another attempt has become worth while, or after a moment.
func (c *contest) wait(ctx context.Context, lock physical.HABackend, err error) error {
	var heldErr *physical.HeldError
	w, ok := lock.(physical.Watcher)
	if !ok || !errors.As(err, &heldErr) {
		pause(ctx, min(c.ttl()/5, 20*time.Millisecond))
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.ttl())
	defer cancel()
	if _, err := w.Watch(ctx, heldErr.Record); err != nil && ctx.Err() == nil && !mayRetry(err) {
		return fmt.Errorf("watch: %w", err)
	}
	return nil
}

func (c *contest) acquire(ctx context.Context, client int, lock physical.HABackend, who physical.Record) (physical.Grant, error) {
	in := lockInput{kind: opAcquire, above: uint64(rand.N(3)) * uint64(c.won.Load()), ttl: int64(c.ttl()), at: c.now()}
	g, err := lock.Acquire(ctx, who, c.ttl(), in.above)
	var heldErr *physical.HeldError
	switch {
	case err == nil:
		in.ttl = int64(g.TTL)
		c.record(client, in, lockOutput{outcome: outcomeOK, term: g.Term()})
	case errors.As(err, &heldErr):
		c.record(client, in, lockOutput{outcome: outcomeHeld, term: heldErr.Record.Term})
	case errors.Is(err, physical.ErrUnknown):
		c.record(client, in, lockOutput{outcome: outcomeUnknown})
	}
	return g, err
}

// use does with a lock what holders do, and then what they must not get away with.
func (c *contest) use(ctx context.Context, client int, lock physical.HABackend, g physical.Grant) error {
	moment := func() { pause(ctx, rand.N(min(c.ttl()/50, 3*time.Millisecond))) }
	moment() // in which others meet a lock that is held
	for range rand.N(3) {
		if err := c.renew(ctx, client, lock, g); err != nil {
			return err
		}
		moment()
	}
	if rand.N(8) == 0 && c.abandons.Add(-1) >= 0 {
		pause(ctx, g.TTL+g.TTL/10) // meanwhile it runs out, and another takes it
	} else if err := c.release(ctx, client, lock, g); err != nil {
		return err
	}
	moment() // in which another takes it
	if rand.N(4) == 0 {
		if err := c.renew(ctx, client, lock, g); err != nil {
			return err
		}
	}
	if rand.N(4) == 0 {
		return c.release(ctx, client, lock, g)
	}
	return nil
}

func (c *contest) renew(ctx context.Context, client int, lock physical.HABackend, g physical.Grant) error {
	in := lockInput{kind: opRenew, term: g.Term(), ttl: int64(g.TTL), at: c.now()}
	_, err := lock.Renew(ctx, g)
	switch {
	case err == nil:
		c.record(client, in, lockOutput{outcome: outcomeOK})
	case errors.Is(err, physical.ErrLost):
		c.record(client, in, lockOutput{outcome: outcomeLost})
	case mayRetry(err): // perhaps extended: the model allows for both by taking no notice
	default:
		return fmt.Errorf("renew: %w", err)
	}
	return nil
}

func (c *contest) release(ctx context.Context, client int, lock physical.HABackend, g physical.Grant) error {
	in := lockInput{kind: opRelease, term: g.Term(), at: c.now()}
	err := lock.Release(ctx, g, "")
	switch {
	case err == nil:
		c.record(client, in, lockOutput{outcome: outcomeOK})
	case errors.Is(err, physical.ErrUnknown):
		c.record(client, in, lockOutput{outcome: outcomeUnknown})
	case mayRetry(err):
	default:
		return fmt.Errorf("release: %w", err)
	}
	return nil
}
