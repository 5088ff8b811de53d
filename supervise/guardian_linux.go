package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
)

const (
	guardianReady = 10 * time.Second // for a guardian to be there
	guardianQueue = 4096             // messages that a guardian has not taken; one that leaves more waiting hangs
	guardianLate  = 3 * time.Second  // that a guardian gets to end a tree
)

// stillThere is how often it is said that a tree of a dead guardian is not gone yet.
var stillThere = 5 * time.Second

// Guardian is a node's side of its guardian process.
type Guardian struct {
	cfg   GuardianConfig
	cmd   *exec.Cmd
	link  *link
	queue chan message
	ready chan message
	done  chan struct{}
	wg    sync.WaitGroup

	kind, why string

	mu     sync.Mutex
	next   uint64
	trees  map[uint64]*process
	closed bool // the guardian is gone, or was told to go
}

// StartGuardian starts the guardian, this same binary: its main must call [Main].
func StartGuardian(ctx context.Context, cfg GuardianConfig) (Guard, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	mine, theirs, err := newPair("guardian")
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	g := &Guardian{
		cfg: cfg, link: mine, queue: make(chan message, guardianQueue), ready: make(chan message, 1), done: make(chan struct{}),
		trees: map[uint64]*process{},
	}
	g.cmd = exec.Command("/proc/self/exe", argGuardian) // also when the file was replaced by an upgrade meanwhile
	g.cmd.Args[0] = "locum"
	g.cmd.Stdout, g.cmd.Stderr = os.Stdout, os.Stderr
	g.cmd.ExtraFiles = []*os.File{theirs}
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // the terminal's Ctrl-C is the node's to handle
	if err := g.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the guardian: %w", err), mine.conn.Close())
	}
	g.wg.Go(g.write)
	g.wg.Go(func() {
		mine.receive(g.heard)
		g.gone()
	})
	limit := time.NewTimer(guardianReady)
	defer limit.Stop()
	select {
	case m := <-g.ready:
		g.kind, g.why = m.Contained, m.Why
		return g, nil
	case <-g.done:
		err = ErrGuardian
	case <-limit.C:
		err = fmt.Errorf("the guardian is not there after %s", guardianReady)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	g.force()
	return nil, errors.Join(err, g.Close())
}

// Containment says what a tree is held together with, and why with nothing better.
func (g *Guardian) Containment() (kind, why string) { return g.kind, g.why }

// Done is closed when the guardian has ended.
func (g *Guardian) Done() <-chan struct{} { return g.done }

// write sends what is queued, in its order: a lease before what is started under it.
func (g *Guardian) write() {
	for {
		select {
		case m := <-g.queue:
			if err := g.link.send(m); err != nil {
				return // gone, as the reading side notices too
			}
		case <-g.done:
			return
		}
	}
}

// put queues a message. A guardian that does not take its messages is as good as dead, and made so.
func (g *Guardian) put(m message) {
	select {
	case g.queue <- m:
	default:
		g.cfg.Logger.Error("the guardian hangs; it is killed, and the applications with it")
		g.force()
	}
}

// Lease hands on until when everything that runs must have ended; see Guard.
func (g *Guardian) Lease(grant physical.Grant, deadline boottime.Instant) {
	g.put(message{Op: opLease, Grant: &grant, At: killAt(deadline, grant.TTL)})
}

// Plan says how to release the lock.
func (g *Guardian) Plan(plan json.RawMessage) { g.put(message{Op: opPlan, Plan: plan}) }

// Start runs a command; see Runner.
func (g *Guardian) Start(ctx context.Context, c Command) (Process, error) {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return nil, ErrGuardian
	}
	g.next++
	p := &process{guardian: g, id: g.next, started: make(chan struct{}), done: make(chan struct{}), handle: -1}
	g.trees[p.id] = p
	g.mu.Unlock()
	g.put(message{Op: opStart, ID: p.id, Command: &c})
	select {
	case <-p.started:
		return p, nil
	case <-p.done:
		select {
		case <-p.started: // and ended already
			return p, nil
		default:
		}
		if p.err == nil {
			p.err = ErrGuardian
		}
		return nil, p.err
	case <-ctx.Done():
		p.Kill()
		<-p.done // at most as long as a tree takes to end
		return nil, fmt.Errorf("start %s: %w", c.Args[0], context.Cause(ctx))
	}
}

// heard takes what the guardian says.
func (g *Guardian) heard(m message) {
	if m.Op == opReady {
		g.ready <- m
		return
	}
	g.mu.Lock()
	p := g.trees[m.ID]
	if p != nil && m.Op != opStarted {
		delete(g.trees, m.ID)
	}
	g.mu.Unlock()
	if p == nil {
		return
	}
	switch m.Op {
	case opStarted:
		p.pid, p.init = m.PID, m.Init
		p.hold(m.Contained)
		close(p.started)
	case opFailed:
		p.err = startError(m.Error)
		p.over()
	case opEnded:
		if m.Exit != nil {
			p.exit = *m.Exit
		}
		if p.asked.Load() && p.exit.Signal == syscall.SIGKILL && p.exit.Cause == "" {
			p.exit.Cause = causeAsked // the node itself was quicker
		}
		p.over()
	}
}

// startError gives an error that came as text its meaning back.
func startError(text string) error {
	for _, known := range []error{ErrLeaseOver, ErrContainment} {
		if rest, ok := cutPrefix(text, known.Error()); ok {
			return fmt.Errorf("%w%s", known, rest)
		}
	}
	return errors.New(text)
}

func cutPrefix(text, prefix string) (rest string, ok bool) {
	if len(text) < len(prefix) || text[:len(prefix)] != prefix {
		return text, false
	}
	return text[len(prefix):], true
}

// gone ends everything after the guardian's death. Its trees die with it; they are reported when they are gone.
func (g *Guardian) gone() {
	g.mu.Lock()
	planned := g.closed
	g.closed = true
	left := g.trees
	g.trees = map[uint64]*process{}
	g.mu.Unlock()
	err := g.cmd.Wait()
	for _, p := range left {
		p.awaitEnd()
		p.exit, p.err = Exit{Signal: syscall.SIGKILL, Cause: causeGuardian}, ErrGuardian
		p.over()
	}
	if !planned {
		g.cfg.Logger.Error("the guardian ended; so did what it ran", "error", err)
		if g.cfg.Observer.Ended != nil {
			g.cfg.Observer.Ended(err)
		}
	}
	close(g.done)
}

// awaitEnd waits until a tree whose guardian is dead is gone, however long the kernel takes: while something of it is there, it must not be
// taken for ended (P2).
func (p *process) awaitEnd() {
	p.mu.Lock()
	handle := p.handle
	p.mu.Unlock()
	if handle < 0 {
		return // it was gone when it was reported, or was never started
	}
	for began := time.Now(); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(handle), Events: unix.POLLIN}}, int(stillThere.Milliseconds()))
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if n == 0 && err == nil {
			p.guardian.cfg.Logger.Error("a process was killed and has not ended (state D?): until it has, this node starts nothing in its place and releases no lock",
				"pid", p.watched(), "waited", time.Since(began).Round(time.Millisecond))
		}
	}
}

// force kills the guardian: what it runs dies with it.
func (g *Guardian) force() { _ = g.cmd.Process.Kill() } // an error says that it has ended

// Close lets the guardian go; see Guard.
func (g *Guardian) Close() error {
	g.mu.Lock()
	again := g.closed
	g.closed = true
	g.mu.Unlock()
	if !again {
		_ = g.link.send(message{Op: opBye})
	}
	if c, ok := g.link.conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite() // it hears the end, and can still say what ended
	}
	limit := time.NewTimer(guardianLate)
	defer limit.Stop()
	select {
	case <-g.done:
	case <-limit.C:
		g.force()
		<-g.done
	}
	g.wg.Wait()
	if err := g.link.conn.Close(); err != nil {
		return fmt.Errorf("close the guardian's socket: %w", err)
	}
	return nil
}

// process is one command under the guardian.
type process struct {
	guardian  *Guardian
	id        uint64
	pid, init int
	started   chan struct{}
	done      chan struct{}
	exit      Exit
	err       error
	killing   sync.Once
	asked     atomic.Bool // by Kill

	mu     sync.Mutex
	handle int  // of watched, as a pidfd; -1 for none
	deadly bool // it is the init of a PID namespace
}

// watched is the process whose end is the tree's: its init, or where there is none the command itself.
func (p *process) watched() int {
	if p.init != 0 {
		return p.init
	}
	return p.pid
}

// hold keeps a handle on the process whose end is the tree's. Where the end of that also brings the tree's about, a guardian that hangs
// does not keep the tree alive.
func (p *process) hold(containment string) {
	fd, err := unix.PidfdOpen(p.watched(), 0)
	if err != nil {
		return // it has ended
	}
	p.mu.Lock()
	p.handle, p.deadly = fd, containment == ContainNamespace
	p.mu.Unlock()
}

// over lets the handle go and says that nothing of the tree is left.
func (p *process) over() {
	p.mu.Lock()
	if p.handle >= 0 {
		_ = unix.Close(p.handle)
		p.handle = -1
	}
	p.mu.Unlock()
	close(p.done)
}

// PID is the command's.
func (p *process) PID() int { return p.pid }

// Signal sends a signal to the command.
func (p *process) Signal(s syscall.Signal) error {
	select {
	case <-p.done:
		return os.ErrProcessDone
	default:
	}
	p.guardian.put(message{Op: opSignal, ID: p.id, Signal: s})
	return nil
}

// Kill ends the tree. A guardian that does not see to it in time is killed: that ends the tree as well.
func (p *process) Kill() {
	p.killing.Do(func() {
		p.asked.Store(true)
		p.guardian.put(message{Op: opKill, ID: p.id})
		p.mu.Lock()
		if p.handle >= 0 && p.deadly {
			_ = unix.PidfdSendSignal(p.handle, unix.SIGKILL, nil, 0) // it may have ended just now
		}
		p.mu.Unlock()
		time.AfterFunc(guardianLate, func() {
			select {
			case <-p.done:
			default:
				p.guardian.cfg.Logger.Error("the guardian does not end a tree; it is killed, and all trees with it")
				if p.guardian.cfg.Observer.Late != nil {
					p.guardian.cfg.Observer.Late()
				}
				p.guardian.force()
			}
		})
	})
}

// Done is closed when nothing of the tree is left.
func (p *process) Done() <-chan struct{} { return p.done }

// Exit tells how the command ended.
func (p *process) Exit() Exit { return p.exit }
