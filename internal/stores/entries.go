package stores

import (
	"context"
	"fmt"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/physical"
)

// OpenEntries opens the store of a storage block for its entries alone, as offline commands do.
func OpenEntries(ctx context.Context, block config.Storage, host physical.Host) (physical.Backend, error) {
	s, ok := known[block.Type]
	if !ok || s.storage == nil {
		return nil, fmt.Errorf("%q is not in this version of Locum", block.Type)
	}
	opened, err := s.storage(ctx, block, host)
	if err != nil {
		return nil, err
	}
	return opened.Storage, nil
}
