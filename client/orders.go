package client

import (
	"context"
	"net/http"
)

// Ordered is what operators have ordered for a while.
type Ordered struct {
	Paused      bool     `json:"paused"`
	Maintenance []string `json:"maintenance"`           // names of nodes
	Unconfirmed []string `json:"unconfirmed,omitempty"` // connected nodes that have not confirmed within a few seconds
	HandsOver   bool     `json:"hands_over,omitempty"`  // the active node steps down
}

// Ordered returns what is in force.
func (c *Client) Ordered(ctx context.Context) (Ordered, error) {
	var out Ordered
	_, err := c.Do(ctx, http.MethodGet, "/sys/pause", nil, &out)
	return out, err
}

// Pause suspends automatic failover.
func (c *Client) Pause(ctx context.Context) (Ordered, error) { return c.order(ctx, "/sys/pause", nil) }

// Resume ends Pause. While nobody is active it ends it on the node asked, which may then become active.
func (c *Client) Resume(ctx context.Context) (Ordered, error) {
	return c.order(ctx, "/sys/resume", nil)
}

// Maintenance takes a node out of the candidates and away from load balancers, or ends that. With force also the last one.
func (c *Client) Maintenance(ctx context.Context, node string, on, force bool) (Ordered, error) {
	return c.order(ctx, "/sys/maintenance", map[string]any{"node": node, "off": !on, "force": force})
}

func (c *Client) order(ctx context.Context, path string, in any) (Ordered, error) {
	var out Ordered
	_, err := c.Do(ctx, http.MethodPut, path, in, &out)
	return out, err
}
