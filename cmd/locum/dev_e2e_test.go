package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// devRun is a "locum dev" in a process of its own.
type devRun struct {
	cmd   *exec.Cmd
	tmp   string // its TMPDIR
	lines chan string
	seen  []string
}

var built struct {
	once sync.Once
	path string
	err  error
}

// builtBinary builds the command, once for all tests: dev starts its own executable, which must not be the test's.
func builtBinary(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		dir, err := os.MkdirTemp("", "locum-test-")
		if err != nil {
			built.err = err
			return
		}
		built.path = filepath.Join(dir, "locum")
		if out, err := exec.Command("go", "build", "-o", built.path, ".").CombinedOutput(); err != nil {
			built.err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

func startDev(t *testing.T, args ...string) *devRun {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the binary and runs three processes")
	}
	binary := builtBinary(t)
	d := &devRun{tmp: t.TempDir(), lines: make(chan string, 1000)}
	d.cmd = exec.Command(binary, append([]string{"dev", "-port", strconv.Itoa(freePorts(t))}, args...)...)
	d.cmd.Env = append(os.Environ(), "TMPDIR="+d.tmp)
	d.cmd.Stderr = os.Stderr
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.cmd.Process.Kill() })
	go func() {
		defer close(d.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			d.lines <- s.Text()
		}
	}()
	return d
}

// freePorts returns the first of a row of ports that are free now. They lie below those that the system gives out by itself.
func freePorts(t *testing.T) int {
	t.Helper()
	for base := 18400 + os.Getpid()%400*10; base < 30000; base += 100 {
		free := true
		for port := base; port < base+30 && free; port++ {
			ln, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
			if free = err == nil; free {
				ln.Close()
			}
		}
		if free {
			return base
		}
	}
	t.Fatal("no free ports")
	return 0
}

// wait returns the first line that matches, with its submatches.
func (d *devRun) wait(t *testing.T, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.After(60 * time.Second)
	for {
		select {
		case line, ok := <-d.lines:
			d.seen = append(d.seen, line)
			if m := re.FindStringSubmatch(line); m != nil {
				return m
			}
			if !ok {
				t.Fatalf("ended before %q:\n%s", pattern, strings.Join(d.seen, "\n"))
			}
		case <-deadline:
			t.Fatalf("no line %q:\n%s", pattern, strings.Join(d.seen, "\n"))
		}
	}
}

// shell runs a line as a user would who copied it.
func (d *devRun) shell(t *testing.T, line string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", line).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// gone reports an error while a process of the cluster or a file of it is left.
func (d *devRun) gone(pids []int) error {
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("process %d is left", pid)
		}
	}
	return nil
}

func (d *devRun) table(t *testing.T) (pids []int) {
	t.Helper()
	for range 3 {
		m := d.wait(t, `^node-\d +http://127\.0\.0\.1:\d+ +(\d+) +(active|standby) `)
		pid, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// The two commands of a fresh machine: what dev prints is true, and each line to copy does what it says.
func TestDev(t *testing.T) {
	d := startDev(t)
	pids := d.table(t)
	kv := d.wait(t, `^ +(LOCUM_ADDR=.* kv put .*)$`)[1]
	kill := d.wait(t, `^ +(kill -9 \d+)$`)[1]
	stepDown := d.wait(t, `^ +(LOCUM_ADDR=.* step-down .*)$`)[1]
	d.wait(t, `node-\d leads in term \d+`)

	out := d.shell(t, kv)
	if !strings.Contains(out, "hello") || !strings.Contains(out, "Forwarded By") {
		t.Errorf("%s printed\n%s", kv, out)
	}
	d.shell(t, kill)
	var m []string
	for m == nil || m[1] == m[4] { // a starved machine may have lost the lease, and won it again, just before
		m = d.wait(t, `(node-\d) leads in term (\d+) \(pid (\d+)\), after (node-\d); nobody led for (\S+)$`)
	}
	if gap, err := time.ParseDuration(m[5]); err != nil || gap > 5*time.Second {
		t.Errorf("nobody led for %s", m[5])
	}
	again, err := strconv.Atoi(d.wait(t, m[4]+` runs again \(pid (\d+)\)`)[1])
	if err != nil {
		t.Fatal(err)
	}
	pids = append(pids, again)
	out = d.shell(t, kv) // through nodes that are the first run's standbys
	if !strings.Contains(out, "hello") {
		t.Errorf("%s printed\n%s", kv, out)
	}
	if out := d.shell(t, stepDown); !strings.Contains(out, "Active Node") {
		t.Errorf("%s printed\n%s", stepDown, out)
	}
	d.wait(t, `leads in term \d+ .*nobody led for`)

	if err := d.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	d.wait(t, `^Ending 3 nodes`)
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("exit: %v", err)
	}
	if err := d.gone(pids); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(d.tmp, "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Even if dev itself is killed, no process is left; what lies in the temporary directory, the next dev takes away.
func TestDevKilled(t *testing.T) {
	d := startDev(t)
	pids := d.table(t)
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = d.cmd.Wait()
	deadline := time.NewTimer(10 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for err := d.gone(pids); err != nil; err = d.gone(pids) {
		select {
		case <-deadline.C:
			t.Fatal(err)
		case <-tick.C:
		}
	}
	if left, _ := filepath.Glob(filepath.Join(d.tmp, devPrefix+"*")); len(left) != 1 {
		t.Fatalf("left behind: %v", left)
	}
	t.Setenv("TMPDIR", d.tmp)
	sweep()
	if left, _ := filepath.Glob(filepath.Join(d.tmp, devPrefix+"*")); len(left) != 0 {
		t.Errorf("still there: %v", left)
	}
}

// With -dir the data is kept, and the next start goes on with it.
func TestDevKeepsItsDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kept")
	for round := range 2 {
		d := startDev(t, "-dir", dir)
		pids := d.table(t)
		kv := d.wait(t, `^ +(LOCUM_ADDR=.*) && (.* kv get greeting)$`)
		if round == 0 {
			d.shell(t, kv[1])
		} else if out := d.shell(t, kv[2]); !strings.Contains(out, "hello") {
			t.Errorf("after the restart: %s", out)
		}
		d.wait(t, `leads in term`)
		if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := d.cmd.Wait(); err != nil {
			t.Errorf("exit: %v", err)
		}
		if err := d.gone(pids); err != nil {
			t.Error(err)
		}
	}
}
