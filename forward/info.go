package forward

import (
	"context"
	"net/http"
)

// Info is what a handler may know about the request that it runs.
type Info struct {
	// ID is the request's X-Request-Id. A client may choose it, and choose it twice: it is for logs.
	ID string
	// Slot names the record that a repeatable request commits with its data, "" for others. One slot
	// is used by one request at a time, and again only after a definite answer (P6).
	Slot string
	// Key is different for every use of every slot: what a slot's record holds, and what it is compared
	// with. Never chosen by a client.
	Key string
	// Repeat: the request may have been delivered before. The handler looks into the slot first.
	Repeat bool
	// ForwardedBy is the name of the standby that passed the request on, "" if none did.
	ForwardedBy string
	// Term in which the request runs.
	Term uint64
	// RemoteAddr of the client, as the node saw it that the client is connected to.
	RemoteAddr string
}

type runKey struct{}

// runCtx is a request's context: it ends when the client goes away, when the lease ends, and when a
// drain ends it; its cause says which.
type runCtx struct {
	context.Context
	run *run
}

var dummyServer = new(http.Server)

func (c *runCtx) Value(key any) any {
	switch key {
	case runKey{}:
		return c.run
	case http.ServerContextKey:
		// Handlers such as httputil.ReverseProxy look for it to know that they may break off an answer
		// by a panic with http.ErrAbortHandler; without it they would end a broken answer as if whole.
		if v := c.Context.Value(key); v != nil {
			return v
		}
		return dummyServer
	}
	return c.Context.Value(key)
}

func runFrom(ctx context.Context) *run {
	r, _ := ctx.Value(runKey{}).(*run)
	return r
}

// InfoFrom returns the request's Info; the zero Info if ctx is not that of a request run by a Router.
func InfoFrom(ctx context.Context) Info {
	if r := runFrom(ctx); r != nil {
		return r.info
	}
	return Info{}
}

// Endless marks a request as one that has no end of its own (a watch, a subscription): a planned
// step-down ends its context at once, with ErrDraining, instead of waiting for it. Taken-over
// connections and text/event-stream answers are marked by themselves.
func Endless(ctx context.Context) {
	if r := runFrom(ctx); r != nil {
		r.setEndless()
	}
}

// Detach takes a request out of what leadership bounds: a drain does not wait for it, and neither the
// lease's end nor Abandon cancels it or drops its answer. It is for the step-down request itself, whose
// answer says nothing about stored state.
func Detach(ctx context.Context) {
	if r := runFrom(ctx); r != nil {
		r.detach()
	}
}

// Decline says that the request was certainly not carried out here, because this node is not, or not
// any more, the one to do it: what the handler answers is dropped, and the request goes on as if it had
// not been delivered. It has no effect once bytes of the answer were sent.
func Decline(ctx context.Context) {
	if r := runFrom(ctx); r != nil {
		r.declined.Store(true)
	}
}

// Broke says that the request was delivered to an application which broke off without an answer: what the
// handler answers is dropped. The request is repeated after a while, here or on the next active node, if it
// may be (P6), else answered "unknown". It has no effect once bytes of the answer were sent.
func Broke(ctx context.Context) {
	if r := runFrom(ctx); r != nil {
		r.broken.Store(true)
		r.disowned.Store(true)
	}
}

// Draining returns a channel that is closed when the node that runs the request begins to step down as
// planned; nil if ctx is not that of a request run by a Router. It is for handlers that can tell an answer
// without an end from one that will end soon: the former they should end.
func Draining(ctx context.Context) <-chan struct{} {
	if r := runFrom(ctx); r != nil {
		return r.t.drained
	}
	return nil
}

// Disown says that the store did not tell whether the request was carried out: what the handler answers is
// dropped, and the request goes on as one that was delivered to a node that is not active any more: it is
// repeated if it may be (P6), else answered "unknown". It has no effect once bytes of the answer were sent.
func Disown(ctx context.Context) {
	if r := runFrom(ctx); r != nil {
		r.disowned.Store(true)
	}
}
