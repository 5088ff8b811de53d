package election

import (
	"errors"

	"github.com/locum-ha/locum/physical"
)

// step is the whole of election's decisions: what is known, and what has just happened, give what is known then,
// and what to do. It reads no clock and touches nothing.
func step(s state, ev event) (state, []effect) {
	m := machine{state: s, now: ev.now}
	// A deadline that has passed is looked at before the event is believed: a late answer revives nothing.
	m.expire()
	m.handle(ev)
	m.due()
	return m.state, m.out
}

func newState(p params, candidate bool, seed uint64) state {
	return state{p: &p, candidate: candidate, rng: seed, rival: -1, role: Starting}
}

// machine is a state in the middle of a step.
type machine struct {
	state
	now instant
	out []effect
}

func (m *machine) do(e effect) { m.out = append(m.out, e) }

// call begins a call of a store: the effect gets its number and limit.
func (m *machine) call(e effect, p *pending, limit duration) {
	m.seq++
	*p = pending{seq: m.seq, sent: m.now, limit: m.now.Add(limit)}
	e.seq, e.limit = p.seq, p.limit
	m.do(e)
}

// become is the one place where the role changes.
func (m *machine) become(r Role, why error) {
	if m.role == r {
		return
	}
	from := m.role
	m.role, m.since = r, m.now
	m.rev++
	m.do(effect{kind: doLog, from: from, role: r, term: m.termNow(), err: why})
}

func (m *machine) termNow() uint64 {
	if m.lead.term != 0 {
		return m.lead.term
	}
	return m.record.Term
}

// trouble notes what a store answered last.
func (m *machine) trouble(err error) {
	if err != nil || m.lastErr != nil {
		m.lastErr = err
		m.rev++
	}
}

func (m *machine) handle(ev event) {
	switch ev.kind {
	case evTick:
	case evStart:
		m.become(Standby, nil)
	case evRecord:
		m.looked(ev)
	case evFence:
		m.fenceSeen(ev)
	case evAcquired:
		m.acquired(ev)
	case evRenewed:
		m.renewed(ev)
	case evRaised:
		m.raised(ev)
	case evReleased:
		m.released(ev)
	case evYielded:
		m.yielded(ev)
	case evActivated, evDrained, evDeactivated:
		m.returned(ev)
	case evAbort:
		m.aborted(ev)
	case evStepDown:
		m.stepDown(ev)
	case evSkipDrain:
		if m.role == Draining {
			m.do(effect{kind: doSkipDrain, term: m.lead.term})
		}
	case evPause:
		m.paused = ev.on
		m.rev++
	case evCandidate:
		m.candidate = ev.on
		m.rev++
	case evRival:
		m.rival, m.rivalID = ev.n, ev.next
	case evHurry:
		m.hurried(ev.on)
	case evStop:
		m.stop()
	}
}

// expire ends a leadership whose deadline has passed, before anything else is looked at.
func (m *machine) expire() {
	if m.lead.term == 0 || m.now < m.lead.deadline || !m.lead.renewing {
		return
	}
	m.lead.renewing = false
	if m.role < Deactivating {
		m.end(ErrExpired)
	}
}

// due does what time has made due, and keeps the calls under way that the role needs.
func (m *machine) due() {
	m.giveUpLate()
	if m.role.holds() {
		m.keep()
	}
	if !m.role.holds() && m.role != Starting && m.role != Stopped {
		m.follow()
	}
}

// giveUpLate treats calls past their limit as answered with ErrUnknown. Their answers, if any come, are stale.
func (m *machine) giveUpLate() {
	late := func(p pending) bool { return p.seq != 0 && m.now >= p.limit }
	if late(m.look) {
		m.looked(event{seq: m.look.seq, err: errLate})
	}
	if late(m.fenceRead) {
		m.fenceSeen(event{seq: m.fenceRead.seq, err: errLate})
	}
	if late(m.acquire) {
		m.acquired(event{seq: m.acquire.seq, err: errLate})
	}
	if late(m.yield) {
		m.yielded(event{seq: m.yield.seq, err: errLate})
	}
	if late(m.lead.raise) {
		m.raised(event{seq: m.lead.raise.seq, err: errLate})
	}
	if late(m.lead.release) {
		m.released(event{seq: m.lead.release.seq, err: errLate})
	}
	for _, p := range m.lead.renewals {
		if late(p) {
			m.renewed(event{seq: p.seq, err: errLate})
		}
	}
}

// wake is the next instant at which the state wants to be looked at, or never.
func (s *state) wake() instant {
	at := never
	soon := func(t instant) {
		if t != 0 && t < at {
			at = t
		}
	}
	call := func(p pending) {
		if p.seq != 0 {
			soon(p.limit)
		}
	}
	call(s.look)
	call(s.fenceRead)
	call(s.acquire)
	call(s.yield)
	if s.role.holds() {
		s.lead.wake(s.role, s.fenceRead.seq != 0, soon, call)
		return at
	}
	if s.role == Starting || s.role == Stopped || s.stopping {
		return at
	}
	if s.look.seq == 0 {
		soon(s.lookAt)
	}
	if s.fenceRead.seq == 0 && s.fenceWanted() {
		soon(s.fenceAt)
	}
	if s.acquire.seq == 0 && s.yield.seq == 0 {
		soon(s.mayTry())
		soon(s.mayYield())
	}
	if s.forgetFrom != 0 && !s.confirm {
		soon(s.forgetFrom.Add(s.p.ttl))
	}
	soon(s.backUntil)
	soon(s.holdUntil)
	soon(s.graceUntil)
	return at
}

func (l *lead) wake(r Role, reading bool, soon func(instant), call func(pending)) {
	call(l.raise)
	call(l.release)
	for _, p := range l.renewals {
		call(p)
	}
	if l.renewing {
		soon(l.renewAt)
		soon(l.deadline)
	}
	switch r {
	case Activating:
		if !l.called && !l.raised {
			soon(l.raiseEnd)
			if l.raise.seq == 0 && !reading {
				soon(l.raiseAt)
			}
		}
	case Draining:
		soon(l.drainTo)
	case Deactivating:
		if l.renewing {
			soon(l.stuckAt)
		}
	case Releasing:
		if l.release.seq == 0 {
			soon(l.relAt)
		}
	}
}

// stop begins the end: a leadership is given up as planned, and follow does the rest.
func (m *machine) stop() {
	if m.stopping {
		return
	}
	m.stopping = true
	switch m.role {
	case Active:
		m.drain(ErrShutdown, "")
	case Activating:
		m.lead.planned = true
		m.end(ErrShutdown)
	}
}

// random returns a number in [0, 1).
func (m *machine) random() float64 {
	m.rng += 0x9e3779b97f4a7c15 // splitmix64
	z := m.rng
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	z ^= z >> 31
	return float64(z>>11) / (1 << 53)
}

// heldBy returns the record in a HeldError.
func heldBy(err error) (physical.Record, bool) {
	var held *physical.HeldError
	if errors.As(err, &held) {
		return held.Record, true
	}
	return physical.Record{}, false
}
