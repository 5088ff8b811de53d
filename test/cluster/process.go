package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is one child process: a node, or a peer that it is measured against. It dies with this program.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has been waited for
	err  error         // how it ended; read after done
}

// starter starts every child: PR_SET_PDEATHSIG fires when the *thread* that started a child ends, so that
// thread must live as long as the program.
var starter = sync.OnceValue(func() chan func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

// StartProcess starts a program, its standard output and error appended to the log file.
func StartProcess(logPath string, env []string, name string, args ...string) (*Process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	starter() <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", filepath.Base(name), err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Pid returns the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Running reports whether it has not ended yet; a frozen process runs.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends a signal to this process alone. A process that has ended is no error.
func (p *Process) Signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// Kill ends it at once (SIGKILL) and waits for its end.
func (p *Process) Kill() {
	_ = p.Signal(syscall.SIGKILL)
	<-p.done
}

// Stop asks it to end (SIGTERM) and waits for at most limit, then kills. It returns how it ended.
func (p *Process) Stop(limit time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return p.Wait(limit)
}

// Wait waits for its end for at most limit, then kills. It returns how it ended.
func (p *Process) Wait(limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.err
	case <-timer.C:
		p.Kill()
		return fmt.Errorf("did not end within %v and was killed", limit)
	}
}

// state is the letter that the kernel gives: R, S, D, T (stopped), Z; 0 when there is no such process.
func (p *Process) state() byte {
	fields := statFields(p.Pid())
	if len(fields) == 0 {
		return 0
	}
	return fields[0][0]
}

// CPU returns the processor time that it has used, in steps of 10 ms.
func (p *Process) CPU() time.Duration {
	fields := statFields(p.Pid())
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * (time.Second / 100) // USER_HZ is 100 on every Linux that Go runs on
}

// statFields returns /proc/PID/stat from the state on: the name before it may hold spaces.
func statFields(pid int) []string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
}

// RSS returns the resident memory in bytes, 0 if it does not run.
func (p *Process) RSS() int64 { return procStatus(p.Pid(), "VmRSS:") }

// WatchersRSS returns the resident memory in bytes of the processes that it started (a node's guardian), and how much of it is theirs alone: the
// rest are pages of the same binary, which the process itself has as well.
func (p *Process) WatchersRSS() (all, own int64) {
	for _, pid := range descendants(p.Pid()) {
		all += procStatus(pid, "VmRSS:")
		own += procStatus(pid, "RssAnon:")
	}
	return all, own
}

// PeakRSS returns the largest resident memory so far in bytes.
func (p *Process) PeakRSS() int64 { return procStatus(p.Pid(), "VmHWM:") }

// ResetPeak starts the measurement of PeakRSS anew.
func (p *Process) ResetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.Pid()), []byte("5"), 0)
}

func procStatus(pid int, field string) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			kb, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kb << 10
		}
	}
	return 0
}
