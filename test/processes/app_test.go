package processes

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locum-ha/locum/test/cluster"
)

const appPort = 8480

// performance makes the leases sixteen times as long as by default: other tests take the processors from these nodes for longer than a
// short lease lasts, and what is known of a death at once does not depend on it; a death that nobody tells of costs more than atOnce.
const performance = "16"

func TestMain(m *testing.M) {
	if dir := os.Getenv("PROCESSES_TEST_APP"); dir != "" {
		if err := app(dir); err != nil {
			fmt.Fprintln(os.Stderr, "application:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// boot is now on the clock that all processes of a machine share.
func boot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err)
	}
	return time.Duration(ts.Nano())
}

// app is the application: it notes in a file of its own that it runs, has a child that left session and group and hears no SIGTERM, and
// answers by HTTP.
func app(dir string) error {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP)
	node, term := os.Getenv("LOCUM_NODE"), os.Getenv("LOCUM_TERM")
	if _, err := os.Stat(filepath.Join(dir, "fail-"+node)); err == nil {
		_ = os.WriteFile(filepath.Join(dir, fmt.Sprintf("attempt-%s-%d", node, boot())), nil, 0o600)
		return errors.New("told to fail")
	}
	name := filepath.Join(dir, fmt.Sprintf("run-%s-%s-%d", node, term, boot()))
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	child := exec.Command("sh", "-c", `trap '' TERM HUP; while :; do echo child >> "`+name+`.child"; sleep 0.02; done`)
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		return err
	}
	go func() {
		for range time.Tick(2 * time.Millisecond) {
			fmt.Fprintln(f, int64(boot()))
		}
	}()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%s %s %s", node, term, os.Getenv("LOCUM_ROLE"))
	})
	mux.HandleFunc("/leader", func(w http.ResponseWriter, _ *http.Request) { // what the application asks at LOCUM_ADDR
		answer, err := http.Get(os.Getenv("LOCUM_ADDR") + "/v1/sys/leader")
		if err != nil {
			http.Error(w, err.Error(), 500)
			return
		}
		defer answer.Body.Close()
		_, _ = io.Copy(w, answer.Body)
	})
	mux.HandleFunc("/entry/", func(w http.ResponseWriter, r *http.Request) { // with LOCUM_TOKEN, in its own place or elsewhere
		q, _ := http.NewRequest(http.MethodPost, os.Getenv("LOCUM_ADDR")+"/v1/secret/data"+strings.TrimPrefix(r.URL.Path, "/entry"), strings.NewReader(`{"data":{"a":"b"}}`))
		q.Header.Set("X-Vault-Token", os.Getenv("LOCUM_TOKEN"))
		answer, err := http.DefaultClient.Do(q)
		if err != nil {
			http.Error(w, err.Error(), 500)
			return
		}
		answer.Body.Close()
		fmt.Fprint(w, answer.StatusCode)
	})
	mux.HandleFunc("/exit", func(http.ResponseWriter, *http.Request) { os.Exit(1) })
	return http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), mux)
}

// life is one instance of the application, as its own notes tell.
type life struct {
	node        string
	term        int
	began, last time.Duration
}

func lives(t *testing.T, dir string) []life {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "run-*"))
	if err != nil {
		t.Fatal(err)
	}
	var all []life
	for _, name := range files {
		if strings.HasSuffix(name, ".child") {
			continue
		}
		parts := strings.Split(filepath.Base(name), "-")
		l := life{node: parts[1]}
		l.term, _ = strconv.Atoi(parts[2])
		began, _ := strconv.ParseInt(parts[3], 10, 64)
		l.began, l.last = time.Duration(began), time.Duration(began)
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			if at, err := strconv.ParseInt(s.Text(), 10, 64); err == nil {
				l.last = max(l.last, time.Duration(at))
			}
		}
		f.Close()
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b life) int { return int(a.began - b.began) })
	return all
}

// oneAtATime is P2: "In cold standby at most one node runs the application."
func oneAtATime(t *testing.T, dir string) {
	t.Helper()
	all := lives(t, dir)
	for i := 1; i < len(all); i++ {
		if all[i-1].last > all[i].began {
			t.Errorf("two at a time for %s: %+v and %+v", all[i-1].last-all[i].began, all[i-1], all[i])
		}
	}
	if len(all) == 0 {
		t.Error("it never ran")
	}
}

// protected is a cluster whose nodes run the application; more is added to its block.
func protected(t *testing.T, more func(n *cluster.Node, dir string) string) (c *cluster.Cluster, dir string) {
	t.Helper()
	dir = t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c = cluster.New(t, cluster.Options{Performance: performance, Extra: func(n *cluster.Node) string {
		extra := ""
		if more != nil {
			extra = more(n, dir)
		}
		return fmt.Sprintf(`application "orders" {
  command      = [%q]
  environment  = { PROCESSES_TEST_APP = %q }
  listen       = %q
  stop_timeout = "300ms"
%s
}
`, exe, dir, address(n), extra)
	}})
	t.Cleanup(func() { // the guardians end what they run after the nodes were killed; the directory is removed after that
		_ = c.CloseKeep()
		var size int64
		deadline := time.Now().Add(10 * time.Second)
		for time.Now().Before(deadline) {
			now := sizes(dir)
			if now == size {
				return
			}
			size = now
			pause(100 * time.Millisecond)
		}
	})
	return c, dir
}

func sizes(dir string) (sum int64) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			sum += info.Size()
		}
	}
	return sum
}

func pause(d time.Duration) { <-time.After(d) }

func address(n *cluster.Node) string { return net.JoinHostPort(n.IP, strconv.Itoa(appPort)) }

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}

// ask sends one request to the application through a node, and never a second.
func ask(n *cluster.Node, path string) (string, error) {
	answer, err := client.Get("http://" + address(n) + path)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, data)
	}
	return string(data), err
}

// await waits until the application answers through the node as from this one.
func await(t *testing.T, through, from *cluster.Node) {
	t.Helper()
	err := cluster.Poll(within(t, 20*time.Second), "the application answers from "+from.Name, func() error {
		got, err := ask(through, "/")
		if err == nil && !strings.HasPrefix(got, from.Name+" ") {
			err = fmt.Errorf("answer %q", got)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func active(t *testing.T, c *cluster.Cluster, except ...*cluster.Node) *cluster.Node {
	t.Helper()
	n, err := c.WaitActive(within(t, 30*time.Second), except...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// other is a node that is none of these.
func other(c *cluster.Cluster, not ...*cluster.Node) *cluster.Node {
	for _, n := range c.Nodes {
		if !slices.Contains(not, n) && n.Running() {
			return n
		}
	}
	return nil
}

// guardianOf is the process between the node and its application.
func guardianOf(t *testing.T, n *cluster.Node) int {
	t.Helper()
	pid := n.Process().Pid()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		if err != nil {
			continue
		}
		for _, child := range strings.Fields(string(data)) {
			line, _ := os.ReadFile("/proc/" + child + "/cmdline")
			if string(line) == "locum\x00guardian\x00" {
				n, _ := strconv.Atoi(child)
				return n
			}
		}
	}
	t.Fatalf("%s has no guardian", n.Name)
	return 0
}
