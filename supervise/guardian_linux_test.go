package supervise

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
)

// plan is what these tests' guardians are told of how to release.
type plan struct{ File, Marker string }

// releaseInTest writes how many processes of the tree there were when the lock was released, and for which term.
func releaseInTest(_ context.Context, data json.RawMessage, g physical.Grant) error {
	var p plan
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	line := fmt.Sprintf("%d %d\n", g.Term(), len(marked(p.Marker)))
	if err := os.WriteFile(p.File+".new", []byte(line), 0o600); errors.Is(err, os.ErrNotExist) {
		return nil // the test is over
	} else if err != nil {
		return err
	}
	return os.Rename(p.File+".new", p.File)
}

func TestMain(m *testing.M) {
	if code, mine := Main(os.Args, releaseInTest); mine {
		os.Exit(code)
	}
	if os.Getenv("SUPERVISE_TEST_NODE") != "" {
		os.Exit(testNode())
	}
	if os.Getenv("SUPERVISE_TEST_APP") != "" {
		os.Exit(testApp())
	}
	os.Exit(m.Run())
}

// testNode is a node as a process of its own, to be killed or frozen: it starts a tree under a lease and says so.
func testNode() int {
	env := func(name string) string { return os.Getenv("SUPERVISE_TEST_" + name) }
	g, err := StartGuardian(context.Background(), GuardianConfig{})
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	p, _ := json.Marshal(plan{File: env("NODE"), Marker: env("MARKER")})
	g.Plan(p)
	ttl, _ := time.ParseDuration(env("TTL"))
	grant := physical.Grant{Record: physical.Record{Term: 7}, TTL: ttl}
	// As the election does it: the lease ends a tenth before the lock can have run out.
	renew := func() (expiry boottime.Instant) {
		expiry = boottime.Now().Add(ttl)
		g.Lease(grant, expiry.Add(-ttl/10))
		return expiry
	}
	expiry := renew()
	process, err := g.Start(context.Background(), Command{
		Args: []string{"/bin/sh", "-c", daemons(env("MARKER"))}, Env: os.Environ(), Containment: env("CONTAINMENT"),
	})
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	fmt.Println("ready", g.(*Guardian).cmd.Process.Pid, int64(expiry))
	if env("RENEW") == "" {
		<-process.Done()
		fmt.Println("ended", process.Exit())
		select {}
	}
	for range time.Tick(ttl / 5) {
		renew()
	}
	return 0
}

var markers atomic.Int64

// newMarker is an argument of "sleep" that nobody else uses.
func newMarker() string {
	return fmt.Sprintf("3600.%d%06d", os.Getpid(), markers.Add(1))
}

// marked lists the processes of this host, dead ones that nobody has collected aside, that have the marker among their arguments.
func marked(marker string) []int {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var pids []int
	for _, dir := range dirs {
		line, err := os.ReadFile(dir + "/cmdline")
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if err == nil && strings.Contains(string(line), "\x00"+marker) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// daemons is a command as bad as they come: it ignores SIGTERM, and has a child in its own group, one in another session, one
// whose parents are gone, and one that is stopped.
func daemons(marker string) string {
	s := "sleep " + marker
	return `trap '' TERM INT HUP
` + s + ` &
setsid sh -c 'trap "" TERM HUP; ` + s + ` & wait' &
(setsid sh -c '` + s + ` &' &)
` + s + ` & stopped=$!
sleep 0.1
kill -STOP $stopped
wait`
}

const sleepers = 4 // of daemons

// await polls until the condition holds.
func await(t *testing.T, what string, limit time.Duration, ok func() bool) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("%s: not within %s", what, limit)
		case <-tick.C:
		}
	}
}

// hosts are the ways in which a tree can be held here.
func containments(t *testing.T) []string {
	t.Helper()
	out := []string{ContainGroup}
	for _, c := range []string{ContainNamespace, ContainCgroup} {
		if has(t, c) {
			out = append(out, c)
		} else {
			t.Logf("%s is not granted here", c)
		}
	}
	return out
}

func has(t *testing.T, containment string) bool {
	t.Helper()
	p, err := start(t, guardian(t), Command{Args: []string{"true"}, Containment: containment})
	if err != nil {
		return false
	}
	<-p.Done()
	return true
}

func guardian(t *testing.T) Guard {
	t.Helper()
	g, err := StartGuardian(t.Context(), GuardianConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

func start(t *testing.T, g Runner, c Command) (Process, error) {
	t.Helper()
	if c.Env == nil {
		c.Env = os.Environ()
	}
	return g.Start(t.Context(), c)
}

func done(t *testing.T, p Process) Exit {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the tree does not end")
	}
	return p.Exit()
}

// Issue 5: "signals and exit code as a shell would see them".
func TestExit(t *testing.T) {
	g := guardian(t)
	for _, containment := range containments(t) {
		for _, tc := range []struct {
			args  []string
			shell int
		}{
			{[]string{"true"}, 0},
			{[]string{"sh", "-c", "exit 7"}, 7},
			{[]string{"sh", "-c", "kill -USR1 $$"}, 128 + int(syscall.SIGUSR1)},
		} {
			p, err := start(t, g, Command{Args: tc.args, Containment: containment})
			if err != nil {
				t.Fatal(containment, err)
			}
			if got := done(t, p); got.Shell() != tc.shell {
				t.Errorf("%s, %q: %v, want %d", containment, tc.args, got, tc.shell)
			}
		}
		p, err := start(t, g, Command{Args: []string{"sh", "-c", "trap 'exit 3' USR2; while :; do sleep 0.01; done"}, Containment: containment})
		if err != nil {
			t.Fatal(err)
		}
		// Until the trap is set the signal kills.
		if err := p.Signal(syscall.SIGUSR2); err != nil {
			t.Error(err)
		}
		if got := done(t, p).Shell(); got != 3 && got != 128+int(syscall.SIGUSR2) {
			t.Errorf("%s: exit %d", containment, got)
		}
	}
	for _, args := range [][]string{{"no-such-program"}, {"/no/such/program"}, {""}} {
		if _, err := start(t, g, Command{Args: args}); err == nil {
			t.Errorf("%q started", args)
		}
	}
}

// The command runs as who, where and in which groups it was told to, in every containment.
func TestWho(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can start a command as somebody else")
	}
	g := guardian(t)
	dir, err := os.MkdirTemp("", "supervise-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, containment := range containments(t) {
		for _, tc := range []struct{ user, group, want string }{
			{"nobody", "", "65534 65534 " + dir}, {"1234", "", "1234 1234 " + dir}, {"", "65534", "0 65534 " + dir}, {"nobody", "12", "65534 12 " + dir},
		} {
			p, err := start(t, g, Command{
				Args: []string{"sh", "-c", `echo "$(id -u) $(id -g) $(pwd)" > out`}, Dir: dir, User: tc.user, Group: tc.group, Containment: containment,
			})
			if err != nil {
				t.Fatal(err)
			}
			done(t, p)
			got, err := os.ReadFile(filepath.Join(dir, "out"))
			if err != nil || strings.TrimSpace(string(got)) != tc.want {
				t.Errorf("%s, user %q, group %q: %s %v, want %s", containment, tc.user, tc.group, got, err, tc.want)
			}
			_ = os.Remove(filepath.Join(dir, "out"))
		}
	}
	if _, err := start(t, g, Command{Args: []string{"true"}, User: "no-such-user"}); err == nil {
		t.Error("started as nobody that there is")
	}
}

// A quiet command is a health check: no init, and yet nothing of it stays.
func TestQuiet(t *testing.T) {
	g, marker := guardian(t), newMarker()
	p, err := start(t, g, Command{Args: []string{"sh", "-c", "(setsid sleep " + marker + " &) ; sleep " + marker}, Quiet: true})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "both sleep", 5*time.Second, func() bool { return len(marked(marker)) >= 2 })
	p.Kill()
	done(t, p)
	if left := marked(marker); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// P2: "Its whole process tree is ended, and seen to be ended" — with children that left the group and the session, that ignore
// SIGTERM, and that are stopped.
func TestKill(t *testing.T) {
	g := guardian(t)
	for _, containment := range containments(t) {
		marker := newMarker()
		p, err := start(t, g, Command{Args: []string{"sh", "-c", daemons(marker)}, Containment: containment})
		if err != nil {
			t.Fatal(containment, err)
		}
		await(t, "all children run", 5*time.Second, func() bool { return len(marked(marker)) >= sleepers })
		began := time.Now()
		p.Kill()
		// The signal reaches the shell with its children, or after one that it waits for: then it ends by itself.
		if e := done(t, p); e.Cause != causeAsked || e.Signal != syscall.SIGKILL && e.Signal != 0 {
			t.Errorf("%s: %+v", containment, e)
		}
		if left := marked(marker); len(left) > 0 {
			t.Errorf("%s: left: %v", containment, left)
		}
		t.Logf("%s: ended within %s", containment, time.Since(began))
	}
}

// A guardian that hangs keeps no tree alive: the node ends it, and replaces the guardian (P2).
func TestGuardianFrozen(t *testing.T) {
	if !has(t, ContainNamespace) {
		t.Skip("no PID namespaces here")
	}
	var late atomic.Int64
	g, err := StartGuardian(t.Context(), GuardianConfig{Observer: GuardianObserver{Late: func() { late.Add(1) }}})
	if err != nil {
		t.Fatal(err)
	}
	marker := newMarker()
	p, err := start(t, g, Command{Args: []string{"sh", "-c", daemons(marker)}, Containment: ContainNamespace})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "all children run", 5*time.Second, func() bool { return len(marked(marker)) >= sleepers })
	if err := g.(*Guardian).cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	p.Kill()
	await(t, "the tree's end", guardianLate-500*time.Millisecond, func() bool { return len(marked(marker)) == 0 })
	done(t, p)
	if late.Load() != 1 {
		t.Error("the guardian that hung was not killed")
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}

// A command that goes to the background has ended, and so has what it left.
func TestBackground(t *testing.T) {
	g := guardian(t)
	for _, containment := range containments(t) {
		marker := newMarker()
		p, err := start(t, g, Command{Args: []string{"sh", "-c", "(setsid sleep " + marker + " &); exit 5"}, Containment: containment})
		if err != nil {
			t.Fatal(err)
		}
		e := done(t, p)
		if left := marked(marker); e.Code != 5 || len(left) > 0 {
			t.Errorf("%s: %v, left %v", containment, e, left)
		}
	}
}

// The guardian's death takes the trees along, and the node sees it.
func TestGuardianKilled(t *testing.T) {
	for _, containment := range containments(t) {
		g, err := StartGuardian(t.Context(), GuardianConfig{})
		if err != nil {
			t.Fatal(err)
		}
		marker := newMarker()
		p, err := start(t, g, Command{Args: []string{"sh", "-c", daemons(marker)}, Containment: containment})
		if err != nil {
			t.Fatal(err)
		}
		await(t, "all children run", 5*time.Second, func() bool { return len(marked(marker)) >= sleepers })
		g.(*Guardian).force()
		if e := done(t, p); e.Cause != causeGuardian {
			t.Errorf("%s: %+v", containment, e)
		}
		if left := marked(marker); len(left) > 0 {
			t.Errorf("%s: left %v", containment, left)
		}
		if _, err := start(t, g, Command{Args: []string{"true"}}); !errors.Is(err, ErrGuardian) {
			t.Errorf("a start under a dead guardian: %v", err)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
}

// nodeProcess is a testNode.
type nodeProcess struct {
	cmd      *exec.Cmd
	guardian int
	expiry   boottime.Instant // of the lock, if it is not renewed
	marker   string
	released string // the file that the release writes
	lines    *bufio.Scanner
}

func startNode(t *testing.T, containment string, ttl time.Duration, uid int, env ...string) *nodeProcess {
	t.Helper()
	dir, err := os.MkdirTemp("", "supervise-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	n := &nodeProcess{marker: newMarker(), released: filepath.Join(dir, "released")}
	n.cmd = exec.Command("/proc/self/exe")
	n.cmd.Env = append(os.Environ(), append(env, "SUPERVISE_TEST_NODE="+n.released, "SUPERVISE_TEST_MARKER="+n.marker,
		"SUPERVISE_TEST_CONTAINMENT="+containment, "SUPERVISE_TEST_TTL="+ttl.String())...)
	n.cmd.Stderr = os.Stderr
	if uid != 0 {
		n.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = n.cmd.Process.Kill()
		_ = n.cmd.Wait()
	})
	n.lines = bufio.NewScanner(out)
	if !n.lines.Scan() {
		t.Fatal("the node ended")
	}
	var expiry int64
	if _, err := fmt.Sscanf(n.lines.Text(), "ready %d %d", &n.guardian, &expiry); err != nil {
		t.Fatalf("%s: the node says %q", containment, n.lines.Text())
	}
	n.expiry = boottime.Instant(expiry)
	await(t, "all children run", 5*time.Second, func() bool { return len(marked(n.marker)) >= sleepers })
	return n
}

// P7: the node is killed with -9; the tree is ended, and only then the lock is released, at once.
func TestNodeKilled(t *testing.T) {
	for _, uid := range uids() {
		for _, containment := range containments(t) {
			if uid != 0 && containment == ContainCgroup {
				continue // another user's cgroup is not granted
			}
			n := startNode(t, containment, time.Minute, uid)
			began := time.Now()
			if err := n.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			var line []byte
			await(t, "the release", 10*time.Second, func() bool {
				var err error
				line, err = os.ReadFile(n.released)
				return err == nil
			})
			if string(line) != "7 0\n" {
				t.Errorf("%s, uid %d: released term and processes left then: %s", containment, uid, line)
			}
			t.Logf("%s, uid %d: released %s after the kill", containment, uid, time.Since(began))
		}
	}
}

// uids are root, if this is root, and somebody who is not: namespaces are made in another way for them.
func uids() []int {
	if os.Geteuid() == 0 {
		return []int{0, 65534}
	}
	return []int{0} // as whoever this is
}

// Issue 5: "When guardian and node die together the tree dies too."
func TestBothKilled(t *testing.T) {
	for _, uid := range uids() {
		for _, containment := range containments(t) {
			if uid != 0 && containment == ContainCgroup {
				continue
			}
			n := startNode(t, containment, time.Minute, uid)
			if err := n.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(n.guardian, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			await(t, containment+": the tree's end", 5*time.Second, func() bool { return len(marked(n.marker)) == 0 })
		}
	}
}
