package memory

import (
	"context"

	"github.com/locum-ha/locum/physical"
)

// Kind makes a Store a physical.Opener, so that the nodes of one process can share it.
func (s *Store) Kind() string { return s.caps.Name }

// OpenStores opens it for a node.
func (s *Store) OpenStores(context.Context, physical.Host) (physical.Stores, error) {
	return physical.Both(s.Open(), nil)
}

var _ physical.Opener = (*Store)(nil)
