package storeserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// T is what this package needs of a *testing.T, so that benchmarks can have servers too.
type T interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Failed() bool
	Cleanup(func())
	TempDir() string
}

// Spec says how a server is run.
type Spec struct {
	// Name is the store's, for messages.
	Name string
	// Dir is where its log goes, and where it is started. Required.
	Dir string
	// Path and Args are the program; Env is added to this program's own environment.
	Path string
	Args []string
	Env  []string
	// User is who runs it, for a server that refuses to be root's. Ignored unless this program is root's. Use Dir
	// for a directory that the user may write in.
	User string
	// Ready makes one attempt to use the server, and returns nil if it serves. Required.
	Ready func(ctx context.Context) error
	// StopSignal asks it to end. 0: SIGTERM.
	StopSignal syscall.Signal
	// Patience is how long it may take to start, and to stop. 0: a minute.
	Patience time.Duration
}

// Process is one server that is started, stopped and paused by the test.
type Process struct {
	t    T
	spec Spec
	attr *syscall.SysProcAttr
	reap chan func() // to the one goroutine that waits for its ends: a restart leaves none more behind than there were

	mu   sync.Mutex
	cmd  *exec.Cmd     // nil while it does not run
	done chan struct{} // closed when cmd has been waited for
}

// Launch starts a server and waits until it serves. It is ended when the test ends.
func Launch(t T, spec Spec) *Process {
	t.Helper()
	if spec.StopSignal == 0 {
		spec.StopSignal = syscall.SIGTERM
	}
	if spec.Patience == 0 {
		spec.Patience = time.Minute
	}
	attr, err := procAttr(spec.User)
	if err != nil {
		t.Fatalf("%s: %v", spec.Name, err)
	}
	p := &Process{t: t, spec: spec, attr: attr, reap: make(chan func())}
	go func() {
		for wait := range p.reap {
			wait()
		}
	}()
	t.Cleanup(func() {
		p.Kill()
		close(p.reap)
		if t.Failed() {
			t.Logf("the end of %s's log:\n%s", spec.Name, p.logEnd())
		}
	})
	if err := p.Start(); err != nil {
		t.Fatalf("%v\n%s", err, p.logEnd())
	}
	return p
}

// spawner starts every child: PR_SET_PDEATHSIG fires when the *thread* that started a child ends, so that thread must
// live as long as the program.
var spawner = sync.OnceValue(func() chan func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

// Start starts it again after Stop or Kill, on its old ports and data, and returns when it serves.
func (p *Process) Start() error {
	if err := p.spawn(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.spec.Patience)
	defer cancel()
	ticker := time.NewTicker(25 * time.Millisecond)
	defer ticker.Stop()
	for {
		attempt, stop := context.WithTimeout(ctx, 2*time.Second)
		err := p.spec.Ready(attempt)
		stop()
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-p.done:
			return fmt.Errorf("%s ended by itself: %v", p.spec.Name, p.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("%s does not serve after %v: %w", p.spec.Name, p.spec.Patience, err)
		}
	}
}

func (p *Process) spawn() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return fmt.Errorf("%s runs already", p.spec.Name)
	}
	log, err := os.OpenFile(p.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.spec.Path, p.spec.Args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = p.spec.Dir, log, log, p.attr
	cmd.Env = append(os.Environ(), p.spec.Env...)
	started := make(chan error)
	spawner() <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return fmt.Errorf("starting %s: %w", p.spec.Name, err)
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	p.reap <- func() {
		_ = cmd.Wait() // how it ended stands in its ProcessState
		close(done)
	}
	return nil
}

// Stop asks it to end, and kills it if it does not in time. One that does not run is no error.
func (p *Process) Stop() error {
	p.Signal(p.spec.StopSignal)
	return p.wait()
}

// Kill ends it at once, and all processes that it has started in its group.
func (p *Process) Kill() {
	p.mu.Lock()
	if p.cmd != nil {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	}
	p.mu.Unlock()
	_ = p.wait()
}

func (p *Process) wait() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return nil
	}
	timer := time.NewTimer(p.spec.Patience)
	defer timer.Stop()
	var err error
	select {
	case <-p.done:
	case <-timer.C:
		err = fmt.Errorf("%s did not end within %v and was killed", p.spec.Name, p.spec.Patience)
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // what it may have left
	<-p.done
	p.cmd = nil
	return err
}

// Restart ends it in order and starts it again.
func (p *Process) Restart() error { return errors.Join(p.Stop(), p.Start()) }

// Pause freezes it (SIGSTOP): its connections stay open and nothing answers.
func (p *Process) Pause() { p.Signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (p *Process) Resume() { p.Signal(syscall.SIGCONT) }

// Signal sends a signal to all of its process group.
func (p *Process) Signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		_ = syscall.Kill(-p.cmd.Process.Pid, sig)
	}
}

// Pid returns its process id, 0 while it does not run.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// LogPath is the file that its output goes to.
func (p *Process) LogPath() string { return filepath.Join(p.spec.Dir, p.spec.Name+".log") }

// logEnd returns the last lines of its output.
func (p *Process) logEnd() []byte {
	log, err := os.ReadFile(p.LogPath())
	if err != nil {
		return []byte(err.Error())
	}
	const most = 40
	lines := bytes.Split(bytes.TrimSpace(log), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-most):], []byte("\n"))
}
