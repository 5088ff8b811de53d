package test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// A step-down that names its successor, asked for at any node, makes that one active.
func TestStepDownTo(t *testing.T) {
	c := cluster.New(t, calm)
	ctx := within(t, time.Minute)
	for i := range 4 {
		before, term := findActive(t, c)
		to := c.Nodes[(before.Index+1+i%2)%3]
		if err := c.StepDown(ctx, c.Nodes[i%3], to.Name, 20*time.Second); err != nil {
			t.Fatalf("from %s to %s through %s: %v", before.Name, to.Name, c.Nodes[i%3].Name, err)
		}
		if now, newTerm := findActive(t, c); now != to || newTerm <= term {
			t.Errorf("from %s to %s: now %v in term %d after %d", before.Name, to.Name, now, newTerm, term)
		}
		if err := c.WaitHealthy(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.StepDown(ctx, c.Nodes[0], "nobody", 5*time.Second); err == nil {
		t.Error("a step-down to an unknown node was accepted")
	}
}

// A node that is no candidate is never active, whatever happens to the others; it forwards as any standby.
func TestNoCandidate(t *testing.T) {
	c := cluster.New(t, cluster.Options{Performance: calm.Performance, Extra: func(n *cluster.Node) string {
		return fmt.Sprintf("ha {\n  candidate = %v\n}\n", n.Index != 2)
	}})
	ctx := within(t, time.Minute)
	third := clientsOf(t, c)[2]
	for i := range 3 {
		active, err := c.WaitActive(ctx)
		if err != nil {
			t.Fatal(err)
		}
		active.Kill()
		next, err := c.WaitActive(ctx, active)
		if err != nil {
			t.Fatal(err)
		}
		if next == c.Nodes[2] {
			t.Errorf("%s is active and no candidate", next.Name)
		}
		put(ctx, t, third, fmt.Sprintf("candidate/%d", i), "written")
		if err := active.Start(); err != nil {
			t.Fatal(err)
		}
		if err := c.WaitHealthy(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// P8: after a rotation everything is readable, new entries use the new key, and the next active node follows.
func TestRotation(t *testing.T) {
	c := cluster.New(t, calm)
	ctx := within(t, time.Minute)
	clients := clientsOf(t, c)
	put(ctx, t, clients[0], "rotate/old", "before")
	for range 3 {
		active, _ := findActive(t, c)
		standby := c.Nodes[(active.Index+1)%3]
		if err := c.Call(ctx, standby, http.MethodPost, "/v1/sys/rotate", nil, nil); err != nil {
			t.Fatal(err)
		}
		put(ctx, t, clients[0], "rotate/new", "after")
		if err := c.StepDown(ctx, standby, "", 20*time.Second); err != nil {
			t.Fatal(err)
		}
		expect(ctx, t, clients[active.Index], "rotate/old", "before")
		expect(ctx, t, clients[active.Index], "rotate/new", "after")
	}
	var status struct {
		Term int `json:"term"`
	}
	if err := c.Call(ctx, c.Nodes[0], http.MethodGet, "/v1/sys/key-status", nil, &status); err != nil || status.Term != 4 {
		t.Errorf("key term %d after three rotations, %v", status.Term, err)
	}
}

// A changed address is adopted after a restart, of a standby and of the active node.
func TestChangedAddress(t *testing.T) {
	c := cluster.New(t, calm)
	ctx := within(t, time.Minute)
	for i := range 2 {
		active, err := c.WaitActive(ctx)
		if err != nil {
			t.Fatal(err)
		}
		n := c.Nodes[(active.Index+i)%3]
		if err := n.Stop(20 * time.Second); err != nil {
			t.Fatal(err)
		}
		if err := c.Move(n); err != nil {
			t.Fatal(err)
		}
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
		adopted(ctx, t, c, n)
		if err := c.WaitHealthy(ctx); err != nil {
			t.Fatal(err)
		}
		put(ctx, t, clientsOf(t, c)[n.Index], fmt.Sprintf("moved/%d", i), "written")
		if err := c.StepDown(ctx, c.Nodes[0], n.Name, 20*time.Second); err != nil { // as the active node it is reached too
			t.Fatal(err)
		}
		put(ctx, t, clientsOf(t, c)[(n.Index+1)%3], fmt.Sprintf("moved/%d", i), "again")
	}
}

// adopted waits until the cluster has taken over where n is now.
func adopted(ctx context.Context, t *testing.T, c *cluster.Cluster, n *cluster.Node) {
	t.Helper()
	err := cluster.Poll(ctx, n.Name+"'s new address is adopted", func() error {
		active, _ := c.Active(ctx)
		if active == nil {
			return errors.New("nobody is active")
		}
		peers, err := c.Peers(ctx, active)
		for _, p := range peers {
			if p.Address == n.ClusterAddress() && p.Voter {
				return nil
			}
		}
		return fmt.Errorf("peers %v, %v", peers, err)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Of two nodes that have moved, one while the other was down, each knows only where the other was: the one that comes back tells the
// active node by the way of joining.
func TestMovedWhileAnotherWasDown(t *testing.T) {
	c := cluster.New(t, cluster.Options{})
	ctx := within(t, time.Minute)
	active, err := c.WaitActive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	leads, down := c.Nodes[(active.Index+1)%3], c.Nodes[(active.Index+2)%3]
	for _, n := range []*cluster.Node{down, leads} {
		if err := n.Stop(20 * time.Second); err != nil {
			t.Fatal(err)
		}
		if err := c.Move(n); err != nil {
			t.Fatal(err)
		}
	}
	if err := leads.Start(); err != nil {
		t.Fatal(err)
	}
	adopted(ctx, t, c, leads)
	if err := c.StepDown(ctx, leads, leads.Name, 20*time.Second); err != nil && !strings.Contains(err.Error(), "is the active node already") {
		t.Fatal(err)
	}
	if err := down.Start(); err != nil {
		t.Fatal(err)
	}
	adopted(ctx, t, c, down)
	if err := c.WaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
}
