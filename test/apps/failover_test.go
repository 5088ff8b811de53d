package apps

import (
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

func settle(t *testing.T, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// P5: "No request that can end within the drain limit fails, of any method, arriving at any node, the one that steps down
// included."
func TestSwitchover(t *testing.T) {
	app, url := counting(t)
	c := startCalm(t, application(url, ""), answers)
	tr := drive(c.Nodes, 500)
	for range 3 {
		settle(t, 700*time.Millisecond)
		if err := c.StepDown(within(t, 20*time.Second), c.Nodes[0], "", 20*time.Second); err != nil {
			t.Error(err)
		}
	}
	settle(t, 500*time.Millisecond)
	judge(t, tr.Stop(), app, true)
}

// P6: after a crash of the active node no GET fails; a POST is carried out once, or its outcome is said to be unknown.
func TestCrash(t *testing.T) {
	app, url := counting(t)
	c := start(t, application(url, ""), answers)
	active := findActive(t, c)
	others := slices.DeleteFunc(slices.Clone(c.Nodes), func(n *cluster.Node) bool { return n == active })
	tr := drive(others, 500)
	settle(t, 500*time.Millisecond)
	active.Kill()
	if _, err := c.WaitActive(within(t, 20*time.Second), active); err != nil {
		t.Error(err)
	}
	settle(t, time.Second)
	judge(t, tr.Stop(), app, false)
}

// Issue 5, point 7: "a documented and tested rolling restart and upgrade of all nodes with 0 failed requests". The way of
// docs/applications/README.md: one node after the other, drained before and put back after; its clients are at the others meanwhile.
func TestRollingRestart(t *testing.T) {
	app, url := counting(t)
	c := startCalm(t, application(url, ""), answers)
	for _, n := range c.Nodes {
		others := slices.DeleteFunc(slices.Clone(c.Nodes), func(o *cluster.Node) bool { return o == n })
		tr := drive(others, 300)
		settle(t, 300*time.Millisecond)
		maintenance(t, c, others[0], n, false)
		if err := n.Stop(30 * time.Second); err != nil {
			t.Error(err)
		}
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
		if err := c.WaitHealthy(within(t, 20*time.Second)); err != nil {
			t.Error(err)
		}
		if err := cluster.Poll(within(t, 10*time.Second), n.Name+" serves again", func() error { return answers(address(n)) }); err != nil {
			t.Error(err)
		}
		maintenance(t, c, others[0], n, true)
		judge(t, tr.Stop(), app, true)
	}
}

// maintenance takes a node out of service, or puts it back, and returns when that is so.
func maintenance(t *testing.T, c *cluster.Cluster, through, n *cluster.Node, off bool) {
	t.Helper()
	ctx := within(t, 20*time.Second)
	if err := c.Call(ctx, through, http.MethodPost, "/v1/sys/maintenance", map[string]any{"node": n.Name, "off": off}, nil); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Poll(ctx, "another node than "+n.Name+" is active", func() error {
		if active, _ := c.Active(ctx); active == nil || !off && active == n {
			return errors.New("none is")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
