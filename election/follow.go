package election

import (
	"errors"
	"time"

	"github.com/locum-ha/locum/physical"
)

// What a node does that does not hold the lock: it follows it, reads the fence ahead, and competes.

// follow sees to it that the right calls are under way. It runs at the end of every step without a leadership.
func (m *machine) follow() {
	clearPassed := func(t *instant) {
		if *t != 0 && m.now >= *t {
			*t, m.tryAt = 0, 0 // attempts to hand on are over
		}
	}
	clearPassed(&m.holdUntil)
	clearPassed(&m.graceUntil)
	clearPassed(&m.backUntil)
	if m.stopping {
		m.finish()
		return
	}
	m.lookOn()
	m.noticeForgotten()
	m.readAhead()
	m.compete()
	switch {
	case m.role.holds():
	case m.acquire.seq != 0 || m.refused && m.mayTry() != never:
		m.become(Campaigning, nil)
	case m.backUntil != 0:
		m.become(BackingOff, m.lossErr)
	default:
		m.become(Standby, m.lastErr)
	}
}

// finish lets Run return, once it is known whether an Acquire under way has won the lock.
func (m *machine) finish() {
	if m.acquire.seq != 0 {
		return
	}
	m.cancelLook()
	m.become(Stopped, nil)
	m.do(effect{kind: doStop})
}

func (m *machine) cancelLook() {
	if m.look.seq != 0 {
		m.do(effect{kind: doCancel, seq: m.look.seq})
	}
	m.look, m.watching = pending{}, false
}

func (m *machine) lookOn() {
	if m.look.seq != 0 || m.now < m.lookAt {
		return
	}
	if m.p.watch && m.seen && !m.peek {
		m.watching = true
		m.call(effect{kind: doWatch, record: m.record}, &m.look, m.p.watchLimit)
		return
	}
	m.peek = false
	m.call(effect{kind: doHolder}, &m.look, m.p.callLimit)
}

// looked takes what Holder or Watch answered.
func (m *machine) looked(ev event) {
	if ev.seq == 0 || ev.seq != m.look.seq {
		return
	}
	watched, lasted := m.watching, m.now.Sub(m.look.sent)
	m.look, m.watching = pending{}, false
	if ev.err != nil && !errors.Is(ev.err, physical.ErrNoHolder) {
		m.peek = true
		if watched && lasted >= m.p.watchLimit/2 { // it was quiet; make sure by asking
			m.lookAt, m.lookGap = m.now, 0
			return
		}
		m.trouble(ev.err)
		m.lookGap = grow(m.lookGap, 5*time.Millisecond, m.p.retryMax)
		m.lookAt = m.now.Add(m.lookGap)
		return
	}
	changed := m.observe(ev.record)
	if m.record.Holder != "" {
		m.trouble(nil)
	}
	switch {
	case !m.p.watch:
		m.lookGap = 0
		m.lookAt = m.now.Add(m.pollEvery())
	case watched && !changed:
		// Woken without news: an attempt has become worth while. A store that wakes all the time is slowed down.
		m.tryAt = min(m.tryAt, m.lastTry.Add(wakeGap))
		m.lookGap = grow(m.lookGap, wakeGap, m.p.pollEvery)
		m.lookAt = m.now.Add(m.lookGap)
	default:
		m.lookAt = m.now.Add(m.lookGap)
	}
}

// hurryPoll is how often a store that must be polled is asked while somebody waits.
const hurryPoll = 25 * time.Millisecond

func (s *state) pollEvery() duration {
	if s.hurry {
		return min(s.p.pollEvery, hurryPoll)
	}
	return s.p.pollEvery
}

// hurried takes that somebody waits, or does no more.
func (m *machine) hurried(on bool) {
	m.hurry = on
	if on && !m.p.watch && m.look.seq == 0 {
		m.lookAt = min(m.lookAt, m.now.Add(hurryPoll))
	}
}

// wakeGap is the least time between two attempts that a Watch without news brings about.
const wakeGap = 2 * time.Millisecond

// grow doubles a gap, within limits.
func grow(gap, least, most duration) duration { return min(max(2*gap, least), most) }

// observe takes a record of the lock and reports whether it is news.
func (m *machine) observe(r physical.Record) bool {
	if m.seen && r == m.record {
		return false
	}
	if r.Holder != "" && (r.Holder != m.holder || r.Term != m.record.Term) {
		m.holder, m.heldSince = r.Holder, m.now
	}
	m.record, m.seen = r, true
	m.rev++
	m.tries, m.tryAt, m.lookGap, m.refused = 0, 0, 0, false
	m.forgetFrom, m.confirm = 0, false
	m.favoured, m.graceUntil = "", 0
	if r.Term > m.holdTerm || r.Holder != "" && r.Holder != m.p.id {
		m.holdUntil, m.holdTerm = 0, 0
	}
	if r.Holder != "" {
		m.freeSince = 0
		if r.Holder != m.p.id {
			m.ledAgain()
		}
		m.fenceAt = m.now.Add(m.p.ttl / 4) // by then it has raised
	} else {
		m.freeSince = m.now
		if m.bare == 0 {
			m.bare = m.now
		}
		m.favour(r.Next)
	}
	m.noticeForgotten()
	m.maxTerm = max(m.maxTerm, r.Term)
	return true
}

// favour lets another node go first for a while: the one that the last holder named, or, where the store chose this
// node, one of higher priority. There is one such while for a term, however often its lock is seen to be free: two nodes that
// know different candidates may each take the other for the first, and the store's choice would go back and forth for ever.
func (m *machine) favour(next string) {
	if next == "" && m.p.yields && m.rival > m.p.priority {
		next = m.rivalID
	}
	if next != "" && next != m.p.id {
		if m.graceEnd == 0 || m.graceTerm != m.record.Term {
			m.graceTerm, m.graceEnd = m.record.Term, m.now.Add(m.p.nextGrace)
		}
		if m.now >= m.graceEnd {
			return
		}
		m.graceUntil = m.graceEnd
	}
	m.favoured = next
}

// ledAgain ends a time without a leader, if there was one.
func (m *machine) ledAgain() {
	if m.bare != 0 {
		m.do(effect{kind: doObserve, what: obLeaderless, d: m.now.Sub(m.bare)})
		m.bare = 0
	}
}

// noticeForgotten begins the wait of a TTL when the lock's record is older than what is known: its store has forgotten,
// and whoever held the lock may believe in its lease for as long as that.
func (m *machine) noticeForgotten() {
	if m.seen && m.record.Holder == "" && m.forgetFrom == 0 && m.record.Term < max(m.maxTerm, m.fence.Term) {
		m.forgetFrom, m.confirm = m.now, false
		m.do(effect{kind: doWarn, msg: "the lock store forgot; waiting for a TTL", term: max(m.maxTerm, m.fence.Term)})
	}
	if m.forgetFrom != 0 && !m.confirm && m.now >= m.forgetFrom.Add(m.p.ttl) {
		m.confirm, m.fenceAt = true, m.now
	}
}

// lookAfresh begins the wait for a store that forgot anew, from the next look that finds the lock free. When a TTL has passed since a
// look, and the fence is still the one that was known before that look, then nobody can have a lease: who raised it last had lost the
// lock by the time of the look, and whoever leads later has raised it.
func (m *machine) lookAfresh() {
	m.forgetFrom, m.confirm = 0, false
	m.cancelLook()
	m.seen, m.peek, m.lookAt = false, true, m.now
}

// fenceWanted reports whether the fence should be read: it is not known, or known to be old, or to be confirmed.
func (s *state) fenceWanted() bool {
	return !s.fenceKnown || s.fence.Term < s.record.Term || s.unconfirmed()
}

func (s *state) unconfirmed() bool {
	return s.confirm && s.fenceSent < s.forgetFrom.Add(s.p.ttl)
}

func (m *machine) readAhead() {
	if m.fenceRead.seq == 0 && m.now >= m.fenceAt && m.fenceWanted() {
		m.call(effect{kind: doFence}, &m.fenceRead, m.p.callLimit)
	}
}

// fenceSeen takes what Fence answered, read ahead or to settle a raise.
func (m *machine) fenceSeen(ev event) {
	if ev.seq == 0 || ev.seq != m.fenceRead.seq {
		return
	}
	sent := m.fenceRead.sent
	m.fenceRead = pending{}
	if ev.err != nil {
		m.trouble(ev.err)
		m.fenceAt = m.now.Add(m.p.retryMax)
		if m.role == Activating {
			m.lead.raiseAt = m.now.Add(m.p.renewRetry)
		}
		return
	}
	if m.fenceKnown && m.fence != ev.fence && m.forgetFrom != 0 {
		m.lookAfresh() // somebody was active meanwhile, and may be so still
	}
	m.fence, m.fenceKnown, m.fenceSent = ev.fence, true, sent
	m.fenceAt = m.now.Add(m.p.ttl / 2)
	if m.role == Activating && !m.lead.called {
		m.settle()
		return
	}
	m.noticeForgotten()
}

// outranked returns how long this node lets others go first.
func (s *state) outranked() duration {
	best := s.rival
	if best < 0 {
		best = defaultPriority
	}
	if s.p.yields || s.p.priority >= best {
		return 0
	}
	share := min(duration(best-s.p.priority), 100)
	return max(s.p.priorityDelay*share/100, s.p.priorityDelay/4)
}

// mayTry returns from when on this node may try to acquire the lock as it is seen now, or never.
func (s *state) mayTry() instant {
	named := s.record.Next == s.p.id
	if !s.seen || s.record.Holder != "" || !s.fenceKnown || s.stopping || !s.candidate || s.paused && !named || s.unconfirmed() {
		return never
	}
	at := max(s.freeSince, s.tryAt, s.holdUntil, s.backUntil)
	if !named {
		first := s.freeSince
		if s.favoured != "" {
			first = max(first, s.graceEnd)
		}
		at = max(at, first.Add(s.outranked()))
		if s.p.minFailover > 0 && s.holder != "" && s.holder != s.p.id {
			at = max(at, s.heldSince.Add(s.p.minFailover))
		}
	}
	if s.forgetFrom != 0 {
		at = max(at, s.forgetFrom.Add(s.p.ttl))
	}
	return at
}

// mayYield returns from when on this node should hand on the right to acquire, if the store gave it, or never.
func (s *state) mayYield() instant {
	if !s.p.yields || !s.seen || s.record.Holder != "" || s.stopping {
		return never
	}
	named := s.record.Next == s.p.id
	switch {
	case !s.candidate || s.holdUntil != 0 || s.backUntil != 0 || s.graceUntil != 0:
		return max(s.freeSince, s.tryAt)
	case s.paused && !named: // as the others may be, too: not from one to the next as fast as it goes
		return max(s.freeSince.Add(s.p.pausedYield), s.tryAt)
	}
	return never
}

// compete tries for the lock, or hands on the right to.
func (m *machine) compete() {
	if m.acquire.seq != 0 || m.yield.seq != 0 {
		return
	}
	if m.now >= m.mayYield() {
		e := effect{kind: doYield}
		if m.graceUntil != 0 {
			e.next = m.favoured
		}
		m.call(e, &m.yield, m.p.callLimit)
		return
	}
	if m.now >= m.mayTry() {
		e := effect{kind: doAcquire, above: max(m.fence.Term, m.maxTerm)}
		e.record = physical.Record{Holder: m.p.id, Name: m.p.name}
		m.lastTry, m.above, m.careful = m.now, e.above, m.forgetFrom != 0
		m.call(e, &m.acquire, m.p.ttl-m.p.margin(m.p.ttl)) // a later answer would be of no use
	}
}

// tryLater lengthens the gap to the next attempt.
func (m *machine) tryLater(most duration) {
	m.tries++
	gap := time.Millisecond << min(m.tries, 12)
	m.tryAt = m.now.Add(min(gap, most))
}

func (m *machine) yielded(ev event) {
	if ev.seq == 0 || ev.seq != m.yield.seq {
		return
	}
	m.yield = pending{}
	m.tryLater(8 * m.p.retryMax) // handing on moves the choice about: not too often
	if ev.err != nil {
		m.trouble(ev.err)
	}
}

// acquired takes what Acquire answered.
func (m *machine) acquired(ev event) {
	if ev.seq == 0 || ev.seq != m.acquire.seq {
		return // late: the lock, if it was won, runs out by itself
	}
	sent := m.acquire.sent
	m.acquire = pending{}
	if ev.err == nil {
		m.win(ev, sent)
		return
	}
	m.refused = true
	m.tryLater(m.p.retryMax)
	if m.look.seq == 0 {
		m.lookAt = m.now
	}
	if r, ok := heldBy(ev.err); ok {
		m.observe(r)
		if r.Holder == m.p.id {
			m.trouble(errEarlierLife)
		}
		return
	}
	m.trouble(ev.err)
}
