package raft

import (
	"context"

	"github.com/locum-ha/locum/physical"
)

// Kind makes a Config a physical.Opener, so that a program can name the store in its own code: Path is all that it
// needs to say.
func (c Config) Kind() string { return "raft" }

// OpenStores opens the store for a node. What c leaves out of name, address, log and observer is the node's.
func (c Config) OpenStores(_ context.Context, host physical.Host) (physical.Stores, error) {
	if c.Name == "" {
		c.Name = host.NodeName
	}
	if c.Advertise == "" {
		c.Advertise = host.ClusterAddr
	}
	if c.Logger == nil {
		c.Logger = host.Logger
	}
	if o := c.Observer; o.Leading == nil && o.Committed == nil && o.Stored == nil && o.Snapshot == nil && o.Refused == nil {
		c.Observer = host.Engine
	}
	return physical.Both(Open(c))
}

var _ physical.Opener = Config{}
