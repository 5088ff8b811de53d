package election

import (
	"errors"
	"fmt"
	"time"

	"github.com/locum-ha/locum/physical"
)

// simNode is a node of the simulation: a core, a clock that drifts, a lease, callbacks, an application and its guardian.
type simNode struct {
	w     *world
	index int
	id    string
	life  int // counts restarts
	up    bool
	rate  float64 // of its clock
	p     params

	s      state
	tickAt int64
	frozen bool
	inbox  []event
	held   []effect // effects that the node was frozen before
	late   []func() // what its other goroutines would have done
	lease  struct {
		term     uint64
		deadline instant
		fence    physical.Fence
	}
	running callback
	guarded instant // the guardian's deadline for the application
	owed    uint64  // term for which Deactivate is owed
	app     uint64  // term in which the application was started; 0: it does not run
}

// local is the node's clock.
func (n *simNode) local() instant {
	return instant(time.Hour) + instant(float64(n.w.now)*n.rate)
}

// real is when the node's clock shows i.
func (n *simNode) real(i instant) int64 {
	return int64(float64(i-instant(time.Hour))/n.rate) + 1
}

// valid is Lease.Valid.
func (n *simNode) valid() bool { return n.lease.term != 0 && n.local() < n.lease.deadline }

func (n *simNode) boot() {
	n.life++
	n.up, n.frozen = true, false
	n.tickAt, n.inbox, n.held, n.late = 0, nil, nil, nil
	n.running, n.owed = noCallback, 0
	n.lease.term = 0
	n.s = newState(n.p, n.s.candidate || n.w.now == 0, n.w.rng.Uint64())
	n.w.trace("%s: starts", n.id)
	n.deliver(event{kind: evStart})
}

// crash ends the process; the guardian ends the application.
func (n *simNode) crash() {
	n.w.trace("%s: crashes", n.id)
	n.down()
	if n.app != 0 {
		n.w.at(n.w.now+n.w.upTo(5*time.Millisecond), item{kind: itAppEnd, node: n.index, term: n.app})
	}
}

func (n *simNode) down() {
	n.life++
	n.up, n.frozen = false, false
	n.held, n.late, n.inbox = nil, nil, nil
	n.lease.term = 0
	n.w.at(n.w.now+n.w.upTo(3*simTTL), item{kind: itRestart, node: n.index})
}

func (n *simNode) freeze(d int64) {
	n.w.trace("%s: frozen for %s", n.id, time.Duration(d))
	n.frozen = true
	n.w.at(n.w.now+d, item{kind: itThaw, node: n.index, life: n.life})
}

func (n *simNode) thaw() {
	n.w.trace("%s: thawed", n.id)
	n.frozen = false
	held, late, inbox := n.held, n.late, n.inbox
	n.held, n.late, n.inbox = nil, nil, nil
	n.carryOut(held)
	life := n.life
	for i, f := range late {
		if n.frozen {
			n.late = append(n.late, late[i:]...)
			break
		}
		f()
	}
	for _, ev := range inbox {
		if n.life == life {
			n.deliver(ev)
		}
	}
	if n.up && !n.frozen && n.life == life {
		n.deliver(event{kind: evTick})
	}
}

// deliver feeds the core.
func (n *simNode) deliver(ev event) {
	if !n.up || n.w.failure != nil {
		return
	}
	if n.frozen {
		if ev.kind != evTick {
			n.inbox = append(n.inbox, ev)
		}
		return
	}
	ev.now = n.local()
	n.w.mut.before(n, &ev)
	var effects []effect
	n.w.steps++
	n.s, effects = step(n.s, ev)
	n.w.mut.after(n)
	if err := n.s.valid(); err != nil && n.w.mut == noMutation {
		n.w.fail("%s: %w", n.id, err)
	}
	n.carryOut(effects)
	n.schedule()
}

// schedule sets the node's timer.
func (n *simNode) schedule() {
	at := n.s.wake()
	if at == never || !n.up {
		return
	}
	if at <= n.local() && !n.frozen && n.w.mut == noMutation {
		n.w.fail("%s: would spin: wants to be woken at %d, it is %d; role %s", n.id, at, n.local(), n.s.role)
	}
	t := max(n.real(at), n.w.now+1)
	if n.w.chaos && n.w.chance(0.1) {
		t += n.w.upTo(20 * time.Millisecond)
	}
	if n.tickAt == 0 || t < n.tickAt || n.tickAt < n.w.now {
		n.tickAt = t
		n.w.at(t, item{kind: itTick, node: n.index, life: n.life})
	}
}

func (n *simNode) carryOut(effects []effect) {
	for i := range effects {
		if n.frozen {
			n.held = append(n.held, effects[i:]...)
			return
		}
		if n.w.chaos && n.w.chance(n.w.freeze/50) {
			n.freeze(n.w.upTo(2 * simTTL))
			n.held = append(n.held, effects[i:]...)
			return
		}
		n.one(&effects[i])
	}
}

func (n *simNode) one(e *effect) {
	w := n.w
	switch e.kind {
	case doHolder, doWatch, doAcquire, doRenew, doFence, doRaise, doYield:
		w.send(n, *e)
	case doRelease:
		if n.owed != 0 && e.grant.Term() == n.owed {
			w.broken("P2: %s releases term %d before Deactivate has returned", n.id, n.owed)
		}
		if e.auto && w.chance(0.5) {
			e.next = w.nodes[w.rng.IntN(len(w.nodes))].id
		}
		w.send(n, *e)
	case doActivate:
		n.activate(e)
	case doDrain:
		n.begin(inDrain)
		d := w.upTo(20 * time.Millisecond)
		if w.chaos && w.chance(0.3) {
			d = w.upTo(n.p.drainLimit + n.p.drainLimit/4) // a Drain that is late, too
		}
		w.at(w.now+d, item{kind: itCallback, node: n.index, life: n.life, term: e.term, ev: event{kind: evDrained, term: e.term}})
	case doDeactivate:
		n.deactivate(e)
	case doExtend:
		if n.lease.term != e.term || n.local() >= n.lease.deadline && w.mut != mutRevive { // as Lease.extend
			n.lease.term = 0
			w.at(w.now, item{kind: itAnswer, node: n.index, life: n.life, ev: event{kind: evAbort, term: e.term, err: ErrExpired}})
			return
		}
		n.lease.deadline = max(n.lease.deadline, e.deadline)
		w.bounded(n)
		if n.valid() && w.store.fence.Term > e.term {
			w.broken("P4: %s extends its lease of term %d, the fence stands at %d", n.id, e.term, w.store.fence.Term)
		}
	case doGuard:
		if n.guarded = e.deadline; n.guarded == 0 {
			n.guarded = never // nothing is left to guard
		}
	case doEnd:
		if n.lease.term == e.term {
			n.lease.term = 0
		}
	case doStop:
		w.trace("%s: stopped", n.id)
		n.down()
	case doLog:
		w.trace("%s: %s (was %s) term %d, %v", n.id, e.role, e.from, e.term, e.err)
		if e.role == Active {
			w.actives++
		}
	case doWarn:
		w.trace("%s: %s, term %d, %v", n.id, e.msg, e.term, e.err)
	}
}

func (n *simNode) begin(c callback) {
	if n.running != noCallback {
		n.w.fail("%s: two callbacks at once", n.id)
	}
	n.running = c
}

func (n *simNode) activate(e *effect) {
	w := n.w
	n.begin(inActivate)
	if n.owed != 0 {
		w.fail("%s: Activate while Deactivate is owed", n.id)
	}
	n.owed = e.term
	n.lease.term, n.lease.deadline, n.lease.fence = e.term, e.deadline, e.fence
	if w.mut == mutNoDeadline {
		n.lease.deadline = never
	}
	w.opened(n, e.term)
	w.bounded(n)
	d := w.upTo(20 * time.Millisecond)
	if w.chaos && w.chance(0.2) {
		d = w.upTo(2 * simTTL)
	}
	ev := event{kind: evActivated, term: e.term}
	if w.chaos && w.chance(0.2) {
		ev.err = errors.New("cannot activate")
	}
	w.at(w.now+d/2, item{kind: itAppStart, node: n.index, life: n.life, term: e.term})
	w.at(w.now+d, item{kind: itCallback, node: n.index, life: n.life, term: e.term, ev: ev})
	w.at(w.now+w.upTo(simTTL/20), item{kind: itWork, node: n.index, life: n.life, term: e.term})
}

// deactivate ends the application, which takes a while.
func (n *simNode) deactivate(e *effect) {
	w := n.w
	n.begin(inDeactivate)
	if n.owed != e.term {
		w.fail("%s: Deactivate of term %d, owed is %d", n.id, e.term, n.owed)
	}
	d := w.upTo(10 * time.Millisecond)
	if w.chaos && w.chance(0.2) {
		d = w.upTo(2 * simTTL)
	}
	if n.app != 0 {
		w.at(w.now+d, item{kind: itAppEnd, node: n.index, term: n.app})
	}
	if w.mut == mutReleaseFirst {
		w.send(n, effect{kind: doRelease, seq: 1 << 40, grant: n.s.lead.grant})
	}
	w.at(w.now+d, item{kind: itCallback, node: n.index, life: n.life, term: e.term, ev: event{kind: evDeactivated, term: e.term}})
}

func (n *simNode) callbackEnds(it *item) {
	ev, life := it.ev, n.life
	n.later(func() {
		if n.life != life {
			return
		}
		if ev.kind == evDeactivated {
			n.owed = 0
		}
		if ev.kind == evDrained && n.app == ev.term {
			n.app = 0
		}
		n.running = noCallback
		n.deliver(ev)
	})
}

// later does what a goroutine of the node does: not while it is frozen.
func (n *simNode) later(f func()) {
	if n.frozen {
		n.late = append(n.late, f)
		return
	}
	f()
}

func (n *simNode) startApp(term uint64) {
	life := n.life
	n.later(func() {
		// The server checks the lease before it starts the application, and the guardian holds the deadline from then on.
		if n.life != life || n.owed != term || n.running != inActivate || n.lease.term != term || !n.valid() {
			return
		}
		n.app = term
		n.w.started(n)
		n.guard(term)
	})
}

// guard is the guardian, a process of its own: it ends the application by the deadline, also when the node is frozen.
func (n *simNode) guard(term uint64) {
	w := n.w
	if n.app != term || w.mut == mutNoGuardian || w.mut == mutNoDeadline {
		return
	}
	if n.guarded == never {
		return
	}
	if n.local() < n.guarded {
		w.at(n.real(n.guarded), item{kind: itGuardian, node: n.index, life: n.life, term: term})
		return
	}
	w.at(w.now+w.upTo(simTTL/50), item{kind: itAppEnd, node: n.index, term: term})
}

// work is what an active node does: it checks its lease, and writes. Between the two anything can happen.
func (n *simNode) work(term uint64) {
	w, life := n.w, n.life
	n.later(func() {
		if n.life != life || n.lease.term != term {
			return
		}
		if n.valid() {
			w.at(w.now+w.latency(), item{kind: itWrite, node: n.index, fence: n.lease.fence})
		}
		w.at(w.now+w.upTo(simTTL/2), item{kind: itWork, node: n.index, life: n.life, term: term})
	})
}

// valid checks the invariants that the type's comment states.
func (s *state) valid() error {
	l := &s.lead
	switch {
	case s.role.holds() != (l.term != 0):
		return fmt.Errorf("role %s with leadership of term %d", s.role, l.term)
	case l.open && s.role != Activating && s.role != Active && s.role != Draining:
		return fmt.Errorf("role %s with an open lease", s.role)
	case (s.role == Active || s.role == Draining) && !l.open:
		return fmt.Errorf("role %s without a lease", s.role)
	case l.release.seq != 0 && (l.called || l.running != noCallback || s.role != Releasing):
		return fmt.Errorf("a release is sent while Deactivate is owed or runs")
	case s.role == Active && (l.running != noCallback || !l.called || !l.renewing):
		return fmt.Errorf("active, but callback %d, called %t, renewing %t", l.running, l.called, l.renewing)
	case l.deadline > l.expiry:
		return fmt.Errorf("the deadline is after the expiry")
	}
	return nil
}
