package forward

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

// An exchange is a client's request on the node that the client is connected to, from its arrival to
// its answer, over as many attempts as it takes.
type exchange struct {
	r     *Router
	w     http.ResponseWriter
	req   *http.Request
	info  Info
	idVal [1]string
	up    *upload // nil: no body
	slot  slot
	keyed bool

	redirecting  bool // 307 instead of forwarding
	mustRedirect bool // … because the client wants it so
	policy       Policy
	lapped       bool // and has been redirected before
	holdLeft     time.Duration
	full         <-chan struct{} // closed when the session has room again; nil: not waiting for that
	delivered    bool            // a handler may have seen the request
	open         bool            // … and may still be at work on it: its slot is burnt
	begun        bool            // bytes of the answer went out
	call         bool            // … which is that of a gRPC call
	refusals     int             // attempts in a row that were not processed
	repeats      int
	breaks       int // attempts that the application broke off
	helpers      sync.WaitGroup
}

// result of an attempt.
type result struct {
	done      bool // answered, or the client is gone
	delivered bool
	broken    bool  // by the application: the node is there, and may take the next attempt
	err       error // why not, for the log and the answer
	full      <-chan struct{}
}

// ServeHTTP runs the request here, passes it on, redirects it, or lets it wait.
func (r *Router) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	x := &exchange{r: r, w: w, req: req, holdLeft: r.cfg.HoldTimeout}
	if !x.prepare() {
		return
	}
	defer x.finish()
	for {
		p := r.place.Load()
		var res result
		switch {
		case p.local != nil:
			res = x.runLocal(p.local)
		case x.redirecting && x.mayRedirect(p):
			x.redirect(p.target)
			return
		case p.session != nil && !x.redirecting:
			res = x.forward(p.session)
		default:
			if err := x.hold(p, 0); err != nil {
				x.giveUp(p, err)
				return
			}
			// Many clients follow one redirect only, and may have followed it to here: what has waited is passed on.
			x.redirecting = x.redirecting && x.mustRedirect
			continue
		}
		if res.done || !x.goOn(p, res) {
			return
		}
	}
}

// goOn decides after an attempt without an answer, and waits until another makes sense.
func (x *exchange) goOn(p *place, res result) bool {
	x.delivered = x.delivered || res.delivered
	if res.broken {
		x.breaks++
	}
	if x.req.Context().Err() != nil || x.up.failure() != nil {
		x.clientFailed()
		return false
	}
	v := decide(fate{
		begun: x.begun, delivered: x.delivered, now: res.delivered, replayable: x.up.replayable(),
		mayRepeat: x.keyed || x.policy.Repeat || isSafe(x.req.Method) || x.r.repeats[x.req.Method], repeats: x.repeats,
		breaks: x.breaks,
	})
	x.r.log.Debug("request goes on", "request_id", x.info.ID, "verdict", v.String(), "error", res.err)
	switch v {
	case abort:
		x.open = true
		if x.endCall() {
			return false
		}
		panic(http.ErrAbortHandler)
	case refuse, unknown:
		x.answerFailure(res.err)
		return false
	case repeat:
		if res.delivered {
			x.repeats++
			x.r.cfg.Observer.Repeated()
		}
	}
	x.full = res.full
	limit := time.Duration(0)
	switch {
	case res.full != nil:
	case !res.delivered || res.broken:
		// Refused by a node that is there: it may take the next one in a moment.
		limit = min(5*time.Millisecond<<min(x.refusals, 6), 200*time.Millisecond)
		x.refusals++
	default:
		// Where the store did not tell what became of it, the node may well stay active.
		limit = min(250*time.Millisecond<<min(x.repeats, 4), 4*time.Second)
	}
	err := x.hold(p, limit)
	x.full = nil
	if err != nil {
		x.giveUp(p, err)
		return false
	}
	return true
}

// prepare does once what is the same wherever the request will run. False: it is answered already.
func (x *exchange) prepare() bool {
	r, req := x.r, x.req
	if !sane(req) {
		http.Error(x.w, `{"errors":["bad request"]}`, http.StatusBadRequest)
		return false
	}
	x.info.RemoteAddr = req.RemoteAddr
	x.info.ID = requestID(req.Header)
	x.idVal[0] = x.info.ID
	req.Header[headerRequestID] = x.idVal[:]
	x.w.Header()[headerRequestID] = x.idVal[:]
	noForward := scrub(req.Header, r.cfg.TrustForwarded(req))
	x.policy = policyFrom(req.Context())
	x.mustRedirect = noForward && !x.policy.NoRedirect
	x.redirecting = (noForward || r.cfg.Mode == ModeRedirect) && !x.policy.NoRedirect
	x.lapped = unmark(req)
	if r.cfg.SetForwarded {
		setForwarded(req)
	}
	if r.cfg.MaxBody > 0 && req.ContentLength > r.cfg.MaxBody {
		x.answer(http.StatusRequestEntityTooLarge, errTooLarge.Error(), "no")
		return false
	}
	if req.Body != nil && req.Body != http.NoBody {
		x.up = &upload{
			x: x, src: req.Body, max: r.cfg.MaxBody, whole: true, resume: make(chan struct{}, 1),
			ctl: http.NewResponseController(x.w),
		}
	}
	if x.keyed = r.cfg.Repeatable(req); x.keyed {
		x.slot, x.info.Key = r.slots.take()
		x.info.Slot = x.slot.name
	}
	return true
}

func sane(req *http.Request) bool {
	return req.URL != nil && req.Method != ""
}

// expects reports that the client waits for 100-continue before it sends its body.
func (x *exchange) expects() bool {
	return x.up != nil && x.up.untouched() && hasToken(x.req.Header["Expect"], "100-continue")
}

// finish gives back what the request held, after its answer.
func (x *exchange) finish() {
	x.up.close()
	x.helpers.Wait()
	if x.keyed && !x.open && x.repeats == 0 { // a name that was delivered twice keeps its record: see package slots
		x.r.slots.give(x.slot)
	}
}

// giveUp answers a request whose wait is over.
func (x *exchange) giveUp(p *place, why error) {
	switch {
	case x.req.Context().Err() != nil, x.up.failure() != nil:
		x.clientFailed()
	case !x.delivered && !x.policy.NoRedirect && p.target != nil && p.target.APIAddr != "" && !x.lapped && !x.sameAddr(p.target):
		x.redirect(p.target)
	default:
		x.answerFailure(why)
	}
}

// clientFailed: the client broke off, or sent more than it may.
func (x *exchange) clientFailed() {
	x.open = x.open || x.delivered
	switch {
	case x.begun:
		panic(http.ErrAbortHandler)
	case errors.Is(x.up.failure(), os.ErrDeadlineExceeded): // the listener has given it up; the connection still takes an answer
		processed := "no"
		if x.delivered {
			processed = "unknown"
		}
		x.answer(http.StatusRequestTimeout, "the request body came too slowly: send it again", processed)
	case x.req.Context().Err() != nil:
	case errors.Is(x.up.failure(), errTooLarge):
		x.answer(http.StatusRequestEntityTooLarge, errTooLarge.Error(), "")
	default:
		x.answer(http.StatusBadRequest, "the request body ended early", "")
	}
}

// answerFailure is the one distinguishable answer of P6: whether the request was processed is in it.
func (x *exchange) answerFailure(why error) {
	o := &x.r.cfg.Observer
	processed, msg := "no", "the request was not processed"
	if x.delivered {
		processed, msg = "unknown", "the active node was lost: the request may or may not have been processed"
		if errors.Is(why, errBroken) {
			msg, why = why.Error()+": the request may or may not have been processed", nil
		}
		x.open = true
		o.Unknown()
		x.r.log.Warn("outcome unknown", "request_id", x.info.ID, "method", x.req.Method, "error", why)
	} else {
		o.Refused()
	}
	if why != nil {
		msg += ": " + why.Error()
	}
	x.answer(http.StatusServiceUnavailable, msg, processed)
}

func (x *exchange) answer(status int, msg, processed string) {
	body, _ := json.Marshal(struct { // of strings: cannot fail
		Errors    []string `json:"errors"`
		Processed string   `json:"processed,omitempty"`
	}{[]string{msg}, processed})
	h := x.w.Header()
	h["Content-Type"] = []string{"application/json"}
	h[headerRequestID] = x.idVal[:]
	if status == http.StatusServiceUnavailable {
		h["Retry-After"] = []string{"1"}
	}
	h["Content-Length"] = []string{strconv.Itoa(len(body) + 1)}
	if x.up != nil && !x.up.atEOF() && x.up.started() {
		_ = x.up.ctl.EnableFullDuplex() // the pump reads: the server must not
	}
	x.w.WriteHeader(status)
	_, _ = x.w.Write(append(body, '\n'))
}
