package election

import (
	"errors"
	"fmt"

	"github.com/locum-ha/locum/physical"
)

// What a node does that holds the lock: it raises the fence, runs the callbacks, renews, and gives up.

// win begins a leadership. sent is the instant before the Acquire was sent.
func (m *machine) win(ev event, sent instant) {
	g := ev.grant
	if g.Term() <= m.above {
		m.trouble(fmt.Errorf("election: the lock store gave term %d, not above %d", g.Term(), m.above))
		m.tryLater(m.p.retryMax)
		return
	}
	m.trouble(nil)
	m.cancelLook()
	m.fenceRead, m.yield = pending{}, pending{}
	ttl := g.TTL
	if ttl <= 0 {
		ttl = m.p.ttl
	}
	m.lead = lead{
		term: g.Term(), grant: g, ttl: ttl, won: m.now,
		expiry: sent.Add(ttl), deadline: sent.Add(ttl - m.p.margin(ttl)),
		renewing: true, renewAt: sent.Add(ttl / 3),
		strict: m.careful, from: m.fence,
		to:      physical.Fence{Lineage: m.fence.Lineage, Term: g.Term(), Nonce: ev.nonce},
		raiseAt: m.now, raiseEnd: m.now.Add(m.p.fenceLimit),
	}
	if m.lead.to.Lineage == "" {
		m.lead.to.Lineage = ev.lineage
	}
	m.become(Activating, nil)
	switch {
	case m.now >= m.lead.deadline:
		m.lead.renewing = false
		m.end(ErrExpired)
	case m.stopping:
		m.lead.planned = true
		m.end(ErrShutdown)
	case !m.candidate:
		m.lead.planned = true
		m.end(ErrNotCandidate)
	}
}

// keep does what a leadership needs at this instant.
func (m *machine) keep() {
	l := &m.lead
	if l.renewing && m.now >= l.renewAt {
		m.renew()
	}
	switch m.role {
	case Activating:
		if !l.called {
			m.keepRaising()
		}
	case Draining:
		if m.now >= l.drainTo {
			m.do(effect{kind: doWarn, msg: "Drain does not return", term: l.term})
			m.end(l.cause)
		}
	case Deactivating:
		if l.renewing && m.now >= l.stuckAt {
			l.renewing = false
			m.do(effect{kind: doWarn, msg: "Deactivate does not return; the lock is left to run out", term: l.term})
		}
	case Releasing:
		switch {
		case l.release.seq != 0 || m.now < l.relAt:
		case m.now >= l.expiry:
			m.over(physical.Record{}, physical.ErrUnknown)
		default:
			m.sendRelease()
		}
	}
}

// renew sends a renewal, beside those that are not answered yet.
func (m *machine) renew() {
	l := &m.lead
	l.renewAt = m.now.Add(l.ttl / 6) // unless an answer comes: then it is moved
	for i := range l.renewals {
		if l.renewals[i].seq == 0 {
			m.call(effect{kind: doRenew, grant: l.grant}, &l.renewals[i], l.ttl/2)
			return
		}
	}
}

func (m *machine) renewed(ev event) {
	l := &m.lead
	var p pending
	for i := range l.renewals {
		if ev.seq != 0 && l.renewals[i].seq == ev.seq {
			p, l.renewals[i] = l.renewals[i], pending{}
		}
	}
	if p.seq == 0 || !l.renewing {
		return
	}
	err := ev.err
	if err == nil && ev.grant.Term() != l.term {
		err = physical.ErrLost
	}
	m.do(effect{kind: doObserve, what: obRenewed, d: m.now.Sub(p.sent), err: err})
	switch {
	case err == nil:
		m.trouble(nil)
		m.extend(ev, p)
	case errors.Is(err, physical.ErrLost):
		m.trouble(err)
		l.renewing, l.mine = false, false
		if m.role < Deactivating {
			m.end(err)
		}
	default:
		m.trouble(err)
		l.renewAt = min(l.renewAt, m.now.Add(m.p.renewRetry))
	}
}

// extend moves the lease's deadline: it is measured from the instant before the renewal was sent (P4).
func (m *machine) extend(ev event, p pending) {
	l := &m.lead
	if p.seq > l.renewSeq {
		l.renewSeq, l.grant = p.seq, ev.grant
		if ev.grant.TTL > 0 {
			l.ttl = ev.grant.TTL
		}
	}
	l.renewAt = max(p.sent.Add(l.ttl/3), m.now.Add(m.p.renewRetry))
	l.expiry = max(l.expiry, p.sent.Add(l.ttl))
	if d := p.sent.Add(l.ttl - m.p.margin(l.ttl)); d > l.deadline {
		l.deadline = d
		switch {
		case l.open:
			m.do(effect{kind: doExtend, term: l.term, deadline: d})
		case l.raised && !l.called && m.role == Activating:
			m.open()
			return
		}
		if l.called {
			m.do(effect{kind: doGuard, term: l.term, grant: l.grant, deadline: d})
		}
	}
}

// keepRaising raises the fence, or finds out what became of a raise.
func (m *machine) keepRaising() {
	l := &m.lead
	switch {
	case l.raised:
	case m.now >= l.raiseEnd:
		m.end(fmt.Errorf("%w: %w", errFenceLate, m.lastErr))
	case l.raise.seq != 0 || m.fenceRead.seq != 0 || m.now < l.raiseAt:
	case l.unclear:
		m.call(effect{kind: doFence}, &m.fenceRead, m.p.callLimit)
	default:
		m.call(effect{kind: doRaise, fence: l.from, to: l.to}, &l.raise, m.p.callLimit)
	}
}

func (m *machine) raised(ev event) {
	l := &m.lead
	if ev.seq == 0 || ev.seq != l.raise.seq {
		return
	}
	l.raise = pending{}
	l.raises++
	switch {
	case ev.err == nil:
		m.activate()
	case errors.Is(ev.err, physical.ErrUnavailable): // not carried out
		m.trouble(ev.err)
		l.raiseAt = m.now.Add(m.p.renewRetry)
	default: // refused, perhaps because the fence known here was old; or unclear: the nonce tells
		m.trouble(ev.err)
		l.unclear, l.raiseAt = true, m.now
	}
}

// settle decides on a raise by the fence that was read back.
func (m *machine) settle() {
	l := &m.lead
	switch {
	case m.fence == l.to:
		m.activate()
	case m.fence.Term >= l.term, l.strict && m.fence != l.from:
		m.end(fmt.Errorf("%w: it stands at %d", physical.ErrFenced, m.fence.Term))
	default:
		l.raiseAt = m.now
		if m.fence == l.from { // not carried out, or not yet: the same raise again
			l.raiseAt = m.now.Add(min(m.p.renewRetry, duration(l.raises)*wakeGap))
		}
		l.unclear, l.from = false, m.fence
		if m.fence.Lineage != "" {
			l.to.Lineage = m.fence.Lineage
		}
	}
}

// activate follows upon the raise. When acquiring and raising took so long that little of the lease is left, a renewal is answered
// first: else the guardian, told of a deadline that is nearly there, would end what has hardly begun.
func (m *machine) activate() {
	l := &m.lead
	m.trouble(nil)
	m.fence, m.fenceKnown = l.to, true
	l.mine, l.raised = true, true
	m.do(effect{kind: doObserve, what: obFenced, term: l.term})
	if l.deadline.Sub(m.now) >= l.ttl/3 {
		m.open()
		return
	}
	m.renew()
}

// open opens the lease.
func (m *machine) open() {
	l := &m.lead
	l.open, l.called, l.running = true, true, inActivate
	m.do(effect{kind: doGuard, term: l.term, grant: l.grant, deadline: l.deadline})
	m.do(effect{kind: doActivate, term: l.term, grant: l.grant, fence: l.to, deadline: l.deadline})
}

// end is the event with which a callback ends.
func (c callback) end() eventKind {
	return [...]eventKind{inActivate: evActivated, inDrain: evDrained, inDeactivate: evDeactivated}[c]
}

// returned takes the end of a callback.
func (m *machine) returned(ev event) {
	l := &m.lead
	if l.term == 0 || ev.term != l.term || l.running == noCallback || l.running.end() != ev.kind {
		return
	}
	l.running = noCallback
	switch {
	case ev.kind == evDeactivated:
		l.called = false
		m.do(effect{kind: doGuard, term: l.term, grant: l.grant})
		m.giveUp()
	case m.role == Deactivating:
		m.deactivate()
	case ev.kind == evDrained:
		if ev.err != nil {
			m.do(effect{kind: doWarn, msg: "drain", term: l.term, err: ev.err})
		}
		m.end(l.cause)
	case ev.err != nil:
		m.end(fmt.Errorf("activate: %w", ev.err))
	default:
		l.activeAt = m.now
		m.become(Active, nil)
		m.do(effect{kind: doObserve, what: obActivated, term: l.term, d: m.now.Sub(l.won)})
		m.ledAgain()
	}
}

func (m *machine) aborted(ev event) {
	l := &m.lead
	if l.term == 0 || ev.term != l.term || m.role >= Deactivating {
		return
	}
	if errors.Is(ev.err, ErrExpired) {
		l.renewing = false
	} else {
		l.failed = true
	}
	m.end(ev.err)
}

func (m *machine) stepDown(ev event) {
	l := &m.lead
	switch {
	case m.role == Active && ev.next == m.p.id:
		m.do(effect{kind: doReply, id: ev.id, err: ErrTarget})
	case m.role == Active:
		m.wait(ev.id)
		m.drain(ErrSteppedDown, ev.next)
	case m.role.holds() && l.planned:
		m.wait(ev.id)
	default:
		m.do(effect{kind: doReply, id: ev.id, err: ErrNotActive})
	}
}

// wait keeps a step-down request until the lock is given up. The slice is copied: states share nothing.
func (m *machine) wait(id uint64) {
	m.lead.waiters = append(append([]uint64(nil), m.lead.waiters...), id)
}

// drain begins a planned end.
func (m *machine) drain(cause error, next string) {
	l := &m.lead
	l.planned, l.cause, l.next = true, cause, next
	l.running = inDrain
	limit := m.now.Add(m.p.drainLimit)
	l.drainTo = limit.Add(l.ttl)
	m.become(Draining, cause)
	m.do(effect{kind: doDrain, term: l.term, limit: limit})
}

// end ends the lease, whatever the reason, and sees to the rest. From here on nothing may run but what ends things.
func (m *machine) end(cause error) {
	l := &m.lead
	l.cause, l.endedAt, l.stuckAt = cause, m.now, m.now.Add(m.p.deactivateLimit)
	l.raise, m.fenceRead = pending{}, pending{}
	planned := isPlanned(cause)
	if !planned && l.activeAt == 0 {
		l.failed = true
	}
	if l.open {
		l.open = false
		m.do(effect{kind: doEnd, term: l.term, err: cause})
		m.do(effect{kind: doObserve, what: obEnded, term: l.term, planned: planned, err: cause})
	}
	if !planned {
		m.lossErr, m.lossTerm = cause, l.term
		m.rev++
		m.do(effect{kind: doObserve, what: obLost, term: l.term, err: cause})
	}
	if !l.called {
		m.giveUp()
		return
	}
	m.become(Deactivating, cause)
	if l.running == noCallback {
		m.deactivate()
	}
}

func (m *machine) deactivate() {
	m.lead.running = inDeactivate
	m.do(effect{kind: doDeactivate, term: m.lead.term, err: m.lead.cause})
}

// giveUp releases the lock, if it may still be this node's. Nothing runs under it any more. A lock under which the fence was
// never raised is left to run out: it may be that of a store that forgot somebody who is active, and then this is the
// time that has to be waited for him; to release it would make the store's record look as if nothing had been forgotten.
func (m *machine) giveUp() {
	l := &m.lead
	l.renewing, l.renewals = false, [4]pending{}
	if !l.mine {
		m.over(physical.Record{}, l.cause)
		return
	}
	m.become(Releasing, l.cause)
	m.sendRelease()
}

func (m *machine) sendRelease() {
	l := &m.lead
	e := effect{kind: doRelease, grant: l.grant, next: l.next, auto: l.planned && l.next == ""}
	m.call(e, &l.release, m.p.callLimit)
}

func (m *machine) released(ev event) {
	l := &m.lead
	if ev.seq == 0 || ev.seq != l.release.seq {
		return
	}
	l.release = pending{}
	if ev.err == nil || errors.Is(ev.err, physical.ErrLost) {
		m.over(physical.Record{Name: l.grant.Record.Name, Term: l.term, Next: ev.next}, ev.err)
		return
	}
	m.trouble(ev.err)
	l.relAt = m.now
	if m.now < l.expiry {
		l.relAt = m.now.Add(m.p.renewRetry)
	}
}

// over ends a leadership for good. last is the record that the release left, if it is known.
func (m *machine) over(last physical.Record, err error) {
	l := m.lead
	m.lead = lead{}
	for _, id := range l.waiters {
		m.do(effect{kind: doReply, id: id, err: err})
	}
	switch {
	case l.planned:
		m.failures = 0
		m.holdUntil, m.holdTerm = m.now.Add(m.p.stepDownGrace), l.term
	case l.failed:
		if l.activeAt != 0 && l.endedAt.Sub(l.activeAt) >= m.p.stable {
			m.failures = 0
		}
		m.backOff()
	case l.activeAt != 0 && l.endedAt.Sub(l.activeAt) >= m.p.stable:
		m.failures = 0
	}
	m.maxTerm = max(m.maxTerm, l.term)
	if m.bare == 0 {
		m.bare = l.endedAt
	}
	m.record, m.seen = last, false // not seen: the store is asked
	m.record.Term = max(last.Term, l.term)
	m.freeSince = m.now
	m.forgetFrom, m.confirm = 0, false
	m.favoured, m.graceUntil = "", 0
	m.tries, m.tryAt, m.refused = 0, 0, false
	m.peek, m.lookAt, m.lookGap = true, m.now, 0
	m.rev++
	if m.backUntil != 0 {
		m.become(BackingOff, l.cause)
	} else {
		m.become(Standby, l.cause)
	}
}

// backOff keeps a node out that failed, for longer each time: between half and one and a half of the doubled wait.
func (m *machine) backOff() {
	wait := min(m.p.backoffMin<<min(m.failures, 20), m.p.backoffMax)
	m.failures++
	m.backUntil = m.now.Add(wait/2 + duration(m.random()*float64(wait)))
}
