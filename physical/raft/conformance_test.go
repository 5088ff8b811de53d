package raft

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical/physicaltest"
)

// harness puts a cluster of n nodes under the suites.
func harness(n int) physicaltest.Harness {
	return func(t testing.TB) physicaltest.Store {
		c := newCluster(t, n, nil)
		return physicaltest.Store{
			Nodes: n,
			Open: func(i int) (physicaltest.Handle, error) {
				if c.nodes[i].Store == nil || c.nodes[i].isClosed() {
					if err := c.tryOpen(i, false); err != nil {
						return nil, err
					}
				}
				return c.nodes[i].Store, nil
			},
			Names: func(i int) string { return c.nodes[i].ID() },
			Writer: func(ctx context.Context) (int, error) {
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
			},
			ElectsItself: true,
			Isolate:      func(i int) func() { return c.net.isolate(c.nodes[i].ID(), c.ids()...) },
		}
	}
}

func TestBackendSuite(t *testing.T) { physicaltest.Backend(t, harness(3)) }

func TestBackendSuiteAlone(t *testing.T) { physicaltest.Backend(t, harness(1)) }

func TestLockSuite(t *testing.T) { physicaltest.HABackend(t, harness(3)) }

func TestLockSuiteAlone(t *testing.T) { physicaltest.HABackend(t, harness(1)) }
