//go:build !linux

package supervise

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/locum-ha/locum/physical"
)

// Release gives a lock up on behalf of a node that died: plan is what the node said to that end (Guard.Plan).
type Release func(ctx context.Context, plan json.RawMessage, grant physical.Grant) error

// Main is for Linux: elsewhere there is no guardian.
func Main([]string, Release) (code int, mine bool) { return 0, false }

// StartGuardian is for Linux: nothing else can promise that a tree of processes ends.
func StartGuardian(context.Context, GuardianConfig) (Guard, error) {
	return nil, errors.New("applications with a command need Linux: nothing here can promise that all of their processes end")
}
