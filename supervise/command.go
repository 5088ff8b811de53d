package supervise

import (
	"context"
	"errors"
	"fmt"
	"syscall"
)

// The ways in which a tree of processes is held together.
const (
	ContainAuto      = "auto"
	ContainNamespace = "pid_namespace"
	ContainCgroup    = "cgroup"
	ContainGroup     = "process_group"
)

// Errors of a start.
var (
	// ErrGuardian: there is no guardian to start anything, or it died.
	ErrGuardian = errors.New("the guardian has ended")
	// ErrContainment: this host does not grant the containment that was asked for.
	ErrContainment = errors.New("this host does not grant this containment")
	// ErrLeaseOver: nothing is started any more, the lease's deadline has passed.
	ErrLeaseOver = errors.New("the lease's deadline has passed")
)

// Command is what to run.
type Command struct {
	Args        []string `json:"args"`
	Env         []string `json:"env"` // all of it, NAME=value
	Dir         string   `json:"dir,omitempty"`
	User        string   `json:"user,omitempty"`  // name or number
	Group       string   `json:"group,omitempty"` // name or number
	Containment string   `json:"containment,omitempty"`
	Quiet       bool     `json:"quiet,omitempty"`  // its output is thrown away: a check that comes round every second
	Host        bool     `json:"host,omitempty"`   // it sees and changes this host's mounts, and /proc, whatever holds its tree together
	Beyond      bool     `json:"beyond,omitempty"` // it is started, and runs on, when the lease is over: it takes back what was done under it
}

// Exit is how a command ended.
type Exit struct {
	Code   int            `json:"code"`             // its exit code, if it was not killed
	Signal syscall.Signal `json:"signal,omitempty"` // what killed it
	Left   int            `json:"left,omitempty"`   // processes of the tree that were still there, and were killed
	Cause  string         `json:"cause,omitempty"`  // why it was killed, if it was Locum: "lease", "asked", "node", "guardian"
}

// Shell is the exit code as a shell has it: 128 and the signal for a killed command.
func (e Exit) Shell() int {
	if e.Signal != 0 {
		return 128 + int(e.Signal)
	}
	return e.Code
}

func (e Exit) String() string {
	text := fmt.Sprintf("exit code %d", e.Code)
	if e.Signal != 0 {
		text = "killed by " + signalName(e.Signal)
	}
	if e.Cause == causeLease {
		text += ", because the lease ran out"
	}
	if e.Left > 0 {
		text += fmt.Sprintf("; %d processes that it left behind were ended", e.Left)
		if e.Signal == 0 && e.Code == 0 {
			text += ": a command must stay in the foreground"
		}
	}
	return text
}

// The causes of an end that Locum brought about.
const (
	causeLease    = "lease"
	causeAsked    = "asked"
	causeNode     = "node"
	causeGuardian = "guardian"
)

// Runner starts commands. The guardian is one.
type Runner interface {
	// Start returns when the command runs. It may be ended only by its Process; ctx limits the wait.
	Start(ctx context.Context, c Command) (Process, error)
}

// Process is a command that runs, with everything that it starts.
type Process interface {
	// PID is the command's, as this host counts.
	PID() int
	// Signal sends a signal to the command itself.
	Signal(syscall.Signal) error
	// Kill ends the whole tree; Done tells when it has ended.
	Kill()
	// Done is closed when no process of the tree is left.
	Done() <-chan struct{}
	// Exit tells how the command ended, once Done is closed.
	Exit() Exit
}

var signalNames = map[syscall.Signal]string{
	syscall.SIGHUP: "SIGHUP", syscall.SIGINT: "SIGINT", syscall.SIGQUIT: "SIGQUIT", syscall.SIGABRT: "SIGABRT", syscall.SIGKILL: "SIGKILL",
	syscall.SIGSEGV: "SIGSEGV", syscall.SIGPIPE: "SIGPIPE", syscall.SIGTERM: "SIGTERM", syscall.SIGUSR1: "SIGUSR1", syscall.SIGUSR2: "SIGUSR2",
	syscall.SIGBUS: "SIGBUS", syscall.SIGILL: "SIGILL", syscall.SIGFPE: "SIGFPE", syscall.SIGALRM: "SIGALRM", syscall.SIGWINCH: "SIGWINCH",
}

func signalName(s syscall.Signal) string {
	if name, ok := signalNames[s]; ok {
		return name
	}
	return fmt.Sprintf("signal %d", int(s))
}

// ParseSignal reads a signal by its name, such as SIGTERM.
func ParseSignal(name string) (syscall.Signal, error) {
	for s, n := range signalNames {
		if n == name {
			return s, nil
		}
	}
	return 0, fmt.Errorf("signal %q is not known", name)
}
