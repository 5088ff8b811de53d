package forward

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
)

// Lease is the active node's right to answer. Valid must compare the clock at each call (P4).
type Lease interface {
	Valid() bool
	Context() context.Context
}

// A tenure is one leadership of this node, from Lead to its end, with the requests that run under it.
type tenure struct {
	term    uint64
	termStr []string
	lease   Lease
	handler http.Handler
	over    atomic.Bool // abandoned, or the lease has ended

	mu       sync.Mutex
	first    run // anchor of the ring of running requests
	waited   int // running requests that a drain waits for
	draining bool
	idle     chan struct{} // closed when draining and waited == 0
	drained  chan struct{} // closed when a planned step-down begins
}

// A run is one request that a handler works on. It is on its tenure's ring until the handler has
// returned and, if the connection was taken over, that is closed.
type run struct {
	prev, next *run
	t          *tenure
	info       Info
	cancel     context.CancelCauseFunc
	declined   atomic.Bool
	disowned   atomic.Bool
	broken     atomic.Bool // disowned, because the application broke off

	// under t.mu
	endless  bool
	detached bool
	kill     func() // ends a taken-over connection
	unlinked bool

	exempt atomic.Bool // detached, for the guard
}

func newTenure(term uint64, termStr string, l Lease, h http.Handler) *tenure {
	t := &tenure{term: term, termStr: []string{termStr}, lease: l, handler: h, idle: make(chan struct{}), drained: make(chan struct{})}
	t.first.prev, t.first.next = &t.first, &t.first
	return t
}

// valid is the guard of P4: it is asked after state was read and before what follows from it is sent.
func (t *tenure) valid() bool { return !t.over.Load() && t.lease.Valid() }

// enter takes a request in. False: the tenure takes none any more.
func (t *tenure) enter(r *run) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.draining || t.over.Load() {
		return false
	}
	r.t = t
	r.prev, r.next = t.first.prev, &t.first
	r.prev.next, r.next.prev = r, r
	t.waited++
	return true
}

func (r *run) leave() {
	t := r.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.unlinked {
		return
	}
	r.unlinked = true
	r.prev.next, r.next.prev = r.next, r.prev
	r.prev, r.next = nil, nil
	if !r.detached {
		t.unwait()
	}
}

// unwait is called with t.mu held.
func (t *tenure) unwait() {
	t.waited--
	if t.waited == 0 && t.draining {
		close(t.idle)
	}
}

func (r *run) detach() {
	r.exempt.Store(true)
	r.t.mu.Lock()
	defer r.t.mu.Unlock()
	if !r.detached && !r.unlinked {
		r.detached = true
		r.t.unwait()
	}
}

func (r *run) setEndless() {
	r.t.mu.Lock()
	draining := r.t.draining && !r.endless && !r.detached
	r.endless = true
	r.t.mu.Unlock()
	if draining {
		r.cancel(ErrDraining)
	}
}

// isDrained reports whether the request was ended because it has no end of its own.
func (r *run) isDrained() bool {
	r.t.mu.Lock()
	defer r.t.mu.Unlock()
	return r.endless && r.t.draining
}

// takenOver marks the run as one whose connection the handler has taken over.
func (r *run) takenOver(kill func()) {
	r.t.mu.Lock()
	r.kill = kill
	r.t.mu.Unlock()
	r.setEndless()
}

// drain refuses further requests and ends the endless ones' contexts. idle is closed when no request
// is left that is waited for.
func (t *tenure) drain() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.draining {
		return
	}
	t.draining = true
	close(t.drained)
	if t.waited == 0 {
		close(t.idle)
	}
	for r := t.first.next; r != &t.first; r = r.next {
		if r.endless && !r.detached {
			r.cancel(ErrDraining)
		}
	}
}

// end cancels every request that fits, with the cause, and closes the connections that were taken over.
// It returns how many it met.
func (t *tenure) end(cause error, endlessOnly bool) int {
	t.mu.Lock()
	var kills []func()
	n := 0
	for r := t.first.next; r != &t.first; r = r.next {
		if r.detached || endlessOnly && !r.endless {
			continue
		}
		n++
		r.cancel(cause)
		if r.kill != nil {
			kills = append(kills, r.kill)
		}
	}
	t.mu.Unlock()
	for _, kill := range kills {
		kill()
	}
	return n
}

// lose ends the tenure at once: no answer leaves any more.
func (t *tenure) lose(cause error) {
	t.over.Store(true)
	t.mu.Lock()
	if !t.draining {
		t.draining = true
		if t.waited == 0 {
			close(t.idle)
		}
	}
	t.mu.Unlock()
	t.end(cause, false)
}
