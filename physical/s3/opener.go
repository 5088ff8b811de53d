package s3

import (
	"context"

	"github.com/locum-ha/locum/physical"
)

// Kind makes a Config a physical.Opener, so that a program can name the store in its own code.
func (c Config) Kind() string { return "s3" }

// OpenStores opens the store for a node. It keeps entries and lock.
func (c Config) OpenStores(ctx context.Context, host physical.Host) (physical.Stores, error) {
	if c.Logger == nil {
		c.Logger = host.Logger
	}
	return physical.Both(Open(ctx, c))
}

var _ physical.Opener = Config{}
