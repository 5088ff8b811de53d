// Package trio runs three processes of an example on this machine, for its test: the test's own binary, started again as the
// example's main. They can be killed and started anew.
package trio

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum"
)

// asMain in the environment makes the test's binary the example.
const asMain = "LOCUM_EXAMPLE_MAIN"

// Main is an example's TestMain.
func Main(m *testing.M, main func()) {
	if os.Getenv(asMain) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Process is one node.
type Process struct {
	Name   string
	Listen string // host:port for the example's clients
	API    string // host:port of Locum's own API

	t    testing.TB
	args []string
	cmd  *exec.Cmd
	log  *logger
	over chan struct{}
}

// Start starts three nodes and waits until all are ready.
func Start(t testing.TB) []*Process {
	t.Helper()
	dir := t.TempDir()
	key := locum.NewKey()
	keyFile := filepath.Join(dir, "locum.key")
	if err := os.WriteFile(keyFile, key[:], 0o600); err != nil {
		t.Fatal(err)
	}
	ports := freePorts(t, 9)
	var all []*Process
	for i := range 3 {
		p := &Process{Name: fmt.Sprint("node-", i+1), Listen: ports[3*i], API: ports[3*i+1], t: t}
		p.args = []string{
			"-name", p.Name, "-dir", filepath.Join(dir, p.Name), "-key", keyFile, "-listen", p.Listen,
			"-api", p.API, "-cluster", ports[3*i+2], "-join", "http://" + ports[1],
		}
		all = append(all, p)
		p.Start()
	}
	t.Cleanup(func() {
		for _, p := range all {
			p.Kill()
		}
	})
	for _, p := range all {
		p.Ready()
	}
	return all
}

// freePorts are free at the moment.
func freePorts(t testing.TB, n int) []string {
	t.Helper()
	var addrs []string
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		addrs = append(addrs, ln.Addr().String())
	}
	return addrs
}

// Start starts the process, anew if it was killed.
func (p *Process) Start() {
	p.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd = exec.Command(exe, p.args...)
	p.cmd.Env = append(os.Environ(), asMain+"=1")
	p.log = &logger{t: p.t, name: p.Name}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.over = make(chan struct{})
	go func(cmd *exec.Cmd, over chan struct{}) {
		_ = cmd.Wait() // killed, mostly
		close(over)
	}(p.cmd, p.over)
}

// Kill ends the process as a power cut would, and waits until it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may be gone
	<-p.over
}

// Ready waits until the node serves, and its copy of the entries counts.
func (p *Process) Ready() {
	p.t.Helper()
	Until(p.t, func() bool { return status("http://"+p.API+"/v1/sys/ready") == http.StatusOK && p.votes() })
}

// Active waits for the active node among those that run.
func Active(t testing.TB, all []*Process) *Process {
	t.Helper()
	var found *Process
	Until(t, func() bool {
		for _, p := range all {
			if status("http://"+p.API+"/v1/sys/active") == http.StatusOK {
				found = p
			}
		}
		return found != nil
	})
	return found
}

// Standby is one that is not the active node.
func Standby(t testing.TB, all []*Process) *Process {
	t.Helper()
	active := Active(t, all)
	for _, p := range all {
		if p != active {
			return p
		}
	}
	return nil
}

func status(url string) int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// votes reports whether the cluster counts on this node.
func (p *Process) votes() bool {
	resp, err := http.Get("http://" + p.API + "/v1/sys/leader")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	var leader struct {
		Voter bool `json:"raft_voter"`
	}
	return json.NewDecoder(resp.Body).Decode(&leader) == nil && leader.Voter
}

// Until waits for a condition.
func Until(t testing.TB, f func() bool) {
	t.Helper()
	tick, limit := time.NewTicker(10*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("it did not come to that within a minute")
		}
	}
}

// Send sends a request again and again until it is answered with a 2xx, as a careful client does: also after a connection that
// broke, and after an answer that says to come back. It returns how often that was.
func Send(ctx context.Context, method, url, body string, header http.Header) (tries int, err error) {
	for {
		tries++
		req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader([]byte(body)))
		if err != nil {
			return tries, err
		}
		for name := range header {
			req.Header.Set(name, header.Get(name))
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			switch {
			case resp.StatusCode/100 == 2:
				return tries, nil
			case resp.StatusCode/100 == 4:
				return tries, fmt.Errorf("%s %s: %s", method, url, resp.Status)
			}
		}
		pause := time.NewTimer(50 * time.Millisecond)
		select {
		case <-pause.C:
		case <-ctx.Done():
			return tries, errors.Join(err, context.Cause(ctx))
		}
	}
}

// logger gives a process's output to the test's log.
type logger struct {
	t    testing.TB
	name string
	mu   sync.Mutex
}

func (l *logger) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.t.Logf("%s %s", l.name, bytes.TrimRight(b, "\n"))
	return len(b), nil
}
