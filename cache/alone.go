package cache

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// alone is the cache of a single host: no log, no network.
type alone struct {
	mu   sync.Mutex
	st   *state
	done bool
}

func (n *Node) runAlone(ctx context.Context) error {
	a := &alone{st: newState(n.events)}
	a.st.setOptions(n.cfg.Caches, n.cfg.Default)
	a.st.rev.Store(versionBase())
	a.st.clock.Store(time.Now().UnixMilli())
	r := &replica{st: a.st, fresh: new(atomic.Int64)}
	r.fresh.Store(math.MaxInt64)
	var p proposer = a
	n.current.Store(r)
	n.engine.Store(&p)
	n.health.set(Health{
		Status: Good, State: Leads, Leader: n.cfg.Self, Term: 1, Hosts: n.cfg.Hosts, Connected: n.cfg.Hosts, Quorum: 1,
	})
	n.cfg.Logger.Info("cache runs on a single host", "host", n.cfg.Self)
	if n.cfg.AuthToken != "" { // it was meant to be one of several
		n.cfg.Logger.Warn(Advice(1))
	}
	defer func() {
		n.engine.Store(nil)
		n.current.Store(nil)
		a.mu.Lock()
		a.done = true
		a.mu.Unlock()
		n.events.missed()
	}()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			a.mu.Lock()
			if next := a.st.nextExpiry(); next != 0 && next <= a.time() {
				a.st.apply(&batch{stamp: a.time()})
			}
			a.mu.Unlock()
		}
	}
}

// versionBase is where the versions of a new cache begin: above those of the one before.
func versionBase() uint64 { return uint64(time.Now().UnixMilli()) << 20 }

// time is the log's time: the wall clock at the beginning, and what has passed since.
func (a *alone) time() int64 { return machine.start.UnixMilli() + now()/int64(time.Millisecond) }

func (a *alone) propose(ctx context.Context, _ Level, r request) (response, error) {
	if ctx.Err() != nil {
		return response{}, fmt.Errorf("%w: %w", ErrNotDone, context.Cause(ctx))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.done {
		return response{}, fmt.Errorf("%w: %w", ErrNotDone, ErrClosed)
	}
	out := a.st.apply(&batch{stamp: a.time(), requests: []request{r}})
	a.st.applied.Add(1)
	return out[0], nil
}

// confirm brings the log's time up to date, for the reads that go by it.
func (a *alone) confirm(context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.st.clock.Store(max(a.st.clock.Load(), a.time()))
	return nil
}

func (a *alone) ownWrites(context.Context) error { return nil }

func (a *alone) settled() bool { return true }

func (a *alone) decided(context.Context) error { return nil }
