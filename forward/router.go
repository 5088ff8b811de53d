package forward

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Target is the active node as a standby knows it.
type Target struct {
	Term        uint64
	NodeID      string
	Name        string
	APIAddr     string
	ClusterAddr string
	// Dial connects to the target and authenticates it: what it returns reaches this node and this
	// term, or nothing. It should give up when ctx ends; if it does not, it delays nobody. Nil: requests
	// can only be redirected.
	Dial func(ctx context.Context) (net.Conn, error)
}

func (t *Target) same(o *Target) bool {
	return t != nil && t.Term == o.Term && t.NodeID == o.NodeID && t.APIAddr == o.APIAddr && t.ClusterAddr == o.ClusterAddr
}

// A place is where requests go at the moment. It is never changed: a change makes another one and
// closes this one's changed.
type place struct {
	local   *tenure  // run them here
	session *session // pass them on
	target  *Target  // the active node, also while it cannot be reached
	cause   string   // why neither
	closed  bool     // Run has ended
	changed chan struct{}
}

// Router is the way of a request on a node. New makes it, Run keeps its connections, and Lead, Follow,
// Hold, Drain and Abandon tell it where requests go; until the first of them they are held.
type Router struct {
	cfg     Config
	log     *slog.Logger
	node    []string // as a header's values
	repeats map[string]bool
	slots   slots
	held    holds
	running runningSlots

	place atomic.Pointer[place]

	mu        sync.Mutex
	started   bool
	closed    bool
	known     uint64 // highest term heard of
	ended     uint64 // terms up to this one are over: said by their active node, or seen here
	tenure    *tenure
	undo      func() // stops watching the tenure's lease
	follower  *follower
	followers uint64   // so far
	session   *session // the follower's connection, once its peer says that it leads
	holding   bool     // whatever else is known
	refusing  bool     // until Lead, Follow or Hold
	cause     string
	serving   map[*serverConn]struct{}
	work      sync.WaitGroup // everything that Run waits for
	wake      chan struct{}  // a follower is to be started
}

// NewRouter checks the configuration. It does no I/O.
func NewRouter(cfg Config) (*Router, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	var inc [8]byte
	_, _ = rand.Read(inc[:]) // never fails
	r := &Router{
		cfg: cfg, log: cfg.Logger,
		node:    []string{cfg.Node},
		repeats: map[string]bool{},
		serving: map[*serverConn]struct{}{},
		wake:    make(chan struct{}, 1),
		cause:   "starting",
	}
	for _, m := range cfg.RepeatMethods {
		r.repeats[m] = true
	}
	r.slots.prefix = cfg.NodeID + "/" + hex.EncodeToString(inc[:]) + "/"
	r.held.maxCount, r.held.maxBytes = int64(cfg.HoldMaxRequests), cfg.HoldMaxBytes
	r.place.Store(&place{cause: r.cause, changed: make(chan struct{})})
	return r, nil
}

// Incarnation is the common start of all slots of this Router: "<node id>/<incarnation>/".
func (r *Router) Incarnation() string { return r.slots.prefix }

// Run keeps the connection to the active node. It returns when ctx ends and everything that it started
// has; from then on requests are answered 503.
func (r *Router) Run(ctx context.Context) error {
	r.mu.Lock()
	if r.started {
		r.mu.Unlock()
		return fmt.Errorf("forward: Run called twice")
	}
	r.started = true
	r.mu.Unlock()
	for {
		r.mu.Lock()
		if f := r.follower; f != nil && !f.started {
			f.started = true
			r.work.Go(func() { r.follow(f) })
		}
		r.mu.Unlock()
		select {
		case <-r.wake:
			continue
		case <-ctx.Done():
		}
		break
	}
	r.mu.Lock()
	r.closed = true
	r.stopFollowing(ErrClosed)
	t := r.retire()
	r.cause = "shut down"
	r.update()
	conns := r.serverConns()
	r.mu.Unlock()
	if t != nil {
		t.lose(ErrClosed)
	}
	for _, c := range conns {
		c.fail(ErrClosed)
	}
	r.work.Wait()
	return nil
}

// Lead makes this node the one that runs requests, under the lease of this term. A term that is known
// to be over is ignored.
func (r *Router) Lead(term uint64, lease Lease, h http.Handler) {
	if old := r.lead(term, lease, h); old != nil {
		old.lose(ErrSuperseded)
	}
}

func (r *Router) lead(term uint64, lease Lease, h http.Handler) (old *tenure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || term < r.known || term <= r.ended {
		r.log.Warn("not leading: the term is over", "term", term, "known", r.known, "ended", r.ended)
		return nil
	}
	r.known, r.holding, r.refusing = term, false, false
	r.stopFollowing(ErrSuperseded)
	old = r.retire()
	t := newTenure(term, strconv.FormatUint(term, 10), lease, h)
	r.tenure = t
	r.work.Add(1)
	stop := context.AfterFunc(lease.Context(), func() {
		defer r.work.Done()
		r.lose(t, context.Cause(lease.Context()))
	})
	r.undo = func() {
		if stop() {
			r.work.Done()
		}
	}
	r.update()
	r.announce(true, term)
	r.log.Info("requests run here", "term", term)
	return old
}

// Follow makes the target the node that runs requests: they are held until the connection to it is up,
// and everything in flight on an older connection is cut at once and decided anew. It is ignored if a
// newer term is known, or if the target's term is known to be over.
func (r *Router) Follow(t Target) {
	if old := r.startFollowing(t); old != nil {
		old.lose(ErrSuperseded)
	}
}

func (r *Router) startFollowing(t Target) (old *tenure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || t.Term < r.known || t.Term <= r.ended {
		return nil
	}
	if t.NodeID == r.cfg.NodeID || r.tenure != nil && r.tenure.term == t.Term {
		return nil // this node itself: Lead says so
	}
	if r.follower != nil && r.follower.target.same(&t) {
		if r.holding || r.refusing {
			r.holding, r.refusing = false, false
			r.update()
		}
		return nil
	}
	r.known, r.holding, r.refusing = t.Term, false, false
	old = r.retire()
	r.stopFollowing(ErrSuperseded)
	r.followers++
	r.follower = newFollower(&t)
	r.follower.number = r.followers
	r.cause = "no connection to the active node"
	r.update()
	r.closeServing(ErrSuperseded)
	signal(r.wake)
	r.log.Info("requests are forwarded", "term", t.Term, "active", t.Name, "cluster_addr", t.ClusterAddr)
	return old
}

// Hold makes new requests wait: nobody is active, or leadership changes. What is in flight goes on.
func (r *Router) Hold(cause string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holding, r.refusing, r.cause = true, false, cause
	r.update()
	if r.tenure != nil {
		r.announce(false, r.known)
	}
	r.log.Info("requests are held", "cause", cause)
}

// Refuse answers 503 to every request, also to those that wait, and gives up the connection to the active
// node with its keys: this node is sealed. Lead, Follow or Hold end it.
func (r *Router) Refuse(cause string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refusing, r.cause = true, cause
	r.stopFollowing(ErrClosed)
	r.update()
	r.log.Info("requests are refused", "cause", cause)
}

// Held returns how many requests wait.
func (r *Router) Held() int { return int(r.held.count.Load()) }

// Drain is the planned end of this node's leadership (P5): new requests are held here and, told by
// GOAWAY, on the standbys; endless ones are ended; it returns when those in flight are done. When ctx
// ends first, the rest is cancelled with ErrDrainLimit and ctx's error returned.
func (r *Router) Drain(ctx context.Context) error {
	r.mu.Lock()
	t := r.tenure
	if t == nil {
		r.mu.Unlock()
		return nil
	}
	r.ended = max(r.ended, t.term)
	r.holding, r.cause = true, "the active node steps down"
	r.update() // before drain: who is refused by the tenure finds the new place
	t.drain()
	conns := r.serverConns()
	r.mu.Unlock()
	for _, c := range conns {
		c.sendGoaway("hold")
	}
	r.log.Info("draining", "term", t.term)
	if err := r.awaitIdle(ctx, t); err != nil {
		return err
	}
	r.syncStandbys(ctx, conns)
	return nil
}

func (r *Router) awaitIdle(ctx context.Context, t *tenure) error {
	grace := time.NewTimer(endlessGrace)
	defer grace.Stop()
	for {
		select {
		case <-t.idle:
			return nil
		case <-grace.C:
			// Those that were told to end, and have not: their connections are closed.
			t.end(ErrDraining, true)
		case <-ctx.Done():
			n := t.end(ErrDrainLimit, false)
			r.log.Warn("drain limit reached", "term", t.term, "cancelled", n)
			return fmt.Errorf("forward: drain: %d requests in flight: %w", n, context.Cause(ctx))
		}
	}
}

// syncStandbys returns when the standbys have read the last answers: a standby that learns of the next
// active node before that would take them for lost. One that does not react is not waited for long.
func (r *Router) syncStandbys(ctx context.Context, conns []*serverConn) {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, c := range conns {
		wg.Go(func() { c.sync(ctx) })
	}
	wg.Wait()
}

const syncTimeout = 500 * time.Millisecond

// endlessGrace is how long the handlers of endless requests have to end them in their own words before
// their connections are closed.
const endlessGrace = time.Second

// Abandon is the unplanned end: everything that runs here is cancelled, no answer leaves any more, and
// the standbys' connections are closed.
func (r *Router) Abandon() {
	r.mu.Lock()
	t := r.tenure
	r.mu.Unlock()
	if t != nil {
		r.lose(t, errors.New("abandoned"))
	}
}

// lose ends a tenure because its lease is over.
func (r *Router) lose(t *tenure, cause error) {
	t.over.Store(true)
	r.mu.Lock()
	if r.tenure == t {
		r.ended = max(r.ended, t.term)
		r.retire()
		r.cause = "this node lost its leadership"
		r.update()
		r.closeServing(ErrDeposed)
		r.log.Warn("leadership lost", "term", t.term, "cause", cause)
	}
	r.mu.Unlock()
	t.lose(fmt.Errorf("%w: %w", ErrDeposed, cause))
}

// retire takes the tenure off; the caller ends it. Called with r.mu held, as all below.
func (r *Router) retire() *tenure {
	t := r.tenure
	if t != nil {
		r.tenure = nil
		r.undo()
	}
	return t
}

// logRequest is how a request is found in the logs of both nodes. Its URI may hold secrets: it is left out.
func (r *Router) logRequest(msg string, i *Info, method string, status int, d time.Duration) {
	if ctx := context.Background(); r.log.Enabled(ctx, slog.LevelDebug) {
		r.log.LogAttrs(ctx, slog.LevelDebug, msg, slog.String("request_id", i.ID), slog.String("method", method),
			slog.Int("status", status), slog.Duration("duration", d), slog.Uint64("term", i.Term), slog.String("forwarded_by", i.ForwardedBy))
	}
}

// beginWork has Run wait until work.Done is called. False: Run waits for nothing new any more.
func (r *Router) beginWork() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.work.Add(1)
	return true
}

// update makes the place that follows from the state.
func (r *Router) update() {
	p := &place{cause: r.cause, changed: make(chan struct{})}
	if r.follower != nil && !r.holding {
		p.target = r.follower.target
	}
	switch {
	case r.closed || r.refusing:
		p.target, p.closed = nil, true
	case r.holding:
	case r.tenure != nil:
		p.local = r.tenure
	default:
		p.session = r.session
	}
	old := r.place.Swap(p)
	close(old.changed)
}
