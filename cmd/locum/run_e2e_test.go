package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/locum-ha/locum/client"
	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/seal"
)

// runApp is an application in Go, built once: it answers with its node's name, and with the signals that it was told.
const runApp = `package main
import ("fmt"; "net/http"; "os"; "os/signal"; "syscall")
func main() {
	caught, told := make(chan os.Signal, 9), make(chan string, 9)
	signal.Notify(caught, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGQUIT, syscall.SIGTERM)
	go func() { for s := range caught { if s == syscall.SIGTERM { os.Exit(5) }; told <- s.String() } }()
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getenv("LOCUM_NODE")) })
	http.HandleFunc("/told", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, <-told) })
	fmt.Println("application says hello; LOCUM_JOIN is", os.Getenv("LOCUM_JOIN") != "")
	fmt.Fprintln(os.Stderr, http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
	os.Exit(3)
}
`

// runAppBinary builds it.
func runAppBinary(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	source, app := filepath.Join(dir, "app.go"), filepath.Join(dir, "app")
	if err := os.WriteFile(source, []byte(runApp), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-o", app, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return app
}

type runProcess struct {
	cmd   *exec.Cmd
	lines chan string
	dir   string
	api   string
	app   string
}

func startRun(t *testing.T, dir, join string, port int, args ...string) *runProcess {
	t.Helper()
	return startRunWith(t, []string{joinVariable + "=" + join}, dir, port, args...)
}

func startRunWith(t *testing.T, env []string, dir string, port int, args ...string) *runProcess {
	t.Helper()
	api, app := "127.0.0.1:"+strconv.Itoa(port), "127.0.0.1:"+strconv.Itoa(port+2)
	r := &runProcess{lines: make(chan string, 1000), dir: dir, api: api, app: app}
	r.cmd = exec.Command(builtBinary(t), append([]string{"run", "-dir", dir, "-node-name", filepath.Base(dir), "-address", api, "-listen", app}, args...)...)
	r.cmd.Env = append(os.Environ(), env...)
	r.cmd.Stderr = os.Stderr
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	log, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		if data, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("%s:\n%s", dir, data[max(0, len(data)-6000):])
		}
	})
	go func() {
		defer close(r.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			log.WriteString(s.Text() + "\n")
			select {
			case r.lines <- s.Text():
			default: // nobody reads it
			}
		}
	}()
	return r
}

func (r *runProcess) wait(t *testing.T, pattern string) []string {
	t.Helper()
	d := &devRun{lines: r.lines}
	return d.wait(t, pattern)
}

// end sends SIGTERM and returns the exit code.
func (r *runProcess) end(t *testing.T) int {
	t.Helper()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err := r.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0
}

// awaitVoters waits until so many nodes vote.
func awaitVoters(t *testing.T, address, tokenFile string, want int) {
	t.Helper()
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.Config{Address: address, Token: client.Secret(strings.TrimSpace(string(token)))})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		peers, err := c.Raft().Peers(t.Context())
		voters := 0
		for _, p := range peers {
			if p.Voter {
				voters++
			}
		}
		if voters == want {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%d voters, %v", voters, err)
		case <-tick.C:
		}
	}
}

// answers waits until the application answers at an address, and returns what.
func answers(t *testing.T, address, path string) string {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		answer, err := http.Get("http://" + address + path)
		if err == nil {
			data, rerr := io.ReadAll(answer.Body)
			answer.Body.Close()
			if rerr == nil && answer.StatusCode == 200 {
				return string(data)
			}
			err = fmt.Errorf("%s %s", answer.Status, data)
		}
		select {
		case <-deadline:
			t.Fatalf("no answer at %s: %v", address, err)
		case <-tick.C:
		}
	}
}

// awaitAnswer waits until the application answers what is wanted, and does what may help in between.
func awaitAnswer(t *testing.T, address, want string, help func()) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; help() {
		got := answers(t, address, "/")
		if got == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("at %s answers %q, want %q", address, got, want)
		}
	}
}

// handTo hands leadership to a node, from one that a busy machine has made active.
func handTo(t *testing.T, r *runProcess, tokenFile string) func() {
	return func() {
		t.Helper()
		token, err := os.ReadFile(tokenFile)
		if err != nil {
			t.Fatal(err)
		}
		c, err := client.New(client.Config{Address: "http://" + r.api, Token: client.Secret(strings.TrimSpace(string(token)))})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.StepDown(t.Context(), filepath.Base(r.dir), 10*time.Second); err != nil {
			t.Log(err)
		}
	}
}

// Issue 5, point 1: "locum run -- ./server on the first prints one line to run on the others; … the same line works after a restart".
func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the binary and runs three processes")
	}
	tmp, app := t.TempDir(), runAppBinary(t)
	base := freePorts(t)
	first := startRun(t, filepath.Join(tmp, "one"), "", base, "--", app)
	line := first.wait(t, `^  LOCUM_JOIN=(\S+) locum run (.*)$`)
	if got := answers(t, first.app, "/"); got != "one" {
		t.Errorf("answer %q", got)
	}
	if !strings.HasSuffix(line[2], "-- "+app) || strings.Contains(line[2], "node-name") {
		t.Errorf("the line for others: %s", line[2])
	}
	for _, name := range []string{"seal.key", "root-token"} {
		if info, err := os.Stat(filepath.Join(tmp, "one", name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
	second := startRun(t, filepath.Join(tmp, "two"), line[1], base+10, "--", app)
	third := startRun(t, filepath.Join(tmp, "three"), line[1], base+20, "--", app)
	awaitVoters(t, "http://"+first.api, filepath.Join(tmp, "one", "root-token"), 3) // until then the first one cannot be spared
	for _, r := range []*runProcess{second, third} {
		awaitAnswer(t, r.app, "one", handTo(t, first, filepath.Join(tmp, "one", "root-token")))
	}
	// Signals are the command's, and so is the exit code.
	for _, s := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGHUP, syscall.SIGQUIT} {
		if err := first.cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		if got := answers(t, second.app, "/told"); got != s.String() {
			t.Errorf("%v: %q", s, got)
		}
	}
	if code := first.end(t); code != 5 {
		t.Errorf("exit code %d, want the command's, 5", code)
	}
	after := answers(t, second.app, "/")
	if after != "two" && after != "three" {
		t.Errorf("answer %q", after)
	}
	// Its output is passed through, and the invitation, which this machine has, is kept from it.
	if next := map[string]*runProcess{"two": second, "three": third}[after]; next != nil {
		next.wait(t, `^application says hello; LOCUM_JOIN is false$`)
	}
	// The same line, and the first machine without one, after a restart.
	again := startRun(t, filepath.Join(tmp, "one"), "", base, "--", app)
	again.wait(t, `locum run -invite`)
	answers(t, again.app, "/")
	standby := second
	if after == "two" {
		standby = third
	}
	if code := standby.end(t); code != 0 {
		t.Errorf("exit code of a standby: %d", code)
	}
	dir, port := "two", base+10
	if standby == third {
		dir, port = "three", base+20
	}
	back := startRun(t, filepath.Join(tmp, dir), line[1], port, "--", app)
	if got := answers(t, back.app, "/"); got != after {
		t.Errorf("answer %q, want %q", got, after)
	}
	out, err := exec.Command(builtBinary(t), "run", "-new-invite", "-dir", filepath.Join(tmp, "one"), "-address", again.api, "--", app).CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "LOCUM_JOIN=") || strings.Contains(string(out), line[1]) {
		t.Errorf("-new-invite: %v %s", err, out)
	}
}

func TestRunRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, tc := range []struct {
		args, join, want string
	}{
		{"run", "", "no command to protect"},
		{"run ./server", "", "stands behind --"},
		{"run -dir " + dir + " -- ./server", "secret", "LOCUM_JOIN is not an invitation"},
		{"run -dir " + dir + " -storage redis://x -- ./server", "", "this kind of URL is not known"},
		{"run -dir " + dir + " -storage mysql://u:secret@x/db -- ./server", "", "mysql address=db:3306"},
		{"run -dir " + dir + " -ha-storage redis -- ./server", "", "the embedded store has its own lock"},
		{"run -dir " + dir + " -upstream 127.0.0.1:9000 -- ./server", "", "has no scheme"},
	} {
		var stderr strings.Builder
		env := func(name string) (string, bool) {
			if name == joinVariable {
				return tc.join, tc.join != ""
			}
			return "", false
		}
		a := &app{in: strings.NewReader(""), out: io.Discard, err: &stderr, env: env}
		if code := a.run(t.Context(), strings.Fields(tc.args)); code != 1 || !strings.Contains(stderr.String(), tc.want) {
			t.Errorf("%s: exit %d, %s", tc.args, code, stderr.String())
		}
	}
}

func TestRunConfig(t *testing.T) {
	f := &runFlags{address: "127.0.0.1:8400", nodeName: "n", source: config.Source{LookupEnv: func(string) (string, bool) { return "", false }}}
	f.application.health = "/${healthz}"
	dir := t.TempDir()
	r := &runner{app: &app{env: f.source.LookupEnv}, flags: f, command: []string{"./se rver", "${x}"}, dir: dir}
	r.one = f.application.application(r.command)
	if err := writeKey(r.keyFile(), seal.NewKey()); err != nil {
		t.Fatal(err)
	}
	c, err := r.config()
	if err != nil {
		t.Fatal(err)
	}
	if a := c.Applications[0]; a.Name != "se-rver" || a.Command[1] != "${x}" || a.Health.Path != "/${healthz}" || c.Storage.Type != "raft" || a.Listen[0] != "0.0.0.0:8080" {
		t.Errorf("%+v", a)
	}
	// The same through a node's file, as dev writes it.
	parsed, err := config.Parse("dev.hcl", []byte(applicationHCL(c.Applications[0])))
	if err != nil {
		t.Fatal(err)
	}
	if a := parsed.Applications[0]; a.Command[0] != "./se rver" || a.Command[1] != "${x}" || a.Health.Path != "/${healthz}" {
		t.Errorf("%+v", a)
	}
	f.storage = "postgres://locum:p%40ss@db/locum"
	if c, err = r.config(); err != nil || c.Storage.PostgreSQL.ConnectionURL.Reveal() != f.storage {
		t.Errorf("storage: %v", err)
	}
	if got := shellWords([]string{"a", "b c", "it's", ""}); got != `a 'b c' 'it'\''s' ''` {
		t.Error(got)
	}
}

// With a command behind -- the nodes of dev protect it, and each line that is printed does what it says.
func TestDevApplication(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the binary and runs three processes")
	}
	d := startDev(t, "--", runAppBinary(t))
	d.table(t)
	curl := d.wait(t, `curl -i (http://\S+)/$`)[1]
	kill := d.wait(t, `^ +(kill -9 \d+)$`)[1]
	address := strings.TrimPrefix(curl, "http://")
	before := answers(t, address, "/")
	d.shell(t, kill)
	deadline := time.Now().Add(20 * time.Second)
	for answers(t, address, "/") == before {
		if time.Now().After(deadline) {
			t.Fatalf("%s answers on", before)
		}
	}
}
