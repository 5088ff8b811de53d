package test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

type ordered struct {
	Paused      bool     `json:"paused"`
	Maintenance []string `json:"maintenance"`
	Unconfirmed []string `json:"unconfirmed"`
}

// "Pause and resume of automatic failover": nobody takes over from a node that was killed, that node is active again when it
// comes back, a step-down still works, and where nobody is active one standby can be told to take part again.
func TestPause(t *testing.T) {
	c := cluster.New(t, cluster.Options{Nodes: 3})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	call := func(n *cluster.Node, path string) ordered {
		t.Helper()
		var o ordered
		if err := c.Call(ctx, n, "PUT", path, map[string]any{}, &o); err != nil {
			t.Fatal(path, err)
		}
		return o
	}
	first, term := findActive(t, c)
	if o := call(c.Nodes[0], "/v1/sys/pause"); !o.Paused || len(o.Unconfirmed) > 0 {
		t.Fatalf("pause: %+v", o)
	}
	first.Kill()
	quiet, over := context.WithTimeout(ctx, 3*time.Second)
	if n, err := c.WaitActive(quiet, first); err == nil {
		t.Fatalf("%s took over in a pause", n.Name)
	}
	over()
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	again, err := c.WaitActive(ctx)
	if err != nil || again != first {
		t.Fatalf("after the restart %v is active, want %s: %v", again, first.Name, err)
	}
	if _, now := findActive(t, c); now <= term {
		t.Fatalf("term %d after %d", now, term)
	}
	if err := cluster.Poll(ctx, "step-down in a pause", func() error { return c.StepDown(ctx, first, "", 10*time.Second) }); err != nil {
		t.Fatal(err)
	}
	second, err := c.WaitActive(ctx, first)
	if err != nil {
		t.Fatal(err)
	}
	second.Kill()
	third := c.Nodes[slices.IndexFunc(c.Nodes, func(n *cluster.Node) bool { return n != first && n != second })]
	var o ordered
	err = cluster.Poll(ctx, "resume where nobody is active", func() error { return c.Call(ctx, third, "PUT", "/v1/sys/resume", map[string]any{}, &o) })
	if err != nil || o.Paused {
		t.Fatalf("resume: %+v, %v", o, err)
	}
	if _, err := c.WaitActive(ctx, second); err != nil {
		t.Fatal(err)
	}
	if err := c.Call(ctx, third, "GET", "/v1/sys/pause", nil, &o); err != nil || o.Paused {
		t.Fatalf("the pause is not over for all: %+v, %v", o, err)
	}
}

// "Maintenance of one node (drained, no candidate)", over its own restart, until it ends; never the last one by accident.
func TestMaintenance(t *testing.T) {
	c := cluster.New(t, calm)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	order := func(n *cluster.Node, off bool) error {
		var o ordered
		return c.Call(ctx, c.Nodes[0], "PUT", "/v1/sys/maintenance", map[string]any{"node": n.Name, "off": off}, &o)
	}
	ready := func(n *cluster.Node) error { return c.Call(ctx, n, "GET", "/v1/sys/ready", nil, nil) }
	first, _ := findActive(t, c)
	if err := order(first, false); err != nil {
		t.Fatal(err)
	}
	second, err := c.WaitActive(ctx, first)
	if err != nil {
		t.Fatal("the node in maintenance did not hand over: ", err)
	}
	var past struct {
		Data struct {
			Leaderships []struct{ Node, Reason string }
		}
	}
	if err := c.Call(ctx, second, "GET", "/v1/sys/history", nil, &past); err != nil || len(past.Data.Leaderships) < 2 || past.Data.Leaderships[1].Reason != "in maintenance" {
		t.Errorf("why its leadership ended: %+v %v", past, err)
	}
	resting := func() error {
		var status *cluster.StatusError
		if err := ready(first); !errors.As(err, &status) || status.Code != 503 {
			return fmt.Errorf("%s is ready: %v", first.Name, err)
		}
		return nil
	}
	if err := cluster.Poll(ctx, "the node in maintenance says so", resting); err != nil {
		t.Fatal(err)
	}
	if err := first.Stop(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Poll(ctx, "it still does after a restart", resting); err != nil {
		t.Fatal(err)
	}
	third := c.Nodes[slices.IndexFunc(c.Nodes, func(n *cluster.Node) bool { return n != first && n != second })]
	second.Kill()
	if n, err := c.WaitActive(ctx, second); err != nil || n != third {
		t.Fatalf("%v took over, want %s: %v", n, third.Name, err)
	}
	var status *cluster.StatusError
	if err := order(third, false); !errors.As(err, &status) || status.Code != 400 {
		t.Fatalf("the last candidate goes into maintenance: %v", err)
	}
	if err := order(first, true); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Poll(ctx, "it is ready again", func() error { return ready(first) }); err != nil {
		t.Fatal(err)
	}
	third.Kill()
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.WaitActive(ctx, third); err != nil {
		t.Fatal(err)
	}
}
