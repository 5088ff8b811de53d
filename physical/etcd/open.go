package etcd

import (
	"context"

	"github.com/locum-ha/locum/physical"
)

var _ physical.Opener = Config{}

// Kind is the store's name in the configuration.
func (Config) Kind() string { return "etcd" }

// OpenStores opens it for entries and lock.
func (c Config) OpenStores(ctx context.Context, host physical.Host) (physical.Stores, error) {
	if c.Logger == nil {
		c.Logger = host.Logger
	}
	return physical.Both(Open(ctx, c))
}
