package test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// locked is "locum lock" with a command that says its lock's number, and stays.
type locked struct {
	*exec.Cmd
	number int
	file   string // locked by flock(2) for as long as one process of the command lives
}

func lockCommand(t *testing.T, ctx context.Context, n *cluster.Node, token string, args ...string) *exec.Cmd {
	t.Helper()
	binary, err := cluster.Binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, binary, append([]string{"lock", "-address", n.URL()}, args...)...)
	cmd.Env = append(cmd.Environ(), "LOCUM_TOKEN="+token)
	return cmd
}

func holdLock(t *testing.T, ctx context.Context, n *cluster.Node, token, name, ttl string) *locked {
	t.Helper()
	l := &locked{file: filepath.Join(t.TempDir(), "alive")}
	// Beside the shell, a process of another session that ignores SIGTERM.
	script := `exec 9>"$0"; flock 9; setsid sh -c 'trap "" TERM; while true; do sleep 1; done' & echo $LOCUM_LOCK_TERM; wait`
	l.Cmd = lockCommand(t, ctx, n, token, "-ttl", ttl, name, "--", "sh", "-c", script, l.file)
	out, err := l.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Process.Kill(); _ = l.Wait() }) // ended already, as a rule
	if _, err := fmt.Fscan(out, &l.number); err != nil {
		t.Fatal("the command said nothing: ", err)
	}
	return l
}

// ended reports whether no process of the command is left.
func (l *locked) ended(t *testing.T) bool {
	t.Helper()
	f, err := os.Open(l.file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}

// "locum lock": the command's own exit code and the lock's number in its environment; held over a step-down and a crash of the
// active node; not to be had by another meanwhile.
func TestLockCommand(t *testing.T) {
	c := cluster.New(t, cluster.Options{})
	ctx := within(t, time.Minute)
	err := lockCommand(t, ctx, c.Nodes[1], c.Token, "report", "--", "sh", "-c", `exit $((LOCUM_LOCK_TERM + 40))`).Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 41 {
		t.Fatalf("the command's exit code: %v", err)
	}
	l := holdLock(t, ctx, c.Nodes[2], c.Token, "report", "3s")
	if l.number != 2 {
		t.Errorf("number %d after 1", l.number)
	}
	taken := func() bool {
		return lockCommand(t, ctx, c.Nodes[0], c.Token, "-wait", "0s", "report", "--", "true").Run() == nil
	}
	if err := c.StepDown(ctx, c.Nodes[0], "", 20*time.Second); err != nil {
		t.Fatal(err)
	}
	if taken() {
		t.Fatal("two hold the lock after a step-down")
	}
	active, _ := findActive(t, c)
	if active != c.Nodes[2] && active != c.Nodes[0] {
		active.Kill()
		if _, err := c.WaitActive(ctx, active); err != nil {
			t.Fatal(err)
		}
		if taken() {
			t.Fatal("two hold the lock after a crash")
		}
	}
	if err := l.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := l.Process.Signal(syscall.SIGINT); err != nil { // the second one kills
		t.Fatal(err)
	}
	_ = l.Wait() // killed: its exit code says so
	if err := cluster.Poll(ctx, "the lock is free again", func() error {
		if !taken() {
			return fmt.Errorf("held")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// "… the command ended before the lock can be lost": with everything that it started, when locum lock is frozen, and when it is killed.
func TestLockedCommandEnds(t *testing.T) {
	c := cluster.New(t, cluster.Options{})
	ctx := within(t, time.Minute)
	for _, s := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		name := "frozen-" + strconv.Itoa(int(s))
		l := holdLock(t, ctx, c.Nodes[0], c.Token, name, "2s")
		if l.ended(t) {
			t.Fatal("the command does not run")
		}
		if err := l.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		next := lockCommand(t, ctx, c.Nodes[1], c.Token, name, "--", "true")
		if err := next.Run(); err != nil {
			t.Fatalf("the next one, after %v: %v", s, err)
		}
		if !l.ended(t) {
			t.Errorf("after %v the lock was another's while the command still ran", s)
		}
		_ = l.Process.Signal(syscall.SIGCONT) // so that it can end
		_ = l.Process.Kill()
	}
}
