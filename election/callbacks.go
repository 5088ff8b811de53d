package election

import (
	"context"
	"errors"
)

// errDrainLimit and errDrainSkipped are causes of the end of Drain's context.
var (
	errDrainLimit   = errors.New("drain limit reached")
	errDrainSkipped = errors.New("drain skipped")
)

// callback starts one of the server's functions. The core lets at most one run at a time.
func (l *loop) callback(e *effect) {
	term := e.term
	switch e.kind {
	case doActivate:
		lease := newLease(l.base, l.clock, e.deadline)
		lead := &Leadership{Term: term, Fence: e.fence, Grant: e.grant, Lease: lease, abort: l.aborted}
		l.lead = lead
		l.calls.Go(func() {
			l.deliver(event{kind: evActivated, term: term, err: l.cfg.Activate(lease.ctx, lead)})
		})
	case doDrain:
		lead := l.lead
		limited, release := context.WithTimeoutCause(lead.Lease.ctx, e.limit.Sub(l.clock()), errDrainLimit)
		ctx, skip := context.WithCancelCause(limited)
		l.skip = skip
		l.calls.Go(func() {
			err := l.cfg.Drain(ctx, lead)
			skip(nil)
			release()
			l.deliver(event{kind: evDrained, term: term, err: err})
		})
	case doSkipDrain:
		l.skip(errDrainSkipped)
	case doDeactivate:
		lead, cause := l.lead, e.err
		l.calls.Go(func() {
			l.cfg.Deactivate(lead, cause)
			l.deliver(event{kind: evDeactivated, term: term})
		})
	}
}

// aborted tells the loop of an Abort. The loop waits for no callback, so a callback may be the one who aborts.
func (l *loop) aborted(term uint64, cause error) {
	l.deliver(event{kind: evAbort, term: term, err: cause})
}

func (l *loop) observe(e *effect) {
	o := &l.obs
	switch {
	case e.what == obRenewed && o.Renewed != nil:
		o.Renewed(e.d, e.err)
	case e.what == obFenced && o.Fenced != nil:
		o.Fenced(e.term)
	case e.what == obActivated && o.Activated != nil:
		o.Activated(e.term, e.d)
	case e.what == obEnded && o.Ended != nil:
		o.Ended(e.term, e.planned, e.err)
	case e.what == obLost && o.Lost != nil:
		o.Lost(e.err)
	case e.what == obLeaderless && o.LeaderlessFor != nil:
		o.LeaderlessFor(e.d)
	}
}
