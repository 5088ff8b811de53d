package keyed

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/locum-ha/locum/physical"
)

const (
	sweepEvery = time.Minute
	sweepBatch = 100 // keys at a time
	sweepLimit = 50  // batches in a row
)

// Run removes expired records until ctx ends. It takes a bounded number at a time.
func (h *Handler) Run(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := h.Sweep(ctx); err != nil && ctx.Err() == nil {
			h.cfg.Logger.Warn("expired Idempotency-Keys are not removed", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Sweep removes what is due, as much as one turn may.
func (h *Handler) Sweep(ctx context.Context) error {
	now := hour(h.cfg.Now())
	left := sweepLimit
	after := ""
	for left > 0 && ctx.Err() == nil {
		hours, err := h.cfg.Store.List(ctx, h.prefix+"due/", after, 1)
		if err != nil || len(hours) == 0 || strings.TrimSuffix(hours[0], "/") > now {
			return err
		}
		for left > 0 {
			names, err := h.cfg.Store.List(ctx, h.prefix+"due/"+hours[0], "", sweepBatch)
			if err != nil {
				return err
			}
			if len(names) == 0 {
				break
			}
			left--
			for _, name := range names {
				if err := h.remove(ctx, strings.TrimSuffix(hours[0], "/"), name); err != nil {
					return err
				}
			}
		}
		after = hours[0]
	}
	return nil
}

// remove takes a mark off, and the record if that has expired: the key may have been used again since.
func (h *Handler) remove(ctx context.Context, hour, name string) error {
	ops := []physical.Op{physical.Delete(h.prefix + "due/" + hour + "/" + name)}
	e, err := h.cfg.Store.Get(ctx, h.entry(name))
	switch {
	case errors.Is(err, physical.ErrNotFound):
	case err != nil:
		return err
	default:
		rec, err := decode(e.Value)
		if err == nil && h.cfg.Now().After(rec.Expires) {
			ops = append(ops, physical.RequireValue(h.entry(name), e.Value), physical.Delete(h.entry(name)))
		}
	}
	err = h.cfg.Store.Commit(ctx, ops...)
	if errors.Is(err, physical.ErrConflict) {
		return nil // used again this instant: the mark is looked at in the next turn
	}
	return err
}
