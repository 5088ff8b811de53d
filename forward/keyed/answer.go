package keyed

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/locum-ha/locum/forward"
)

// answer gathers what the application answers, so that it is stored before any of it is sent. One that is longer than the
// limit is noted as such and then passed on as it comes.
type answer struct {
	next   http.ResponseWriter
	limit  int
	record func(*stored) error

	own     http.Header
	head    http.Header // as it was at WriteHeader
	status  int
	body    []byte
	through bool   // passed on as it comes
	failed  error  // it could not be stored: nothing is sent
	outcome string // set by who delivers, if there is no answer of the application: "no" or "unknown"
}

func (a *answer) Header() http.Header {
	if a.own == nil {
		a.own = http.Header{}
	}
	return a.own
}

// NotAnswered is called by the handler that delivers, before it answers in the application's place.
func (a *answer) NotAnswered(processed string) { a.outcome = processed }

func (a *answer) WriteHeader(status int) {
	if status < 200 || a.status != 0 {
		return // what only informs is not worth keeping
	}
	a.status, a.head = status, a.Header().Clone()
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	switch {
	case a.failed != nil:
		return 0, a.failed
	case a.through:
		return a.next.Write(p)
	case len(a.body)+len(p) <= a.limit:
		a.body = append(a.body, p...)
		return len(p), nil
	}
	size := int64(a.limit) + 1
	if n, err := strconv.ParseInt(a.head.Get("Content-Length"), 10, 64); err == nil {
		size = n
	}
	if a.failed = a.record(&stored{Status: a.status, Dropped: size}); a.failed != nil {
		return 0, a.failed
	}
	a.through = true
	a.sendHead(a.head)
	if _, err := a.next.Write(a.body); err != nil {
		return 0, err
	}
	a.body = nil
	return a.next.Write(p)
}

// Flush has nothing to do until the answer is stored.
func (a *answer) Flush() {
	if a.through {
		_ = http.NewResponseController(a.next).Flush()
	}
}

// finish stores the answer, and sends it.
func (a *answer) finish() error {
	a.WriteHeader(http.StatusOK)
	if a.failed != nil {
		return a.failed
	}
	trailer := a.trailers()
	if a.through {
		a.sendTrailer(trailer)
		return nil
	}
	head := a.head.Clone()
	delete(head, "Trailer")
	for name := range head {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			delete(head, name)
		}
	}
	if err := a.record(&stored{Status: a.status, Header: head, Body: a.body, Trailer: trailer}); err != nil {
		return err
	}
	a.send()
	a.sendTrailer(trailer)
	return nil
}

// send sends what is gathered.
func (a *answer) send() {
	a.WriteHeader(http.StatusOK)
	head := a.head.Clone()
	delete(head, "Trailer")
	a.sendHead(head)
	_, _ = a.next.Write(a.body) // the client may be gone
}

func (a *answer) sendHead(head http.Header) {
	h := a.next.Header()
	for name, values := range head {
		h[name] = values
	}
	a.next.WriteHeader(a.status)
}

// trailers are those that were declared, and those with http.TrailerPrefix.
func (a *answer) trailers() http.Header {
	t := http.Header{}
	for _, v := range a.head["Trailer"] {
		for name := range strings.SplitSeq(v, ",") {
			if values := a.own[http.CanonicalHeaderKey(strings.TrimSpace(name))]; len(values) > 0 {
				t[http.CanonicalHeaderKey(strings.TrimSpace(name))] = values
			}
		}
	}
	for name, values := range a.own {
		if rest, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			t[http.CanonicalHeaderKey(rest)] = values
		}
	}
	return t
}

func (a *answer) sendTrailer(t http.Header) {
	h := a.next.Header()
	for name, values := range t {
		h[http.TrailerPrefix+name] = values
	}
}

// orphaned is for how long a request goes on whose client has left.
const orphaned = time.Minute

// outlast returns a context that the client's leaving does not end, for it will come back and ask under the same key; the
// end of this node's leadership does.
func outlast(ctx context.Context) (context.Context, func()) {
	out, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	var limit *time.Timer
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		cause := context.Cause(ctx)
		for _, end := range []error{forward.ErrDeposed, forward.ErrDraining, forward.ErrDrainLimit} {
			if errors.Is(cause, end) {
				cancel(cause)
				return
			}
		}
		limit = time.AfterFunc(orphaned, func() { cancel(cause) })
	})
	return out, func() {
		if !stop() {
			<-done
			if limit != nil {
				limit.Stop()
			}
		}
		cancel(context.Canceled)
	}
}
