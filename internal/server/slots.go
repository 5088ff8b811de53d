package server

import (
	"context"
	"strings"
	"time"

	"github.com/locum-ha/locum/barrier"
	"github.com/locum-ha/locum/internal/slots"
	"github.com/locum-ha/locum/physical"
)

const (
	slotsEvery = time.Minute
	slotsBatch = 100 // deletions in a commit
)

// forgetSlots removes the slots of processes that are gone: each node names the incarnation that it uses now, so those
// of its earlier ones will never be asked for again.
func (l *leading) forgetSlots(ctx context.Context, view *barrier.View) {
	for pauseFor(ctx, slotsEvery) {
		current := []string{l.node.router.Incarnation()}
		for _, m := range l.node.members.list(memberFit) {
			if m.Incarnation != "" {
				current = append(current, m.Incarnation)
			}
		}
		for _, incarnation := range current {
			if err := forgetOthers(ctx, view, incarnation); err != nil && ctx.Err() == nil {
				l.node.log.Warn("slots of an earlier process not removed", "error", err)
			}
		}
	}
}

// forgetOthers removes the slots of the node's other incarnations. An incarnation is "<node>/<process>/".
func forgetOthers(ctx context.Context, view *barrier.View, incarnation string) error {
	node, process, ok := strings.Cut(strings.TrimSuffix(incarnation, "/"), "/")
	if !ok {
		return nil
	}
	prefix := slots.Prefix + node + "/"
	others, err := view.List(ctx, prefix, "", 0)
	if err != nil {
		return err
	}
	for _, other := range others {
		for other != process+"/" {
			names, err := view.List(ctx, prefix+other, "", slotsBatch)
			if err != nil || len(names) == 0 {
				return err
			}
			ops := make([]physical.Op, len(names))
			for i, name := range names {
				ops[i] = physical.Delete(prefix + other + name)
			}
			if err := view.Commit(ctx, ops...); err != nil {
				return err
			}
		}
	}
	return nil
}
