package election

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
)

// Election is one node's part in deciding who is active. Its methods may be called from any goroutine.
type Election struct {
	cfg   Config
	log   *slog.Logger
	obs   Observer
	clock func() boottime.Instant

	state  atomic.Pointer[State]
	watch  sync.Mutex // guards changed
	change chan struct{}

	begun  atomic.Bool
	events chan event    // to the loop
	asks   chan ask      // step-down requests, to the loop
	done   chan struct{} // closed when the loop has ended

	initial state
}

// ask is a step-down request and where its answer goes.
type ask struct {
	to    string
	reply chan error
}

// New checks the configuration and fills in its defaults. It does no I/O.
func New(cfg Config) (*Election, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails
	e := &Election{
		cfg: cfg, log: cfg.Logger, obs: cfg.Observer, clock: cfg.Clock,
		change: make(chan struct{}), events: make(chan event), asks: make(chan ask), done: make(chan struct{}),
		initial: newState(cfg.params(), cfg.Candidate, binary.BigEndian.Uint64(seed[:])),
	}
	first := e.initial.snapshot(time.Now())
	e.state.Store(&first)
	return e, nil
}

// State is what a node knows about who is active.
type State struct {
	Role   Role
	Term   uint64          // of this node's leadership, or of the last record seen
	Holder physical.Record // of the lock, as last seen; its Holder is "" while nobody is known to lead, and this node's only while that holds the lock
	Since  time.Time       // of the role

	Candidate bool
	Paused    bool

	LastError error  // what the stores answered last; nil while they answer well
	LastLoss  error  // why this node's last leadership ended that was not given up as planned; nil if none did
	LossTerm  uint64 // the term of that leadership
	Failures  int    // leaderships in a row that could not be kept up by this node's own fault
}

// Active reports whether this node is the active one. It says nothing about the lease: see [Lease.Valid].
func (s State) Active() bool { return s.Role == Active }

func (s *state) snapshot(since time.Time) State {
	v := State{
		Role: s.role, Term: s.record.Term, Holder: s.record, Since: since, Candidate: s.candidate, Paused: s.paused,
		LastError: s.lastErr, LastLoss: s.lossErr, LossTerm: s.lossTerm, Failures: s.failures,
	}
	switch {
	case s.role.holds():
		v.Term, v.Holder = s.lead.term, s.lead.grant.Record
	case v.Holder.Holder == s.p.id: // of an earlier life, or of an Acquire that is not answered: nobody leads
		v.Holder.Holder, v.Holder.Name = "", ""
	}
	return v
}

// State returns what is known now. It never waits (P10).
func (e *Election) State() State { return *e.state.Load() }

// Changed returns a channel that is closed at the next change of role, term, holder, candidate or paused. To miss none, take
// the channel first and the State then.
func (e *Election) Changed() <-chan struct{} {
	e.watch.Lock()
	defer e.watch.Unlock()
	return e.change
}

// publish makes the snapshot visible, and wakes those who wait for a change.
func (e *Election) publish(v State) {
	old := e.state.Load()
	if old.Role == v.Role {
		v.Since = old.Since
	}
	e.state.Store(&v)
	if old.Role == v.Role && old.Term == v.Term && old.Holder == v.Holder && old.Candidate == v.Candidate && old.Paused == v.Paused {
		return
	}
	e.watch.Lock()
	close(e.change)
	e.change = make(chan struct{})
	e.watch.Unlock()
	if e.obs.StateChanged != nil {
		e.obs.StateChanged(v)
	}
}

// StepDown gives the leadership up as planned, in favour of the node with the identity to ("" lets Config.Successor choose),
// and returns when the lock is released: nil, or why it is not known to be. From then on this node does not compete until
// another node has taken over or Config.StepDownGrace has passed. A request while one is under way joins it, its to is ignored.
//
// It returns ErrNotActive if there is nothing to give up, ErrTarget if to is this node, and the context's error if that ends first; the
// step-down goes on then. It must not be called from within a callback.
func (e *Election) StepDown(ctx context.Context, to string) error {
	if !e.begun.Load() {
		return ErrNotActive
	}
	a := ask{to: to, reply: make(chan error, 1)}
	select {
	case e.asks <- a:
	case <-e.done:
		return ErrStopped
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-a.reply:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// SkipDrain ends the context of a Drain that is running: what is in flight is not waited for any longer.
func (e *Election) SkipDrain() { e.tell(event{kind: evSkipDrain}) }

// Pause suspends automatic failover: this node stays what it is, and does not compete for the lock unless a step-down
// names it as the successor.
func (e *Election) Pause() { e.tell(event{kind: evPause, on: true}) }

// Resume ends Pause.
func (e *Election) Resume() { e.tell(event{kind: evPause}) }

// SetCandidate says whether this node may become active. An active node stays active.
func (e *Election) SetCandidate(yes bool) { e.tell(event{kind: evCandidate, on: yes}) }

// SetRival says which of the other candidates that are believed to be up has the highest priority, and what that is. A node of
// lower priority waits for a while before it competes for a lock that became free without naming a successor; where the store
// chooses who may compete, as raft does, it hands the choice on to the rival for as long. Until SetRival is called
// the others are taken to have the default priority.
func (e *Election) SetRival(id string, priority int) {
	e.tell(event{kind: evRival, next: id, n: max(priority, 0)})
}

// Hurry says whether somebody waits for a leadership, so that a store that must be polled is polled every 25 ms.
func (e *Election) Hurry(yes bool) { e.tell(event{kind: evHurry, on: yes}) }

// tell gives the loop an event; before Run it changes the initial state.
func (e *Election) tell(ev event) {
	if e.tellEarly(ev) {
		return
	}
	select {
	case e.events <- ev:
	case <-e.done:
	}
}

// tellEarly changes the initial state, unless Run has begun. It holds watch, which the loop takes before it can take an event.
func (e *Election) tellEarly(ev event) bool {
	if e.begun.Load() {
		return false
	}
	e.watch.Lock()
	defer e.watch.Unlock()
	if e.begun.Load() {
		return false
	}
	e.initial, _ = step(e.initial, ev)
	first := e.initial.snapshot(e.State().Since)
	e.state.Store(&first)
	return true
}
