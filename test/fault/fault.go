package fault

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// errNobody: there is no active node to do something to.
var errNobody = errors.New("nobody is active")

// StepDown hands leadership over as planned, under load at all nodes. The request to step down goes to the
// active node's neighbour, as any client's would.
func StepDown(ctx context.Context, c *cluster.Cluster, l Load) (*Outcome, error) {
	active, _ := c.Active(ctx)
	if active == nil {
		return nil, errNobody
	}
	through := others(c, active)[0]
	s := begin(c, l, c.Nodes)
	out := &Outcome{}
	if err := s.hit(ctx, active); err != nil {
		return nil, err
	}
	start := time.Now()
	if err := c.StepDown(ctx, through, "", 30*time.Second); err != nil {
		s.abandon()
		return nil, fmt.Errorf("step-down of %s: %w", active.Name, err)
	}
	return out, s.settle(ctx, out, start, active)
}

// Stop ends the active node's process as planned (SIGTERM), under load at the others, and starts it again
// at the end.
func Stop(ctx context.Context, c *cluster.Cluster, l Load) (*Outcome, error) {
	return end(ctx, c, l, func(n *cluster.Node) error { return n.Stop(30 * time.Second) })
}

// Crash kills the active node (kill -9), under load at the others, and starts it again at the end.
func Crash(ctx context.Context, c *cluster.Cluster, l Load) (*Outcome, error) {
	return end(ctx, c, l, func(n *cluster.Node) error { n.Kill(); return nil })
}

func end(ctx context.Context, c *cluster.Cluster, l Load, how func(*cluster.Node) error) (*Outcome, error) {
	active, _ := c.Active(ctx)
	if active == nil {
		return nil, errNobody
	}
	s := begin(c, l, others(c, active))
	out := &Outcome{}
	if err := s.hit(ctx, active); err != nil {
		return nil, err
	}
	start := time.Now()
	if err := how(active); err != nil {
		s.abandon()
		return nil, fmt.Errorf("ending %s: %w", active.Name, err)
	}
	if err := s.settle(ctx, out, start, active); err != nil {
		return out, err
	}
	if err := active.Start(); err != nil {
		return out, err
	}
	return out, c.WaitHealthy(ctx)
}

// settle waits for the next active node, and ends the load.
func (s *session) settle(ctx context.Context, out *Outcome, start time.Time, old *cluster.Node) error {
	if _, err := s.c.WaitActive(ctx, old); err != nil {
		s.abandon()
		return err
	}
	out.NewActive = time.Since(start)
	return s.end(ctx, out)
}

func others(c *cluster.Cluster, except *cluster.Node) []*cluster.Node {
	var nodes []*cluster.Node
	for _, n := range c.Nodes {
		if n != except && n.Running() {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// PowerLoss kills the active node's whole process tree, the guardian included, under load at the others, and starts it again at
// the end: its lock runs out.
func PowerLoss(ctx context.Context, c *cluster.Cluster, l Load) (*Outcome, error) {
	return end(ctx, c, l, func(n *cluster.Node) error { n.KillTree(); return nil })
}
