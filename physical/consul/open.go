package consul

import (
	"context"

	"github.com/locum-ha/locum/physical"
)

var _ physical.Opener = Config{}

// Kind is the store's name in the configuration.
func (Config) Kind() string { return "consul" }

// OpenStores opens it for entries and lock.
func (c Config) OpenStores(ctx context.Context, _ physical.Host) (physical.Stores, error) {
	return physical.Both(Open(ctx, c))
}
