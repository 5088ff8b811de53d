package file

import (
	"context"

	"github.com/locum-ha/locum/physical"
)

// Kind makes a Config a physical.Opener, so that a program can name the store in its own code.
func (c Config) Kind() string { return "file" }

// OpenStores opens the store for a node, which runs alone.
func (c Config) OpenStores(_ context.Context, host physical.Host) (physical.Stores, error) {
	if c.Logger == nil {
		c.Logger = host.Logger
	}
	s, err := Open(c)
	if err != nil {
		return physical.Stores{}, err
	}
	return physical.Stores{Storage: s}, nil
}

var _ physical.Opener = Config{}
