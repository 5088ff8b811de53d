package supervise

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/locum-ha/locum/internal/boottime"
)

// Phase is where an application's life stands on this node.
type Phase int

// The phases.
const (
	Stopped  Phase = iota // it does not run, and is not meant to
	Starting              // it is being started, or runs and is not healthy yet
	Healthy               // it works
	Stopping              // it was asked to end, or is being killed
	Waiting               // it ended by itself, and is started again in a while
)

func (p Phase) String() string {
	return [...]string{"stopped", "starting", "healthy", "stopping", "waiting"}[p]
}

// errNotHealthy: it runs, and does not work within the time that it is given.
var errNotHealthy = errors.New("not healthy")

// How soon it is started again: twice as long each time, up to the limits.
const (
	restartMin    = 100 * time.Millisecond
	restartActive = 5 * time.Second  // longest wait while this node is active: the clients wait, too
	restartIdle   = 30 * time.Second // and while it is standby
	firstCheck    = 5 * time.Millisecond
	slowestStart  = 50 * time.Millisecond // between two checks of one that is starting
	unwell        = 2 * time.Second       // that one that is not healthy any more gets to end by itself
)

// lifeParams are the constants of one application.
type lifeParams struct {
	startTimeout, stopTimeout time.Duration
	interval                  time.Duration // between two checks
	failures                  int           // checks in a row that must fail
	restarts                  int           // within window, then the node steps down
	window                    time.Duration
	unchecked                 bool // healthy as soon as it runs
}

// life is what is known of an application. Invariants: at most one start (run) is alive at a time: a new one is launched only after the
// end of the last was seen; a report is made once for each Activate, except for one that was called off.
type life struct {
	p     lifeParams
	phase Phase

	want       bool // it is to run
	active     bool // as the active node's
	activating bool // an Activate waits for a report

	run      uint64 // number of the newest start
	alive    bool   // launched, and not seen to have ended
	started  bool   // the launch has succeeded
	restart  bool   // is being ended to be started again
	startBy  boottime.Instant
	killAt   boottime.Instant // while stopping
	retryAt  boottime.Instant // while waiting
	checkAt  boottime.Instant
	checkGap time.Duration // while starting
	checking bool
	failed   int // checks in a row

	failures []boottime.Instant // the newest ends that nobody wanted
	last     error              // why it does not work
}

type lifeEventKind int

const (
	lifeWant    lifeEventKind = iota // want, active: how it is to be from now on
	lifeKill                         // at once; and it is not to run, or only as standby, from now on: want
	lifeStarted                      // run
	lifeNoStart                      // run, err
	lifeExited                       // run, err: how it ended
	lifeChecked                      // run, err
	lifeTick                         //
)

type lifeEvent struct {
	kind         lifeEventKind
	now          boottime.Instant
	want, active bool
	run          uint64
	err          error
}

type lifeEffectKind int

const (
	lifeLaunch lifeEffectKind = iota // run
	lifeSignal                       // run: the stop signal
	lifeEnd                          // run: kill
	lifeCheck                        // run
	lifeReady                        // the Activate that waits has succeeded
	lifeFailed                       // err: it has failed
	lifeGiveUp                       // err: this node is to step down
)

type lifeEffect struct {
	kind lifeEffectKind
	run  uint64
	err  error
}

// lifeMachine is one step: the state, and what comes of it.
type lifeMachine struct {
	life
	now boottime.Instant
	out []lifeEffect
}

func (m *lifeMachine) do(kind lifeEffectKind, err error) {
	m.out = append(m.out, lifeEffect{kind: kind, run: m.run, err: err})
}

// stepLife is the whole judgement on an application: no clock, no I/O.
func stepLife(l life, ev lifeEvent) (life, []lifeEffect) {
	l.failures = slices.Clone(l.failures)
	m := &lifeMachine{life: l, now: ev.now}
	switch {
	case ev.kind == lifeWant:
		m.wanted(ev)
	case ev.kind == lifeKill:
		m.killed(ev)
	case ev.kind == lifeTick:
		m.tick()
	case ev.run != m.run: // of an earlier start
	case ev.kind == lifeStarted:
		m.hasStarted()
	case ev.kind == lifeNoStart, ev.kind == lifeExited:
		m.ended(ev.err)
	case ev.kind == lifeChecked:
		m.checked(ev.err)
	}
	return m.life, m.out
}

func (m *lifeMachine) wanted(ev lifeEvent) {
	if !ev.want {
		m.callOff(errors.New("it is being stopped"))
	}
	if ev.active && !m.active {
		m.failures = nil // a new leadership judges for itself
	}
	m.want, m.active = ev.want, ev.active
	m.activating = ev.want && ev.active
	switch {
	case m.want && m.phase == Healthy:
		m.ready()
	case m.want && (m.phase == Stopped || m.phase == Waiting):
		m.launch()
	case !m.want && m.phase == Waiting:
		m.phase = Stopped
	case !m.want && m.alive:
		m.stop(m.p.stopTimeout)
	}
}

// callOff answers an Activate that nothing can come of any more.
func (m *lifeMachine) callOff(err error) {
	if m.activating {
		m.activating = false
		m.do(lifeFailed, err)
	}
}

func (m *lifeMachine) killed(ev lifeEvent) {
	m.callOff(errors.New("it was killed, the lease is over"))
	m.want, m.active = ev.want, false
	m.failures = nil
	switch {
	case m.alive:
		m.phase, m.killAt, m.restart = Stopping, 0, m.want
		m.do(lifeEnd, nil)
	case !m.want:
		m.phase = Stopped
	case m.phase == Stopped:
		m.launch()
	}
}

func (m *lifeMachine) launch() {
	m.run++
	m.phase, m.alive, m.started, m.restart = Starting, true, false, false
	m.startBy, m.checkAt, m.checkGap, m.checking, m.failed = m.now.Add(m.p.startTimeout), 0, firstCheck, false, 0
	m.do(lifeLaunch, nil)
}

// stop asks it to end. What is being started is killed once it runs.
func (m *lifeMachine) stop(limit time.Duration) {
	if m.phase == Stopping {
		return
	}
	m.phase, m.killAt = Stopping, m.now.Add(limit)
	if m.started {
		m.do(lifeSignal, nil)
	} else {
		m.killAt = 0
		m.do(lifeEnd, nil)
	}
}

func (m *lifeMachine) hasStarted() {
	m.started = true
	if m.phase != Starting {
		m.do(lifeEnd, nil) // it was called off meanwhile
		return
	}
	if m.p.unchecked {
		m.healthy()
		return
	}
	m.checkAt = m.now
	m.check()
}

// ended is the end of a start: one that was wanted, or one that nobody wanted.
func (m *lifeMachine) ended(err error) {
	was := m.phase
	m.alive, m.started, m.checking = false, false, false
	m.phase = Stopped
	switch {
	case was == Stopping && m.restart:
		m.restart = false
		m.again()
	case was == Stopping && m.want: // wanted again while it was ending
		m.launch()
	case was == Stopping || !m.want:
	default:
		m.last = err
		m.fault(err)
	}
}

// fault notes a failure and decides what follows.
func (m *lifeMachine) fault(err error) {
	m.failures = slices.DeleteFunc(append(m.failures, m.now), func(at boottime.Instant) bool { return m.now.Sub(at) > m.p.window })
	m.last = err
	if m.activating {
		m.callOff(err)
	} else if m.active && len(m.failures) > m.p.restarts {
		m.active = false // said once
		m.do(lifeGiveUp, fmt.Errorf("%d failures within %s, the last: %w", len(m.failures), m.p.window, err))
	}
	if m.alive {
		m.restart = true
		m.stop(min(m.p.stopTimeout, unwell))
		return
	}
	m.again()
}

// again waits before the next start, the longer the more failures there were.
func (m *lifeMachine) again() {
	if !m.want {
		m.phase = Stopped
		return
	}
	longest := restartIdle
	if m.active {
		longest = restartActive
	}
	m.phase = Waiting
	m.retryAt = m.now
	if n := len(m.failures); n > 0 {
		m.retryAt = m.now.Add(min(restartMin<<min(n-1, 20), longest))
	}
	if !m.now.Before(m.retryAt) {
		m.launch()
	}
}

func (m *lifeMachine) checked(err error) {
	m.checking = false
	switch {
	case m.phase != Starting && m.phase != Healthy:
	case err == nil:
		m.failed = 0
		m.checkAt = m.now.Add(m.p.interval)
		if m.phase == Starting {
			m.healthy()
		}
	case m.phase == Starting:
		m.last = err
		m.checkGap = min(2*m.checkGap, slowestStart, m.p.interval)
		m.checkAt = m.now.Add(m.checkGap)
	default:
		m.failed++
		m.last = err
		m.checkAt = m.now.Add(m.p.interval)
		if m.failed >= m.p.failures {
			m.fault(fmt.Errorf("%w: %d checks in a row failed, the last: %w", errNotHealthy, m.failed, err))
		}
	}
}

func (m *lifeMachine) healthy() {
	m.phase, m.last = Healthy, nil
	m.ready()
}

func (m *lifeMachine) ready() {
	if m.activating {
		m.activating = false
		m.do(lifeReady, nil)
	}
}

func (m *lifeMachine) check() {
	m.checking = true
	m.do(lifeCheck, nil)
}

func (m *lifeMachine) tick() {
	switch {
	case m.phase == Starting && m.started && m.now >= m.startBy:
		m.fault(fmt.Errorf("%w within %s: %w", errNotHealthy, m.p.startTimeout, m.last))
	case m.phase == Stopping && m.killAt != 0 && m.now >= m.killAt:
		m.killAt = 0
		m.do(lifeEnd, nil)
	case m.phase == Waiting && m.now >= m.retryAt:
		m.launch()
	case (m.phase == Starting || m.phase == Healthy) && m.started && !m.p.unchecked && !m.checking && m.checkAt != 0 && m.now >= m.checkAt:
		m.check()
	}
}

// wake is when the next tick is due; 0 for none.
func (l *life) wake() boottime.Instant {
	var at boottime.Instant
	sooner := func(t boottime.Instant) {
		if t != 0 && (at == 0 || t < at) {
			at = t
		}
	}
	switch l.phase {
	case Starting:
		if l.started {
			sooner(l.startBy)
			if !l.checking {
				sooner(l.checkAt)
			}
		}
	case Healthy:
		if !l.p.unchecked && !l.checking {
			sooner(l.checkAt)
		}
	case Stopping:
		sooner(l.killAt)
	case Waiting:
		sooner(l.retryAt)
	}
	return at
}
