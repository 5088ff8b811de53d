package supervise

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/locum-ha/locum/physical"
)

// The hidden command lines of this binary: locum guardian, locum guardian init NAME.
const (
	argGuardian = "guardian"
	argInit     = "init"
)

// controlFD is where a guardian and an init find their socket.
const controlFD = 3

// Release gives a lock up on behalf of a node that died: plan is what the node said to that end (Guardian.Plan).
type Release func(ctx context.Context, plan json.RawMessage, grant physical.Grant) error

// Main is the whole life of the process if its arguments say that it is a guardian or an init; mine is false otherwise. It is to be
// called first thing in main: the commands of a guardian are no one else's.
func Main(args []string, release Release) (code int, mine bool) {
	if len(args) < 2 || args[1] != argGuardian {
		return 0, false
	}
	runtime.LockOSThread() // children die with the thread that started them: it is the main one, and lives to the end
	switch {
	case len(args) >= 3 && args[2] == argInit:
		return runInit(), true
	case len(args) == 2:
		return runGuardian(release), true
	}
	fmt.Fprintln(os.Stderr, "error: locum guardian is started by a node, not by hand")
	return 1, true
}

// link is one end of a socket between two of these processes.
type link struct {
	conn net.Conn
	mu   sync.Mutex // one line at a time
	enc  *json.Encoder
}

// openLink takes over a socket's descriptor.
func openLink(fd uintptr, name string) (*link, error) {
	syscall.CloseOnExec(int(fd))
	f := os.NewFile(fd, name)
	if f == nil {
		return nil, fmt.Errorf("no socket %s", name)
	}
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", name, err)
	}
	return &link{conn: conn, enc: json.NewEncoder(conn)}, nil
}

// newPair makes a socket: this side's end, and the file to give to the child.
func newPair(name string) (*link, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	mine, err := openLink(uintptr(fds[0]), name)
	if err != nil {
		return nil, nil, err
	}
	return mine, os.NewFile(uintptr(fds[1]), name), nil
}

func (l *link) send(m message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.enc.Encode(m)
}

// receive calls f for every message until the other side is gone.
func (l *link) receive(f func(message)) {
	dec := json.NewDecoder(l.conn)
	for {
		var m message
		if err := dec.Decode(&m); err != nil {
			return // closed: the other side has ended, or this one
		}
		f(m)
	}
}

// deaf takes the signals that would end this process, and drops them: they are meant for the node, which sees to the rest. They are
// not ignored, since that would be inherited by the command.
func deaf() {
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2,
		syscall.SIGPIPE, syscall.SIGALRM, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)
}

// children lists the processes whose parent is this one.
func children() []int {
	var out []int
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil
	}
	for _, task := range tasks {
		data, err := os.ReadFile("/proc/self/task/" + task.Name() + "/children")
		if err != nil {
			continue // the thread ended in between
		}
		for _, field := range strings.Fields(string(data)) {
			var pid int
			if _, err := fmt.Sscan(field, &pid); err == nil {
				out = append(out, pid)
			}
		}
	}
	return out
}

// complain writes where the node's log goes: the node may be gone.
func complain(w io.Writer, format string, args ...any) {
	fmt.Fprintf(w, "locum guardian: "+format+"\n", args...)
}
