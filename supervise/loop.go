package supervise

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// loop is one Run: it owns the state, carries out effects, and feeds back what came of them.
type loop struct {
	*Application
	ctx     context.Context // of launches and checks; ends when Run is to
	life    life
	role    Role
	process Process
	exit    Exit
	report  chan error         // of the Activate that waits
	callOff context.CancelFunc // ends the launch that is under way
}

// tokenLimit bounds how long a token is waited for: somebody must be active to make one.
const tokenLimit = 15 * time.Second

// Run supervises the application until ctx ends; then it ends, and Run returns. A warm application runs from now on.
func (a *Application) Run(ctx context.Context) error {
	defer close(a.over)
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	l := &loop{Application: a, ctx: run}
	l.life.p = lifeParams{
		startTimeout: a.cfg.StartTimeout, stopTimeout: a.cfg.StopTimeout, interval: a.cfg.Health.Interval, failures: a.cfg.Health.Failures,
		restarts: a.cfg.Restarts, window: a.cfg.RestartWindow, unchecked: a.check == nil,
	}
	if err := writeRole(a.cfg.RoleFile, a.cfg.Name, a.cfg.Node, l.role); err != nil {
		a.log.Error("role not told", "error", err)
	}
	close(a.begun)
	if a.cfg.Warm {
		l.feed(lifeEvent{kind: lifeWant, want: true})
	}
	done := ctx.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for done != nil || l.life.phase != Stopped {
		timer.Reset(l.sleep())
		select {
		case <-done:
			done = nil
			l.feed(lifeEvent{kind: lifeWant})
		case <-timer.C:
			l.feed(lifeEvent{kind: lifeTick})
		case h := <-a.events:
			l.happened(h)
		case q := <-a.asks:
			l.asked(q)
		case s := <-a.passed:
			l.pass(s)
		}
	}
	cancel()
	a.wg.Wait()
	if err := removeRole(a.cfg.RoleFile); err != nil {
		a.log.Warn("role file not removed", "error", err)
	}
	return nil
}

func (l *loop) asked(q ask) {
	if q.report != nil {
		l.report = q.report
	}
	l.role = q.role
	l.feed(q.ev)
	close(q.handled)
}

// happened takes in what the loop's own goroutines found. One start is alive at a time, so the process is that one's.
func (l *loop) happened(h happening) {
	if h.process != nil {
		l.process = h.process
	}
	if h.exit != nil {
		l.process, l.exit = nil, *h.exit
		l.log.Info("the application's command ended", "exit", h.exit.String())
		if l.cfg.Observer.Exited != nil {
			l.cfg.Observer.Exited(*h.exit)
		}
	}
	l.feed(h.lifeEvent)
}

// sleep is how long the loop may wait. Go's timers stand still while the machine is suspended, so it never waits long.
func (l *loop) sleep() time.Duration {
	at := l.life.wake()
	if at == 0 {
		return time.Hour
	}
	return min(max(at.Sub(l.cfg.clock()), 0), time.Second)
}

func (l *loop) feed(ev lifeEvent) {
	ev.now = l.cfg.clock()
	before := l.life
	var effects []lifeEffect
	l.life, effects = stepLife(l.life, ev)
	for _, e := range effects {
		l.carryOut(e)
	}
	l.publish()
	if before.phase != l.life.phase {
		l.log.Info("application", "from", before.phase.String(), "to", l.life.phase.String(), "role", l.role.String(), "term", l.role.Term, "cause", cause(l.life.last))
	}
}

func cause(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (l *loop) carryOut(e lifeEffect) {
	switch e.kind {
	case lifeLaunch:
		l.launch(e.run)
	case lifeSignal:
		if l.external() {
			l.kill()
			return
		}
		l.pass(l.cfg.StopSignal)
		l.pass(syscall.SIGCONT) // one that is stopped hears nothing
	case lifeEnd:
		l.kill()
	case lifeCheck:
		l.look(e.run)
	case lifeReady, lifeFailed:
		if l.report != nil {
			l.report <- e.err // buffered
			l.report = nil
		}
	case lifeGiveUp:
		l.log.Error("application failed too often: this node steps down", "error", e.err)
		if l.cfg.Observer.GaveUp != nil {
			l.cfg.Observer.GaveUp(e.err)
		}
		if l.cfg.GiveUp != nil {
			l.wg.Go(func() { l.cfg.GiveUp(e.err) })
		}
	}
}

func (l *loop) pass(s syscall.Signal) {
	if l.process != nil {
		_ = l.process.Signal(s) // it may have ended just now
	}
}

// external reports whether somebody else starts and ends the application.
func (l *loop) external() bool { return len(l.cfg.Command) == 0 }

func (l *loop) kill() {
	switch {
	case l.external():
		l.later(happening{lifeEvent: lifeEvent{kind: lifeExited, run: l.life.run}})
	case l.process != nil:
		l.process.Kill()
	default:
		l.callOff() // what has started nonetheless is killed when that is known
	}
}

// later feeds an event in a later turn: carrying out an effect must not change the state.
func (l *loop) later(h happening) {
	l.wg.Go(func() { l.deliver(h) })
}

func (l *loop) deliver(h happening) {
	select {
	case l.events <- h:
	case <-l.ctx.Done():
	}
}

// launch starts the command in the background, with a token of its own, and stays until it has ended.
func (l *loop) launch(run uint64) {
	if l.external() {
		l.later(happening{lifeEvent: lifeEvent{kind: lifeStarted, run: run}})
		return
	}
	role := l.role
	ctx, cancel := context.WithCancelCause(l.ctx)
	l.callOff = func() { cancel(errors.New("called off")) }
	l.wg.Go(func() {
		defer cancel(nil)
		token, err := l.mint(ctx)
		if err != nil {
			l.deliver(happening{lifeEvent: lifeEvent{kind: lifeNoStart, run: run, err: fmt.Errorf("no token for it: %w", err)}})
			return
		}
		defer l.revoke(token)
		p, err := l.cfg.Runner.Start(ctx, l.command(role, token))
		if err != nil {
			l.deliver(happening{lifeEvent: lifeEvent{kind: lifeNoStart, run: run, err: err}})
			return
		}
		l.deliver(happening{lifeEvent: lifeEvent{kind: lifeStarted, run: run}, process: p})
		l.await(p, token)
		exit := p.Exit()
		l.deliver(happening{lifeEvent: lifeEvent{kind: lifeExited, run: run, err: errors.New(exit.String())}, exit: &exit})
	})
}

func (l *loop) mint(ctx context.Context) (string, error) {
	if l.cfg.Token == nil {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, tokenLimit)
	defer cancel()
	return l.cfg.Token.Mint(ctx, l.cfg.Name)
}

// await waits for the end of the command, and keeps its token alive.
func (l *loop) await(p Process, token string) {
	every := 24 * time.Hour
	if token != "" {
		every = l.cfg.Token.RenewEvery()
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-p.Done():
			return
		case <-tick.C:
			if token == "" {
				continue
			}
			ctx, cancel := context.WithTimeout(l.ctx, tokenLimit)
			if err := l.cfg.Token.Renew(ctx, l.cfg.Name, token); err != nil {
				l.log.Warn("the application's token was not renewed; it is tried again", "error", err, "in", every)
			}
			cancel()
		}
	}
}

// revoke ends the token of a start that is over, once somebody is active who can. If that fails it runs out by itself.
func (l *loop) revoke(token string) {
	if token == "" {
		return
	}
	var err error
	for range 5 {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), tokenLimit)
		err = l.cfg.Token.Revoke(ctx, l.cfg.Name, token)
		cancel()
		if err == nil {
			return
		}
		select {
		case <-time.After(time.Second):
		case <-l.ctx.Done(): // the last attempt was made
			l.log.Warn("the application's token was not revoked, and runs out by itself", "error", err)
			return
		}
	}
	l.log.Warn("the application's token was not revoked, and runs out by itself", "error", err)
}

func (l *loop) look(run uint64) {
	l.wg.Go(func() {
		ctx, cancel := context.WithTimeoutCause(l.ctx, l.cfg.Health.Timeout, fmt.Errorf("no answer within %s", l.cfg.Health.Timeout))
		defer cancel()
		err := l.check(ctx)
		if err != nil && ctx.Err() != nil && l.ctx.Err() == nil {
			err = errors.Join(context.Cause(ctx), err)
		}
		l.deliver(happening{lifeEvent: lifeEvent{kind: lifeChecked, run: run, err: err}})
	})
}

// publish makes the state visible, and wakes who waits for a change.
func (l *loop) publish() {
	s := State{
		Name: l.cfg.Name, Phase: l.life.phase, Role: l.role, Starts: l.life.run, Failures: len(l.life.failures), Err: l.life.last, LastExit: l.exit,
	}
	if l.process != nil {
		s.PID = l.process.PID()
	}
	l.state.Store(&s)
	l.mu.Lock()
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
	if l.cfg.Observer.Changed != nil {
		l.cfg.Observer.Changed(s)
	}
}
