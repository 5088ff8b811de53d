package election

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locum-ha/locum/physical"
)

// loop is one Run: it owns the state, carries out effects, and feeds back what came of them.
type loop struct {
	*Election
	state state
	base  context.Context // of the calls: it outlives the end of Run's context, for the planned step-down

	next    []event // to be handled before anything from outside
	cancels map[uint64]context.CancelFunc
	replies map[uint64]chan error
	lastID  uint64
	lead    *Leadership
	skip    context.CancelCauseFunc // ends Drain's context
	stopped bool
	calls   sync.WaitGroup
	hanging [doYield + 1]atomic.Int32 // calls under way, by kind
}

// maxHanging bounds how many calls of one kind may be under way: a store whose calls ignore their deadline does not
// get ever more of them (P12).
const maxHanging = 16

// linger is how long Run waits for store calls after it has cancelled them; stores promise 100 ms.
const linger = 5 * time.Second

// Run takes part in the election until ctx ends, then gives a leadership up as planned (Drain, Deactivate, release), and returns nil
// after all that it started has ended. It can be called once.
func (e *Election) Run(ctx context.Context) error {
	e.watch.Lock()
	again := e.begun.Swap(true)
	e.watch.Unlock()
	if again {
		return errors.New("election: Run was called twice")
	}
	base, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	l := &loop{
		Election: e, state: e.initial, base: base,
		cancels: map[uint64]context.CancelFunc{}, replies: map[uint64]chan error{},
	}
	l.run(ctx)
	close(e.done)
	for _, reply := range l.replies {
		reply <- ErrStopped
	}
	return l.ended(cancel)
}

// ended waits for the calls that are still under way.
func (l *loop) ended(cancel context.CancelCauseFunc) error {
	over := make(chan struct{})
	go func() {
		l.calls.Wait()
		close(over)
	}()
	// A stray release may still be on its way: it gets its time before it is cut.
	patience := time.NewTimer(l.state.p.callLimit)
	defer patience.Stop()
	for seq := range l.cancels {
		l.cancel(seq)
	}
	select {
	case <-over:
		cancel(ErrStopped)
		return nil
	case <-patience.C:
	}
	cancel(ErrStopped)
	patience.Reset(linger)
	select {
	case <-over:
		return nil
	case <-patience.C:
		return errors.New("election: store calls do not return although they were cancelled")
	}
}

func (l *loop) run(ctx context.Context) {
	l.feed(event{kind: evStart})
	done := ctx.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !l.stopped {
		timer.Reset(l.sleep())
		select {
		case ev := <-l.events:
			l.feed(ev)
		case a := <-l.asks:
			l.lastID++
			l.replies[l.lastID] = a.reply
			l.feed(event{kind: evStepDown, id: l.lastID, next: a.to})
		case <-timer.C:
			l.feed(event{kind: evTick})
		case <-done:
			done = nil
			l.feed(event{kind: evStop})
		}
	}
}

// sleep is how long the loop may wait. Go's timers stand still while the machine is suspended, so it never waits long
// while there is a lease.
func (l *loop) sleep() time.Duration {
	at := l.state.wake()
	left := time.Hour
	if at != never {
		left = max(at.Sub(l.clock()), 0)
	}
	if l.state.role.holds() {
		left = min(left, recheck)
	}
	return left
}

// feed handles an event, and those that carrying out its effects brings about.
func (l *loop) feed(ev event) {
	l.next = append(l.next, ev)
	for len(l.next) > 0 && !l.stopped {
		ev, l.next = l.next[0], l.next[1:]
		ev.now = l.clock()
		delete(l.cancels, ev.seq)
		rev := l.state.rev
		var effects []effect
		l.state, effects = step(l.state, ev)
		for i := range effects {
			l.carryOut(&effects[i])
		}
		if l.state.rev != rev {
			l.publish(l.state.snapshot(time.Now()))
		}
	}
}

func (l *loop) carryOut(e *effect) {
	switch e.kind {
	case doHolder, doWatch, doAcquire, doRenew, doRelease, doFence, doRaise, doYield:
		l.call(*e)
	case doCancel:
		l.cancel(e.seq)
	case doActivate, doDrain, doSkipDrain, doDeactivate:
		l.callback(e)
	case doExtend:
		if !l.lead.Lease.extend(e.deadline) {
			// It expired just now, or somebody else ended it, and his Abort is on its way.
			l.next = append(l.next, event{kind: evAbort, term: e.term, err: context.Cause(l.lead.Lease.ctx)})
		}
	case doEnd:
		l.lead.Lease.end(e.err)
	case doGuard:
		if l.obs.Guard != nil {
			l.obs.Guard(e.grant, e.deadline)
		}
	case doReply:
		l.replies[e.id] <- e.err
		delete(l.replies, e.id)
	case doLog:
		l.logRole(e)
	case doWarn:
		l.log.Warn("election: "+e.msg, "node", l.cfg.Name, "term", e.term, "error", e.err)
	case doObserve:
		l.observe(e)
	case doStop:
		l.stopped = true
	}
}

// logRole is the one line of a change of role.
func (l *loop) logRole(e *effect) {
	s := &l.state
	args := []any{"node", l.cfg.Name, "role", e.role.String(), "was", e.from.String(), "term", e.term, "holder", s.record.Holder}
	if e.err != nil {
		args = append(args, "why", e.err.Error())
	}
	l.log.Info("election: role", args...)
}

func (l *loop) cancel(seq uint64) {
	if cancel, ok := l.cancels[seq]; ok {
		cancel()
		delete(l.cancels, seq)
	}
}

// call makes a store call in a goroutine of its own. Its answer is an event; whether it still matters the core decides.
func (l *loop) call(e effect) {
	if l.hanging[e.kind].Load() >= maxHanging {
		err := fmt.Errorf("%w: %d calls do not return", physical.ErrUnavailable, maxHanging)
		l.next = append(l.next, answerOf(&e, event{err: err}))
		return
	}
	ctx, cancel := context.WithTimeout(l.base, max(e.limit.Sub(l.clock()), 0))
	if e.kind == doHolder || e.kind == doWatch || e.kind == doFence {
		l.cancels[e.seq] = cancel
	}
	l.hanging[e.kind].Add(1)
	l.calls.Go(func() {
		ev := answerOf(&e, l.ask(ctx, &e))
		cancel()
		l.hanging[e.kind].Add(-1)
		l.deliver(ev)
	})
}

// deliver hands an answer to the loop, which has ended perhaps.
func (l *loop) deliver(ev event) {
	select {
	case l.events <- ev:
	case <-l.done:
	}
}

// answerOf completes an answer: its kind, and the call's number.
func answerOf(e *effect, ev event) event {
	kinds := [...]eventKind{doHolder: evRecord, doWatch: evRecord, doAcquire: evAcquired, doRenew: evRenewed,
		doRelease: evReleased, doFence: evFence, doRaise: evRaised, doYield: evYielded}
	ev.kind, ev.seq = kinds[e.kind], e.seq
	return ev
}

// ask calls the store.
func (l *loop) ask(ctx context.Context, e *effect) (ev event) {
	switch e.kind {
	case doHolder:
		ev.record, ev.err = l.cfg.Lock.Holder(ctx)
	case doWatch:
		ev.record, ev.err = l.cfg.Lock.(physical.Watcher).Watch(ctx, e.record)
	case doAcquire:
		_, _ = rand.Read(ev.nonce[:]) // never fails
		var lineage [8]byte
		_, _ = rand.Read(lineage[:])
		ev.lineage = hex.EncodeToString(lineage[:])
		ev.grant, ev.err = l.cfg.Lock.Acquire(ctx, e.record, l.cfg.TTL, e.above)
	case doRenew:
		ev.grant, ev.err = l.cfg.Lock.Renew(ctx, e.grant)
	case doRelease:
		ev.next = e.next
		if e.auto && l.cfg.Successor != nil {
			ev.next = l.cfg.Successor()
		}
		ev.err = l.cfg.Lock.Release(ctx, e.grant, ev.next)
	case doFence:
		ev.fence, ev.err = l.cfg.Store.Fence(ctx)
	case doRaise:
		ev.err = l.cfg.Store.RaiseFence(ctx, e.fence, e.to)
	case doYield:
		ev.err = l.cfg.Lock.(physical.Yielder).Yield(ctx, e.next)
	}
	return ev
}
