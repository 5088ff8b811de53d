package cluster

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// New starts a cluster for a test and ends it with the test. When the test fails the directory is kept, or
// its logs are copied to LOCUM_TEST_LOGS, and the logs' last lines are printed.
func New(t testing.TB, options Options) *Cluster {
	t.Helper()
	if _, err := BinaryOf(options.Version); err != nil { // before the clock runs
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := Start(ctx, options)
	if err != nil {
		t.Fatalf("starting a cluster: %v", err)
	}
	t.Cleanup(func() { c.finish(t) })
	return c
}

// finish is the end of a test's cluster.
func (c *Cluster) finish(t testing.TB) {
	_ = c.CloseKeep()
	for _, n := range c.Nodes {
		if what := n.broke(); what != "" {
			t.Errorf("%s: %s", n.Name, what)
		}
	}
	if !t.Failed() {
		if err := c.Close(); err != nil {
			t.Errorf("ending the cluster: %v", err)
		}
		return
	}
	t.Logf("logs of the failed test are in %s\n%s", c.dir, c.Tails(40))
	if target := os.Getenv("LOCUM_TEST_LOGS"); target != "" {
		for _, n := range c.Nodes {
			data, _ := os.ReadFile(n.LogPath())
			dir := filepath.Join(target, t.Name())
			_ = os.MkdirAll(dir, 0o755)
			_ = os.WriteFile(filepath.Join(dir, n.Name+".log"), data, 0o644)
		}
	}
}

// NewCache starts a cache for a test and ends it with the test; when the test fails the logs' last lines are printed.
func NewCache(t testing.TB, n int, env ...string) *Cache {
	t.Helper()
	if _, err := Binary(); err != nil { // before the clock runs
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := StartCache(ctx, t.TempDir(), n, env...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if t.Failed() {
			t.Log(c.Tails(40))
		}
	})
	return c
}
