package dynamodb

import (
	"context"

	"github.com/locum-ha/locum/physical"
)

// Kind makes a Config a physical.Opener, so that a program can name the store in its own code.
func (c Config) Kind() string { return "dynamodb" }

// OpenStores opens the store for a node. It keeps the lock alone.
func (c Config) OpenStores(ctx context.Context, _ physical.Host) (physical.Stores, error) {
	return physical.LockOnly(Open(ctx, c))
}

var _ physical.Opener = Config{}
