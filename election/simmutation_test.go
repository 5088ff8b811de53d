package election

import (
	"errors"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
)

// mutation is a mistake that the simulation must notice.
type mutation int

const (
	noMutation      mutation = iota
	mutNoMargin              // the lease lasts as long as the lock, on a clock that drifts
	mutAfterAnswer           // the deadline is measured from the answer
	mutRevive                // a renewal after the loss takes the lock back, and is believed
	mutReleaseFirst          // the lock is released before Deactivate has returned
	mutNoForgetWait          // a lock store that forgot is not waited for
	mutStaleLook             // after a store forgot, somebody's activity does not begin the wait anew
	mutReleaseBare           // a lock under which the fence was not raised is released
	mutFenceIgnored          // a refused raise is taken for done
	mutOwnNonce              // any fence of one's own term settles a raise
	mutNoDeadline            // the lease does not end by itself
	mutNoGuardian            // nobody ends the application of a frozen node
	mutOwnRecord             // a record with one's own name is taken for one's own grant
	mutStaleAnswers          // any answer to a renewal is taken for that to the newest
	mutUnclear               // a renewal without a clear outcome counts as done
	mutNoRelook              // a Watch whose answer was lost is waited for for ever
	mutations
)

var mutationNames = [...]string{"none", "no margin", "deadline after the answer", "lease revived", "release before deactivate",
	"no wait after forgetting", "wait not begun anew", "release without fence", "fence ignored", "nonce ignored", "no deadline",
	"no guardian", "own record", "stale answers", "unclear renewal", "no second look"}

func (m mutation) String() string { return mutationNames[m] }

// params makes the mistakes that lie in constants.
func (m mutation) params(p *params) {
	switch m {
	case mutNoMargin:
		p.margin = func(time.Duration) time.Duration { return 0 }
	case mutNoRelook:
		p.watchLimit = time.Hour
	}
}

// before makes the mistakes that show in what the core is told.
func (m mutation) before(n *simNode, ev *event) {
	l := &n.s.lead
	switch m {
	case mutAfterAnswer:
		for i := range l.renewals {
			if ev.kind == evRenewed && l.renewals[i].seq != 0 {
				l.renewals[i].sent = ev.now
			}
		}
		if ev.kind == evAcquired && n.s.acquire.seq != 0 {
			n.s.acquire.sent = ev.now
		}
	case mutRevive:
		if l.renewing {
			l.deadline = max(l.deadline, ev.now.Add(simTTL/100))
		}
	case mutReleaseBare:
		l.mine = l.mine || n.s.role == Activating && !l.called
	case mutFenceIgnored:
		if ev.kind == evRaised && errors.Is(ev.err, physical.ErrFenced) {
			ev.err = nil
		}
	case mutOwnNonce:
		if ev.kind == evFence && l.term != 0 && ev.fence.Term == l.term {
			ev.fence = l.to
		}
	case mutNoDeadline:
		l.deadline = never
	case mutOwnRecord:
		if ev.kind == evRecord && ev.record.Holder == n.id {
			ev.record.Holder, ev.record.Name = "", ""
		}
		if r, ok := heldBy(ev.err); ok && r.Holder == n.id && ev.kind == evAcquired {
			ev.err = nil
			ev.grant = physical.Grant{Record: r, TTL: simTTL, Token: tokenOf(n.w.store.token)}
			n.s.above, n.s.fence.Term = min(n.s.above, r.Term-1), min(n.s.fence.Term, r.Term-1)
		}
	case mutStaleAnswers:
		if ev.kind == evRenewed && l.term != 0 {
			ev.grant.Record.Term, ev.seq = l.term, 0
			for i := range l.renewals {
				ev.seq = max(ev.seq, l.renewals[i].seq)
			}
		}
	case mutUnclear:
		if ev.kind == evRenewed && errors.Is(ev.err, physical.ErrUnknown) {
			ev.err = nil
			ev.grant = l.grant
		}
	case mutStaleLook:
		if ev.kind == evFence && n.s.forgetFrom != 0 {
			n.s.fence = ev.fence
		}
	}
}

// after makes the mistakes that show in what the core makes of it.
func (m mutation) after(n *simNode) {
	if m == mutNoForgetWait && n.s.forgetFrom != 0 {
		n.s.forgetFrom, n.s.confirm = 1, true
		n.s.fenceSent = max(n.s.fenceSent, n.local())
	}
}

// TestSimulationNoticesMistakes holds the simulation itself to account: each of these mistakes breaks a promise, and it sees it.
func TestSimulationNoticesMistakes(t *testing.T) {
	if underRace {
		t.Skip("-race: it takes thousands of schedules to meet some of the mistakes")
	}
	for mut := noMutation + 1; mut < mutations; mut++ {
		t.Run(mut.String(), func(t *testing.T) {
			t.Parallel()
			const most = 30_000
			for seed := uint64(1); seed <= most; seed++ {
				w, _ := simulate(seed, mut, false)
				if w.failure == nil {
					continue
				}
				t.Logf("noticed at seed %d: %v", seed, w.failure)
				if !errors.Is(w.failure, errPromise) {
					t.Error("that is no promise broken")
				}
				return
			}
			t.Errorf("not noticed in %d schedules", most)
		})
	}
}
