package forward

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

var (
	errHoldFull    = errors.New("too many requests wait for an active node")
	errHoldTimeout = errors.New("no active node within the hold time-out")
	errShutdown    = errors.New("this node takes no requests: it shuts down, or is sealed")
)

// holds counts what waits, so that waiting is bounded in number and bytes (P12). Retry buffers of
// requests in flight count too: they are what those would wait with.
type holds struct {
	maxCount, maxBytes int64
	count, bytes       atomic.Int64
}

// keep takes n bytes. Retry buffers may use half of the limit: long uploads in flight must not leave
// short requests without a place to wait.
func (h *holds) keep(n int64, buffer bool) bool {
	limit := h.maxBytes
	if buffer {
		limit /= 2
	}
	if h.bytes.Add(n) > limit {
		h.bytes.Add(-n)
		return false
	}
	return true
}

func (h *holds) release(n int64) { h.bytes.Add(-n) }

// hold waits until p is not the place any more, or for at most limit if that is not 0, and uses up the
// request's time. It returns nil when there is reason to look again, else why the wait is over: one of
// the errors above, or the client's leaving.
func (x *exchange) hold(p *place, limit time.Duration) error {
	if p.closed {
		return errShutdown
	}
	select {
	case <-p.changed:
		return nil
	default:
	}
	if x.holdLeft <= 0 {
		return errHoldTimeout
	}
	// net/http notices that a client goes away once its body is read: read a short one now.
	if x.up != nil && !x.expects() {
		if _, err := x.up.inline(false); err != nil {
			return err
		}
	}
	h := &x.r.held
	defer h.count.Add(-1)
	if h.count.Add(1) > h.maxCount {
		return errHoldFull
	}
	n := x.size()
	if !h.keep(n, false) {
		return errHoldFull
	}
	defer h.release(n)

	o := &x.r.cfg.Observer
	o.HeldNow(1)
	defer o.HeldNow(-1)
	start := time.Now()
	wait := x.holdLeft
	if limit > 0 {
		wait = min(wait, limit)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	var err error
	select {
	case <-p.changed:
	case <-timer.C:
		if wait == x.holdLeft {
			err = errHoldTimeout
		}
	case <-x.full:
	case <-x.req.Context().Done():
		err = context.Cause(x.req.Context())
	}
	d := time.Since(start)
	x.holdLeft -= d
	o.Held(d, err == nil)
	return err
}

// size is what a waiting request keeps in memory, about, without its retry buffer, which is counted
// where it grows.
func (x *exchange) size() int64 {
	n := 1024 + len(x.req.RequestURI)
	for name, values := range x.req.Header {
		n += len(name) + 32
		for _, v := range values {
			n += len(v) + 16
		}
	}
	return int64(n)
}
