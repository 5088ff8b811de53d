package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/internal/footprint"
	"github.com/locum-ha/locum/physical"
)

// releaseLimit bounds how long the lock's store is tried after the node's death; twice the TTL does as a rule: by then the lock has run
// out by itself.
const releaseLimit = time.Minute

// stubborn is how long an init may take to end its tree before the guardian does it itself.
const stubborn = time.Second

// warden is the guardian's process: the shell around stepGuard. One goroutine, on the process's main thread, owns all of it.
type warden struct {
	node       *link
	state      guard
	timer      *bootTimer
	containers []container
	release    Release
	plan       json.RawMessage

	trees    map[uint64]*tree
	byPID    map[int]*tree
	fromInit chan initSaid
	inbox    *inbox // of what the node says
	freed    chan error
	alone    bool // the node is gone
	orphans  bool // an init ended before its tree: what it left are children of this process
	over     bool
	code     int
}

// tree is one command with everything that it starts.
type tree struct {
	id      uint64
	command Command
	in      container
	link    *link // to its init; nil for a quiet command, which has none
	pid     int   // of its init, or the quiet command itself
	cgroup  string
	held    *os.File // the cgroup
	exit    *Exit
	cause   string
	started bool
	failed  string
	stub    *time.Timer
}

type initSaid struct {
	id  uint64
	msg message
}

// runGuardian returns when the node is gone, all trees with it, and the lock is released.
func runGuardian(release Release) int {
	l, err := openLink(controlFD, "guardian")
	if err != nil {
		fmt.Fprintln(os.Stderr, "error: locum guardian is started by a node, not by hand")
		return 1
	}
	deaf()
	dead := make(chan os.Signal, 1)
	signal.Notify(dead, syscall.SIGCHLD)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		complain(os.Stderr, "subreaper: %v", err)
	}
	timer, err := newBootTimer()
	if err != nil {
		complain(os.Stderr, "%v", err)
		return 1
	}
	defer timer.close()
	w := &warden{
		node: l, timer: timer, containers: probeContainers(), release: release,
		trees: map[uint64]*tree{}, byPID: map[int]*tree{},
		fromInit: make(chan initSaid), freed: make(chan error, 1),
	}
	if w.inbox, err = newInbox(l.conn); err != nil {
		complain(os.Stderr, "%v", err)
		return 1
	}
	go w.inbox.wait()
	best := w.containers[0]
	_ = l.send(message{Op: opReady, Contained: best.kind, Why: best.why})
	life, end := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { footprint.AfterStart(life) })
	w.loop(dead)
	end()
	wg.Wait()
	return w.code
}

func (w *warden) loop(dead <-chan os.Signal) {
	for !w.over {
		select {
		case <-w.timer.C:
			// A lease that moves the deadline may have come and wait unread, if this process did not run for a while. It is as good as one that
			// was read at once: it says until when.
			w.hear()
			w.feed(guardEvent{kind: guardTick})
		case <-w.inbox.news:
			w.hear()
		case <-dead:
			w.reap()
		case s := <-w.fromInit:
			w.heard(s)
		case err := <-w.freed:
			if err != nil {
				complain(os.Stderr, "the lock could not be released, and runs out by itself: %v", err)
				w.code = 1
			}
			w.feed(guardEvent{kind: guardReleased})
		}
	}
}

// hearings bounds how often hear looks again for what was said while it listened: the timer must not wait for a node that says more and more.
const hearings = 4

// hear takes all that the node has said by now.
func (w *warden) hear() {
	for range hearings {
		messages, gone := w.inbox.take()
		for _, m := range messages {
			w.told(m)
		}
		if gone && !w.alone {
			w.alone = true
			w.feed(guardEvent{kind: guardNodeGone})
		}
		if len(messages) == 0 {
			return
		}
	}
}

// told takes what the node says.
func (w *warden) told(m message) {
	switch m.Op {
	case opStart:
		if m.Command == nil {
			return
		}
		w.trees[m.ID] = &tree{id: m.ID, command: *m.Command}
		w.feed(guardEvent{kind: guardStart, id: m.ID, beyond: m.Command.Beyond})
	case opSignal:
		w.signal(m)
	case opKill:
		w.feed(guardEvent{kind: guardKill, id: m.ID})
	case opLease:
		w.feed(guardEvent{kind: guardLease, grant: m.Grant, at: m.At})
	case opPlan:
		w.plan = m.Plan
	case opBye:
		w.feed(guardEvent{kind: guardBye})
	}
}

func (w *warden) feed(ev guardEvent) {
	ev.now = boottime.Now()
	var effects []guardEffect
	w.state, effects = stepGuard(w.state, ev)
	for _, e := range effects {
		switch e.kind {
		case doStart:
			w.start(w.trees[e.id])
		case doRefuse:
			t := w.trees[e.id]
			t.failed = ErrLeaseOver.Error()
			w.ended(t)
		case doKill:
			w.kill(w.trees[e.id], e.cause)
		case doArm:
			if err := w.timer.set(e.at); err != nil {
				complain(os.Stderr, "%v", err) // the deadline cannot be kept: nothing may run under it
				w.killAll(causeLease)
			}
		case doRelease:
			w.free(*e.grant)
		case doExit:
			w.over = true
		}
	}
}

// start runs the tree's init, and through it the command.
func (w *warden) start(t *tree) {
	if err := w.try(t); err != nil {
		t.failed = err.Error()
		w.ended(t)
	}
}

func (w *warden) try(t *tree) error {
	if t.command.Quiet {
		pid, err := spawn(t.command, "")
		if err != nil {
			return err
		}
		t.pid, t.started = pid, true
		w.byPID[pid] = t
		_ = w.node.send(message{Op: opStarted, ID: t.id, PID: pid})
		return nil
	}
	in, err := choose(w.containers, t.command.Containment)
	if err != nil {
		return err
	}
	t.in = in
	first := message{Op: opStart, Command: &t.command}
	if in.kind == ContainCgroup {
		if t.cgroup, t.held, err = newCgroup(in.base, t.id); err != nil {
			return err
		}
		first.Contained = t.cgroup
	}
	mine, theirs, err := newPair("init")
	if err != nil {
		return err
	}
	defer theirs.Close()
	name := t.command.Args[0]
	t.pid, err = syscall.ForkExec("/proc/self/exe", []string{"locum", argGuardian, argInit, name}, &syscall.ProcAttr{
		// Without the node's environment, in which secrets may be: the command can read its init's.
		Env: []string{}, Files: []uintptr{0, 1, 2, theirs.Fd()}, Sys: in.cloneAttr(t.command.Host),
	})
	if err != nil {
		_ = mine.conn.Close()
		return fmt.Errorf("%s: %w", in.kind, err)
	}
	t.link = mine
	w.byPID[t.pid] = t
	go mine.receive(func(m message) { w.fromInit <- initSaid{t.id, m} })
	return mine.send(first)
}

// heard takes what an init says.
func (w *warden) heard(s initSaid) {
	t := w.trees[s.id]
	if t == nil {
		return
	}
	switch s.msg.Op {
	case opStarted:
		t.started = true
		pid := s.msg.PID
		if t.in.kind == ContainNamespace {
			pid = outsidePID(t.pid, pid)
		}
		_ = w.node.send(message{Op: opStarted, ID: t.id, PID: pid, Init: t.pid, Contained: t.in.kind})
	case opFailed:
		t.failed = s.msg.Error
	case opExited:
		t.exit = s.msg.Exit
		if t.cause != "" && t.exit != nil {
			t.exit.Cause = t.cause
		}
	}
}

// outsidePID finds the process that has the number inner in the namespace of init. It is init's first child.
func outsidePID(init, inner int) int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", init, init))
	if err != nil {
		return inner
	}
	var pid int
	if _, err := fmt.Sscan(string(data), &pid); err != nil {
		return inner
	}
	return pid
}

func (w *warden) signal(m message) {
	t := w.trees[m.ID]
	switch {
	case t == nil:
	case t.link != nil:
		_ = t.link.send(message{Op: opSignal, Signal: m.Signal}) // an init that has ended needs none
	case t.pid != 0:
		_ = syscall.Kill(t.pid, m.Signal)
	}
}

func (w *warden) killAll(cause string) {
	for _, t := range w.trees {
		if cause != causeLease || !t.command.Beyond {
			w.kill(t, cause)
		}
	}
}

// kill ends a tree, whatever state it is in. The end is noticed by reap.
func (w *warden) kill(t *tree, cause string) {
	if t == nil || t.pid == 0 {
		return
	}
	if t.cause == "" {
		t.cause = cause
	}
	switch {
	case t.link == nil:
		_ = syscall.Kill(-t.pid, syscall.SIGKILL)
		_ = syscall.Kill(t.pid, syscall.SIGKILL)
	case t.in.kind == ContainNamespace:
		_ = syscall.Kill(t.pid, syscall.SIGKILL) // the kernel ends the rest, and lets it be collected when nothing is left
	default:
		if t.cgroup != "" {
			if err := killCgroup(t.cgroup); err != nil {
				complain(os.Stderr, "cgroup.kill: %v", err)
			}
		}
		_ = syscall.Kill(t.pid, syscall.SIGCONT)
		_ = t.link.send(message{Op: opKill})
		if t.stub == nil {
			pid := t.pid
			t.stub = time.AfterFunc(stubborn, func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
		}
	}
}

// reap collects the dead children, inits and others.
func (w *warden) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			break
		}
		if t := w.byPID[pid]; t != nil {
			delete(w.byPID, pid)
			w.collected(t, status)
		}
	}
	w.sweep()
}

// collected is the end of an init, or of a quiet command.
func (w *warden) collected(t *tree, status syscall.WaitStatus) {
	if t.stub != nil {
		t.stub.Stop()
	}
	if t.link == nil {
		_ = syscall.Kill(-t.pid, syscall.SIGKILL)
		w.orphans = true
		t.exit = exitOf(status, t.cause)
		w.ended(t)
		return
	}
	w.lastWords(t)
	if t.exit == nil && t.failed == "" {
		t.exit = exitOf(status, t.cause)
		if t.in.kind != ContainNamespace {
			w.orphans = true
			if t.cgroup != "" {
				_ = killCgroup(t.cgroup)
			}
		}
	}
	w.ended(t)
}

// lastWords takes what an init said before it ended and what has not been heard yet.
func (w *warden) lastWords(t *tree) {
	limit := time.NewTimer(50 * time.Millisecond)
	defer limit.Stop()
	for t.cause == "" && t.exit == nil && t.failed == "" {
		select {
		case s := <-w.fromInit:
			w.heard(s)
		case <-limit.C:
			return
		}
	}
}

func exitOf(status syscall.WaitStatus, cause string) *Exit {
	if status.Signaled() {
		return &Exit{Signal: status.Signal(), Cause: cause}
	}
	return &Exit{Code: status.ExitStatus(), Cause: cause}
}

// sweep ends what an init, or a quiet command, left behind: it is this process's child now. The trees that it came from have ended
// only when it has.
func (w *warden) sweep() {
	if !w.orphans {
		return
	}
	left := false
	for _, pid := range children() {
		if w.byPID[pid] == nil {
			left = true
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	w.orphans = left
	for _, t := range w.trees {
		w.ended(t)
	}
}

// ended tells the node, once nothing of the tree is left.
func (w *warden) ended(t *tree) {
	if t.exit == nil && t.failed == "" || w.byPID[t.pid] == t || w.orphans && t.in.kind != ContainNamespace && t.failed == "" {
		return
	}
	delete(w.trees, t.id)
	if t.cgroup != "" {
		_ = os.Remove(t.cgroup)
		_ = t.held.Close()
	}
	if t.link != nil {
		_ = t.link.conn.Close()
	}
	if t.failed != "" && !t.started {
		_ = w.node.send(message{Op: opFailed, ID: t.id, Error: t.failed})
	} else {
		if t.exit == nil {
			t.exit = &Exit{Code: 1}
		}
		_ = w.node.send(message{Op: opEnded, ID: t.id, Exit: t.exit})
	}
	w.feed(guardEvent{kind: guardEnded, id: t.id})
}

// free releases the lock on the dead node's behalf (P7), trying again while that can be of use.
func (w *warden) free(g physical.Grant) {
	if w.release == nil || len(w.plan) == 0 {
		w.freed <- nil
		return
	}
	plan, release, freed := w.plan, w.release, w.freed
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), min(max(2*g.TTL, time.Second), releaseLimit))
		defer cancel()
		for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
			err := release(ctx, plan, g)
			if err == nil {
				freed <- nil
				return
			}
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				freed <- errors.New(strings.TrimSpace(err.Error()))
				return
			}
		}
	}()
}
