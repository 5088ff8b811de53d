package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/locum-ha/locum/api"
	"github.com/locum-ha/locum/barrier"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/supervise"
)

const (
	keyHistory    = "core/history"
	historyFormat = 1
	historyLength = 100             // leaderships that are kept
	historyLimit  = 2 * time.Second // that a leadership which is over anyway goes on for the sake of a note
	longestReason = 300             // bytes
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
		h = ended(h, h[0].Term, l.From, "lost: the node died, froze or was cut off")
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

// noteFailure writes down which application ends this leadership, and why: only this node knows, and it may write no more once its
// lease is given up.
func (l *leading) noteFailure(cause error) {
	if !l.term.Lease.Valid() || !errors.Is(cause, supervise.ErrRefused) && !errors.Is(cause, errGaveUp) {
		return
	}
	ctx, cancel := context.WithTimeout(l.term.Lease.Context(), historyLimit)
	defer cancel()
	reason := strings.ToValidUTF8(cause.Error(), "")
	reason = strings.ToValidUTF8(reason[:min(len(reason), longestReason)], "")
	entry, err := writeHistory(ended(l.history, l.term.Term, time.Now(), reason))
	if err == nil {
		err = l.node.barrier.View(&l.term.Fence).Commit(ctx, entry)
	}
	if err != nil {
		l.node.log.Warn("the history does not say why this leadership ended", "cause", cause, "error", err)
	}
}
