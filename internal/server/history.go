package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/locum-ha/locum/api"
	"github.com/locum-ha/locum/barrier"
	"github.com/locum-ha/locum/physical"
)

const (
	keyHistory    = "core/history"
	historyFormat = 1
	historyLength = 100 // leaderships that are kept
)

type storedHistory struct {
	Format      int              `json:"format"`
	Leaderships []api.Leadership `json:"leaderships"` // the newest first
}

// readHistory returns the last leaderships, the newest first.
func readHistory(ctx context.Context, view *barrier.View) ([]api.Leadership, error) {
	e, err := view.Get(ctx, keyHistory)
	if errors.Is(err, physical.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var h storedHistory
	if err := json.Unmarshal(e.Value, &h); err != nil {
		return nil, fmt.Errorf("%s: %w", keyHistory, err)
	}
	if h.Format > historyFormat {
		return nil, fmt.Errorf("%s: format %d was written by a newer version; this one knows %d: upgrade this node", keyHistory, h.Format, historyFormat)
	}
	return h.Leaderships, nil
}

func writeHistory(h []api.Leadership) (physical.Op, error) {
	data, err := json.Marshal(storedHistory{Format: historyFormat, Leaderships: h})
	return physical.Put(keyHistory, data), err
}

// began puts a new leadership in front. One that is still open ended without a step-down: when, only its
// successor's beginning tells.
func began(h []api.Leadership, l api.Leadership) []api.Leadership {
	if len(h) > 0 {
		h = ended(h, h[0].Term, l.From, "lost: the node died, froze or was cut off, or an application could not be active there")
	}
	h = append([]api.Leadership{l}, h...)
	return h[:min(len(h), historyLength)]
}

// ended closes the leadership of a term, if it is open.
func ended(h []api.Leadership, term uint64, at time.Time, reason string) []api.Leadership {
	h = append([]api.Leadership(nil), h...)
	for i := range h {
		if h[i].Term == term && h[i].To == nil {
			h[i].To, h[i].Reason = &at, reason
		}
	}
	return h
}
