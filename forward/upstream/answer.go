package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/locum-ha/locum/forward"
)

// fail answers in the place of the application.
func fail(w http.ResponseWriter, status int, msg, processed string) {
	body, _ := json.Marshal(struct { // of strings: cannot fail
		Errors    []string `json:"errors"`
		Processed string   `json:"processed,omitempty"`
	}{[]string{msg}, processed})
	if n, ok := w.(interface{ NotAnswered(processed string) }); ok {
		n.NotAnswered(processed)
	}
	h := w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Content-Length"] = []string{strconv.Itoa(len(body) + 1)}
	if status == http.StatusServiceUnavailable {
		h["Retry-After"] = []string{"1"}
	}
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}

// unreachable: the request was certainly not delivered. Behind a router it is held, and comes again.
func (u *Upstream) unreachable(w http.ResponseWriter, r *http.Request, err error) {
	u.log.Debug("application not reached", "error", err)
	forward.Decline(r.Context())
	fail(w, http.StatusServiceUnavailable, "the application cannot be reached", "no")
}

// broke: the request was delivered, and nobody knows what became of it.
func (u *Upstream) broke(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		u.cancelled(w, r)
		return
	}
	u.cfg.Observer.Broken()
	u.log.Warn("the application broke off without an answer", "request_id", forward.InfoFrom(r.Context()).ID, "method", r.Method, "error", err)
	forward.Broke(r.Context())
	fail(w, http.StatusBadGateway, "the application broke off without an answer: the request may or may not have been processed", "unknown")
}

// malformed: what came back is not an answer. The request was delivered, and another attempt would fare no better.
func (u *Upstream) malformed(w http.ResponseWriter, r *http.Request, err error) {
	u.cfg.Observer.BadReply(err)
	u.log.Warn("the application's answer cannot be read", "request_id", forward.InfoFrom(r.Context()).ID, "method", r.Method, "error", err)
	fail(w, http.StatusBadGateway, "the application's answer cannot be read: the request may or may not have been processed", "unknown")
}

// cancelled: the client is gone, or the node has no more time for the request. The latter is decided anew elsewhere.
func (u *Upstream) cancelled(w http.ResponseWriter, r *http.Request) {
	if !errors.Is(context.Cause(r.Context()), context.Canceled) {
		forward.Disown(r.Context())
	}
	fail(w, http.StatusServiceUnavailable, "this node gave the request up: it may or may not have been processed", "unknown")
}
