package cache

import (
	"context"
	"errors"
)

func (n *Node) runCluster(ctx context.Context) error {
	return errors.New("not yet")
}
