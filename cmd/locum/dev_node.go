package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/locum-ha/locum/client"
	"github.com/locum-ha/locum/internal/config"
)

const (
	devRestart = 3 * time.Second // after a node died
	devPatient = 8 * time.Second // that a node gets to end by itself
	devWatch   = 50 * time.Millisecond
	devTimeout = 300 * time.Millisecond // for one look at a node
)

// devNode is one node of a development cluster.
type devNode struct {
	cluster   *devCluster
	name, dir string
	api, peer string // host:port
	app       string // of the application; "" without one
	pid       atomic.Int64
	failed    chan error // the first unexpected end of its process
}

func (n *devNode) url() string { return "http://" + n.api }
func (n *devNode) log() string { return filepath.Join(n.dir, "log") }

// write makes the node's configuration.
func (n *devNode) write(sealKey string) error {
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by \"locum dev\" at every start.\ncluster_name = \"dev\"\nnode_name    = %q\napi_addr     = %q\ncluster_addr = %q\n\n",
		n.name, n.url(), "https://"+n.peer)
	fmt.Fprintf(&b, "listener \"tcp\" {\n  address         = %q\n  cluster_address = %q\n  tls_disable     = true\n}\n\n", n.api, n.peer)
	fmt.Fprintf(&b, "storage \"raft\" {\n  path = %q\n", filepath.Join(n.dir, "raft"))
	if n != n.cluster.nodes[0] { // the first one is initialised, the others join
		for _, other := range n.cluster.nodes {
			if other != n {
				fmt.Fprintf(&b, "  retry_join {\n    leader_api_addr = %q\n  }\n", other.url())
			}
		}
	}
	fmt.Fprintf(&b, "}\n\nseal \"static\" {\n  key_file = %q\n}\n\ntelemetry {\n  unauthenticated_metrics_access = true\n}\n", sealKey)
	if n.app != "" {
		app := n.cluster.options.application.application(n.cluster.options.command)
		app.Listen = config.OneOrMore{n.app}
		b.WriteString(applicationHCL(app))
	}
	return os.WriteFile(n.config(), []byte(b.String()), 0o600)
}

func (n *devNode) config() string { return filepath.Join(n.dir, "locum.hcl") }

func (n *devNode) client(token client.Secret) (*client.Client, error) {
	return client.New(client.Config{Address: n.url(), Token: token, Attempts: 1, Timeout: 5 * time.Second})
}

// keep runs the node's process, again and again, until ctx ends.
func (n *devNode) keep(ctx context.Context) {
	for {
		err := n.runOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		select {
		case n.failed <- err:
		default:
		}
		n.tell(ctx, fmt.Sprintf("%s (pid %d) ended: %v; it starts again in %s", n.name, n.pid.Load(), err, devRestart))
		select {
		case <-ctx.Done():
			return
		case <-time.After(devRestart):
		}
	}
}

func (n *devNode) tell(ctx context.Context, text string) {
	select {
	case n.cluster.events <- text:
	case <-ctx.Done():
	}
}

// runOnce is one life of the process. It returns when the process is gone.
func (n *devNode) runOnce(ctx context.Context) error {
	log, err := os.OpenFile(n.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(exe, "server", "-config", n.config())
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "LOCUM_API_ADDR=", "VAULT_API_ADDR=", "LOCUM_CLUSTER_ADDR=", "VAULT_CLUSTER_ADDR=",
		"LOCUM_CLUSTER_ADVERTISE_ADDR=", "NOTIFY_SOCKET=")
	cmd.SysProcAttr = childAttr()
	if err := n.cluster.spawner.start(cmd); err != nil {
		return err
	}
	again := n.pid.Swap(int64(cmd.Process.Pid)) != 0
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	if again {
		n.tell(ctx, fmt.Sprintf("%s runs again (pid %d)", n.name, cmd.Process.Pid))
	}
	select {
	case err := <-exited:
		if err == nil {
			err = errors.New("exit code 0")
		}
		return err
	case <-ctx.Done():
		n.end(cmd.Process, exited)
		return nil
	}
}

// end ends the process. What a temporary directory holds is thrown away, so nothing is waited for there; a frozen process is
// woken, so that it hears the signal.
func (n *devNode) end(p *os.Process, exited <-chan error) {
	if n.cluster.temporary {
		_ = p.Kill() // an error says that it has ended already
		<-exited
		return
	}
	for _, limit := range []time.Duration{devPatient, devPatient / 4} { // the second signal skips the drain
		_ = p.Signal(syscall.SIGTERM)
		_ = p.Signal(syscall.SIGCONT)
		select {
		case <-exited:
			return
		case <-time.After(limit):
		}
	}
	_ = p.Kill()
	<-exited
}

// logTail returns the last lines of the node's log.
func (n *devNode) logTail(lines int) string {
	data, err := os.ReadFile(n.log())
	if err != nil {
		return err.Error()
	}
	all := bytes.Split(bytes.TrimRight(data, "\n"), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

// watch looks at the node until ctx ends, and tells what it sees of its own leadership.
func (n *devNode) watch(ctx context.Context, seen chan<- sight) {
	c, err := client.New(client.Config{Address: n.url(), Attempts: 1, Timeout: devTimeout})
	if err != nil {
		return // the address is our own
	}
	defer c.Close()
	tick := time.NewTicker(devWatch)
	defer tick.Stop()
	for {
		leader, err := c.Leader(ctx)
		if err == nil && leader.IsSelf {
			select {
			case seen <- sight{at: time.Now(), node: n.name, pid: n.pid.Load(), term: leader.Term}:
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sight is a node that says of itself that it is active.
type sight struct {
	at   time.Time
	node string
	pid  int64
	term uint64
}

// tracker makes lines of what is seen.
type tracker struct {
	last  sight
	quiet bool // that nobody leads has been said
}

// see takes one sight and returns a line if leadership changed.
func (t *tracker) see(s sight) string {
	before := t.last
	switch {
	case s.term < before.term:
		return "" // seen before it was deposed, told after
	case s.term == before.term:
		t.last.at = s.at
		t.quiet = false
		return ""
	}
	t.last, t.quiet = s, false
	if before.term == 0 {
		return fmt.Sprintf("%s leads in term %d (pid %d)", s.node, s.term, s.pid)
	}
	return fmt.Sprintf("%s leads in term %d (pid %d), after %s; nobody led for %s", s.node, s.term, s.pid, before.node,
		s.at.Sub(before.at).Round(10*time.Millisecond))
}

// silence returns a line, once, when nobody has led for five seconds.
func (t *tracker) silence(now time.Time) string {
	if t.last.term == 0 || t.quiet || now.Sub(t.last.at) < 5*time.Second {
		return ""
	}
	t.quiet = true
	return fmt.Sprintf("nobody has led since %s (%s, term %d)", t.last.at.Format("15:04:05"), t.last.node, t.last.term)
}
