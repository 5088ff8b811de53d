package metrics

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/locum-ha/locum/physical"
)

// outcomeOf names an error by its meaning, for the label "outcome".
func outcomeOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, physical.ErrNotFound), errors.Is(err, physical.ErrNoHolder):
		return "not_found"
	case errors.Is(err, physical.ErrConflict):
		return "conflict"
	case errors.Is(err, physical.ErrFenced):
		return "fenced"
	case errors.Is(err, physical.ErrTooLarge), errors.Is(err, physical.ErrInvalid):
		return "refused"
	case errors.Is(err, physical.ErrHeld):
		return "held"
	case errors.Is(err, physical.ErrLost):
		return "lost"
	case errors.Is(err, physical.ErrUnknown):
		return "unknown"
	case errors.Is(err, physical.ErrUnavailable), errors.Is(err, physical.ErrClosed):
		return "unavailable"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "cancelled"
	default:
		return "error"
	}
}

// operations is a latency by op and outcome. The usual outcome is found without a look-up: it is on the way of every
// request.
type operations struct {
	vec *prometheus.HistogramVec
	ok  map[string]prometheus.Observer
}

func newOperations(f factory, name, help string, ops ...string) *operations {
	o := &operations{vec: f.histogramVec(name, help, "op", "outcome"), ok: map[string]prometheus.Observer{}}
	for _, op := range ops {
		o.ok[op] = o.vec.WithLabelValues(op, "ok")
	}
	return o
}

func (o *operations) done(op string, took time.Duration, err error) {
	if err == nil {
		if h := o.ok[op]; h != nil {
			h.Observe(took.Seconds())
			return
		}
		op = "other"
	}
	o.vec.WithLabelValues(op, outcomeOf(err)).Observe(took.Seconds())
}
