package raft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
)

// cluster is several nodes in this process, on loopback connections that can be cut.
type cluster struct {
	t     testing.TB
	net   *testNet
	dir   string
	nodes []*node
	tune  func(*Config)
}

type node struct {
	*Store
	addr string
	path string
}

// calm lets a cluster keep its leader also while the machine is busy: for tests that hold on to one.
func calm(cfg *Config) { cfg.Performance *= 4 }

// newCluster starts n nodes and waits until one leads and all vote.
func newCluster(t testing.TB, n int, tune func(*Config)) *cluster {
	t.Helper()
	c := &cluster{t: t, net: newTestNet(), dir: t.TempDir(), tune: tune}
	t.Cleanup(c.close)
	for i := range n {
		c.nodes = append(c.nodes, &node{path: filepath.Join(c.dir, fmt.Sprint("node-", i))})
		c.open(i, i == 0)
	}
	c.join()
	return c
}

func (c *cluster) close() {
	for _, n := range c.nodes {
		if n.Store != nil {
			if err := n.Close(); err != nil {
				c.t.Errorf("close: %v", err)
			}
		}
	}
}

// open opens and starts node i. The address is kept over restarts unless it was cleared.
func (c *cluster) open(i int, bootstrap bool) {
	c.t.Helper()
	if err := c.tryOpen(i, bootstrap); err != nil {
		c.t.Fatalf("open node %d: %v", i, err)
	}
}

func (c *cluster) tryOpen(i int, bootstrap bool) error {
	n := c.nodes[i]
	listener, err := c.net.listen("?", n.addr)
	if err != nil {
		return err
	}
	n.addr = listener.Addr().String()
	cfg := Config{Path: n.path, Name: fmt.Sprint("node ", i), Advertise: n.addr, Performance: testPace}
	if os.Getenv("RAFT_TEST_LOG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", i)
	}
	if c.tune != nil {
		c.tune(&cfg)
	}
	store, err := Open(cfg)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	listener.id = store.ID()
	if bootstrap && !store.Initialized() {
		if err := store.Bootstrap(); err != nil {
			return errors.Join(err, listener.Close(), store.Close())
		}
	}
	if err := store.Start(listener); err != nil {
		return errors.Join(err, listener.Close(), store.Close())
	}
	n.Store = store
	return nil
}

// stop closes node i.
func (c *cluster) stop(i int) {
	c.t.Helper()
	if err := c.nodes[i].Close(); err != nil {
		c.t.Fatalf("close node %d: %v", i, err)
	}
	c.nodes[i].Store = nil
}

// join adds every node to the cluster and waits until all vote.
func (c *cluster) join() {
	c.t.Helper()
	leader := c.leader()
	for _, n := range c.nodes {
		if n != leader && n.Store != nil {
			c.eventually(10*time.Second, func(ctx context.Context) error { return c.leader().AddPeer(ctx, n.ID(), n.addr) })
		}
	}
	c.voters(len(c.nodes))
}

// voters waits until there are n voters, on every node's word.
func (c *cluster) voters(n int) {
	c.t.Helper()
	c.eventually(10*time.Second, func(context.Context) error {
		for i, node := range c.nodes {
			if node.Store == nil {
				continue
			}
			peers, err := node.Peers()
			if err != nil {
				return err
			}
			have := 0
			for _, p := range peers {
				if p.Voter {
					have++
				}
			}
			if have != n {
				return fmt.Errorf("node %d knows of %d voters, want %d: %+v", i, have, n, peers)
			}
		}
		return nil
	})
}

// leader waits for a node that leads and has applied everything.
func (c *cluster) leader() *node {
	c.t.Helper()
	return c.nodes[c.leaderIndex()]
}

func (c *cluster) leaderIndex() int {
	c.t.Helper()
	var found int
	c.eventually(10*time.Second, func(context.Context) error {
		for i, n := range c.nodes {
			if n.Store == nil || !n.IsLeader() {
				continue
			}
			if run := n.running(); run != nil && run.raft.Barrier(time.Second).Error() == nil {
				found = i
				return nil
			}
		}
		return errors.New("nobody leads")
	})
	return found
}

func (c *cluster) ids() []string {
	var ids []string
	for _, n := range c.nodes {
		if n.Store != nil {
			ids = append(ids, n.ID())
		}
	}
	return ids
}

// eventually tries until ok returns nil.
func (c *cluster) eventually(limit time.Duration, ok func(ctx context.Context) error) {
	c.t.Helper()
	eventually(c.t, limit, ok)
}

func eventually(t testing.TB, limit time.Duration, ok func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := ok(ctx)
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("not within %v: %v", limit, err)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t testing.TB, s *Store, key, value string) {
	t.Helper()
	must(t, s.Commit(t.Context(), nil, physical.Put(key, []byte(value))))
}

func wantValue(t testing.TB, s *Store, key, want string) {
	t.Helper()
	eventually(t, 10*time.Second, func(ctx context.Context) error {
		e, err := s.Get(ctx, key)
		if err != nil {
			return err
		}
		if string(e.Value) != want {
			return fmt.Errorf("%s holds %q, want %q", key, e.Value, want)
		}
		return nil
	})
}

func TestClusterFormsAndReplicates(t *testing.T) {
	c := newCluster(t, 3, nil)
	put(t, c.leader().Store, "a/b", "1")
	for _, n := range c.nodes {
		wantValue(t, n.Store, "a/b", "1")
	}
}

func TestFailover(t *testing.T) {
	c := newCluster(t, 3, nil)
	put(t, c.leader().Store, "a", "1")
	i := c.leaderIndex()
	c.stop(i)
	start := time.Now()
	l := c.leader()
	t.Logf("a new leader after %v", time.Since(start))
	wantValue(t, l.Store, "a", "1")
	put(t, l.Store, "a", "2")
	c.open(i, false)
	wantValue(t, c.nodes[i].Store, "a", "2")
}

type ctxT = context.Context

func removeAll(path string) error { return os.RemoveAll(path) }
