package supervise

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/boottime"
)

// trace plays events, "at what", and writes what came of each.
type trace struct {
	t    *testing.T
	life life
	now  boottime.Instant
}

var errBad = errors.New("bad")

func (tr *trace) feed(ev lifeEvent) string {
	ev.now = tr.now
	if ev.run == 0 {
		ev.run = tr.life.run
	}
	var effects []lifeEffect
	tr.life, effects = stepLife(tr.life, ev)
	var words []string
	for _, e := range effects {
		words = append(words, [...]string{"launch", "signal", "kill", "check", "ready", "failed", "give up"}[e.kind])
	}
	return strings.Join(append(words, tr.life.phase.String()), " ")
}

func (tr *trace) expect(at time.Duration, ev lifeEvent, want string) {
	tr.t.Helper()
	tr.now = boottime.Instant(at)
	if got := tr.feed(ev); got != want {
		tr.t.Errorf("at %s: got %q, want %q", at, got, want)
	}
}

func newTrace(t *testing.T) *trace {
	return &trace{t: t, life: life{p: lifeParams{
		startTimeout: 10 * time.Second, stopTimeout: 5 * time.Second, interval: time.Second, failures: 2, restarts: 1, window: time.Minute,
	}}}
}

// Cold: started on activation, which waits until it is healthy; stopped by signal, then by force.
func TestLifeCold(t *testing.T) {
	tr := newTrace(t)
	ms := time.Millisecond
	tr.expect(0, lifeEvent{kind: lifeWant, want: true, active: true}, "launch starting")
	tr.expect(10*ms, lifeEvent{kind: lifeStarted}, "check starting")
	tr.expect(11*ms, lifeEvent{kind: lifeChecked, err: errBad}, "starting")
	tr.expect(21*ms, lifeEvent{kind: lifeTick}, "check starting")
	tr.expect(22*ms, lifeEvent{kind: lifeChecked}, "ready healthy")
	tr.expect(1022*ms, lifeEvent{kind: lifeTick}, "check healthy")
	tr.expect(1023*ms, lifeEvent{kind: lifeChecked}, "healthy")
	tr.expect(2000*ms, lifeEvent{kind: lifeWant}, "signal stopping")
	tr.expect(6999*ms, lifeEvent{kind: lifeTick}, "stopping")
	tr.expect(7000*ms, lifeEvent{kind: lifeTick}, "kill stopping")
	tr.expect(7001*ms, lifeEvent{kind: lifeExited, err: errBad}, "stopped")
}

// Issue 5: "a start that fails gives the lock to another node": at once, whether it ends or does not become healthy.
func TestLifeStartFails(t *testing.T) {
	tr := newTrace(t)
	tr.expect(0, lifeEvent{kind: lifeWant, want: true, active: true}, "launch starting")
	tr.expect(1, lifeEvent{kind: lifeStarted}, "check starting")
	tr.expect(2, lifeEvent{kind: lifeExited, err: errBad}, "failed waiting")
	tr.expect(3, lifeEvent{kind: lifeKill}, "stopped")

	tr = newTrace(t)
	tr.expect(0, lifeEvent{kind: lifeWant, want: true, active: true}, "launch starting")
	tr.expect(1, lifeEvent{kind: lifeStarted}, "check starting")
	tr.expect(10*time.Second, lifeEvent{kind: lifeTick}, "failed signal stopping")
	tr.expect(10*time.Second+1, lifeEvent{kind: lifeKill}, "kill stopping")
	tr.expect(10*time.Second+2, lifeEvent{kind: lifeExited, err: errBad}, "stopped")
}

// "restarts with back-off; after restarts failures within a window the node steps down".
func TestLifeGivesUp(t *testing.T) {
	tr := newTrace(t)
	s := time.Second
	tr.expect(0, lifeEvent{kind: lifeWant, want: true, active: true}, "launch starting")
	tr.expect(1, lifeEvent{kind: lifeStarted}, "check starting")
	tr.expect(2, lifeEvent{kind: lifeChecked}, "ready healthy")
	tr.expect(1*s, lifeEvent{kind: lifeExited, err: errBad}, "waiting")
	tr.expect(1*s+99*time.Millisecond, lifeEvent{kind: lifeTick}, "waiting")
	tr.expect(1*s+100*time.Millisecond, lifeEvent{kind: lifeTick}, "launch starting")
	tr.expect(2*s, lifeEvent{kind: lifeStarted}, "check starting")
	tr.expect(2*s, lifeEvent{kind: lifeChecked}, "healthy")
	tr.expect(3*s, lifeEvent{kind: lifeChecked, err: errBad}, "healthy")
	tr.expect(4*s, lifeEvent{kind: lifeChecked, err: errBad}, "give up signal stopping")
	tr.expect(6*s, lifeEvent{kind: lifeTick}, "kill stopping")
	tr.expect(6*s, lifeEvent{kind: lifeExited, err: errBad}, "waiting")
	tr.expect(6*s, lifeEvent{kind: lifeKill}, "stopped")

	// A failure outside of the window does not count.
	tr = newTrace(t)
	tr.expect(0, lifeEvent{kind: lifeWant, want: true, active: true}, "launch starting")
	tr.expect(1, lifeEvent{kind: lifeStarted}, "check starting")
	tr.expect(2, lifeEvent{kind: lifeChecked}, "ready healthy")
	tr.expect(1*s, lifeEvent{kind: lifeExited, err: errBad}, "waiting")
	tr.expect(2*s, lifeEvent{kind: lifeTick}, "launch starting")
	tr.expect(2*s, lifeEvent{kind: lifeStarted}, "check starting")
	tr.expect(2*s, lifeEvent{kind: lifeChecked}, "healthy")
	tr.expect(70*s, lifeEvent{kind: lifeExited, err: errBad}, "waiting")
}

// Warm: it runs in both roles; a lost lease kills it, and it is started again as a standby.
func TestLifeWarm(t *testing.T) {
	tr := newTrace(t)
	s := time.Second
	tr.expect(0, lifeEvent{kind: lifeWant, want: true}, "launch starting")
	tr.expect(1, lifeEvent{kind: lifeStarted}, "check starting")
	tr.expect(2, lifeEvent{kind: lifeChecked}, "healthy")
	tr.expect(1*s, lifeEvent{kind: lifeWant, want: true, active: true}, "ready healthy")
	tr.expect(2*s, lifeEvent{kind: lifeKill, want: true}, "kill stopping")
	tr.expect(3*s, lifeEvent{kind: lifeExited, err: errBad}, "launch starting")
	tr.expect(3*s, lifeEvent{kind: lifeStarted}, "check starting")
	tr.expect(3*s, lifeEvent{kind: lifeExited, err: errBad}, "waiting")
	tr.expect(3*s+1, lifeEvent{kind: lifeWant, want: true, active: true}, "launch starting")
	tr.expect(4*s, lifeEvent{kind: lifeNoStart, err: errBad}, "failed waiting")
	// A standby never gives up, and takes its time.
	tr.life.active = false
	for i := range 30 {
		tr.now += boottime.Instant(31 * s)
		if got := tr.feed(lifeEvent{kind: lifeTick}); got != "launch starting" {
			t.Fatalf("try %d: %s", i, got)
		}
		tr.feed(lifeEvent{kind: lifeNoStart, err: errBad})
	}
}

// An Activate that is waited for is answered, whatever happens; at most one start is alive; nothing runs that is not wanted for long.
func TestLifeInvariants(t *testing.T) {
	for seed := range uint64(3000) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		l := life{p: newTrace(t).life.p}
		waiting, alive, started := 0, 0, false
		now := boottime.Instant(time.Second)
		var log []string
		feed := func(ev lifeEvent) {
			ev.now = now
			if ev.run == 0 {
				ev.run = l.run
			}
			var effects []lifeEffect
			l, effects = stepLife(l, ev)
			log = append(log, fmt.Sprintf("%v %+v %v", time.Duration(now), ev, l.phase))
			for _, e := range effects {
				switch e.kind {
				case lifeLaunch:
					alive++
					started = false
				case lifeReady, lifeFailed:
					waiting--
				}
			}
			if alive > 1 || alive < 0 || waiting < 0 || waiting > 1 {
				t.Fatalf("seed %d: %d starts alive, %d wait:\n%s", seed, alive, waiting, strings.Join(log, "\n"))
			}
		}
		end := func(kind lifeEventKind) {
			if alive > 0 {
				alive--
				feed(lifeEvent{kind: kind, err: errBad})
			}
		}
		for range 60 {
			now += boottime.Instant(rnd.IntN(3000)) * boottime.Instant(time.Millisecond)
			switch rnd.IntN(9) {
			case 0:
				if !l.activating {
					waiting++
					feed(lifeEvent{kind: lifeWant, want: true, active: true})
				}
			case 1:
				feed(lifeEvent{kind: lifeWant, want: rnd.IntN(2) == 0})
				if l.activating {
					t.Fatalf("seed %d: still activating", seed)
				}
				waiting = 0
			case 2:
				feed(lifeEvent{kind: lifeKill, want: rnd.IntN(2) == 0})
			case 3:
				if alive == 1 && !started {
					started = true
					feed(lifeEvent{kind: lifeStarted})
				}
			case 4:
				if started {
					end(lifeExited)
				} else {
					end(lifeNoStart)
				}
			case 5:
				if l.checking {
					feed(lifeEvent{kind: lifeChecked})
				}
			case 6:
				if l.checking {
					feed(lifeEvent{kind: lifeChecked, err: errBad})
				}
			default:
				if at := l.wake(); at != 0 {
					now = max(now, at)
				}
				feed(lifeEvent{kind: lifeTick})
			}
		}
		feed(lifeEvent{kind: lifeKill})
		end(lifeExited)
		if l.phase != Stopped || waiting > 0 {
			t.Fatalf("seed %d: %v, %d wait:\n%s", seed, l.phase, waiting, strings.Join(log, "\n"))
		}
	}
}
