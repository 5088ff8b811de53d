package cluster

import (
	"context"
	"fmt"
	"time"
)

// Poll calls cond every few milliseconds until it returns nil; when ctx ends, it returns cond's last error.
func Poll(ctx context.Context, what string, cond func() error) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := cond()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w (%w)", what, err, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
