package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Node is one node of a Cluster: a directory, addresses, and, while it runs, a process.
type Node struct {
	Index int    // its place in Cluster.Nodes, from 0
	Name  string // node_name: "n1", …
	IP    string // the address of both listeners
	Dir   string // configuration, data/, log

	// Version is of which its next start's program is, as BinaryOf has it.
	Version string

	process *Process
	prefix  []string // what runs the command: ip netns exec NAME, or nothing
}

// The ports are the same on every node; the addresses differ.
const (
	apiPort     = 8400
	clusterPort = 8401
)

// Address is where its API listens: host:port.
func (n *Node) Address() string { return fmt.Sprintf("%s:%d", n.IP, apiPort) }

// URL is its API's address.
func (n *Node) URL() string { return "http://" + n.Address() }

// ClusterAddress is where its cluster port listens: host:port.
func (n *Node) ClusterAddress() string { return fmt.Sprintf("%s:%d", n.IP, clusterPort) }

// LogPath is the file with everything that it printed, over all its starts.
func (n *Node) LogPath() string { return filepath.Join(n.Dir, "log") }

// DataDir is the raft storage's path.
func (n *Node) DataDir() string { return filepath.Join(n.Dir, "data") }

// Process returns the process of the last start, nil before the first.
func (n *Node) Process() *Process { return n.process }

// Running reports whether its process exists, frozen or not.
func (n *Node) Running() bool { return n.process != nil && n.process.Running() }

// Start starts it, the first time or again, without waiting until it serves.
func (n *Node) Start() error {
	if n.Running() {
		return fmt.Errorf("%s runs already", n.Name)
	}
	binary, err := BinaryOf(n.Version)
	if err != nil {
		return err
	}
	argv := append(append([]string{}, n.prefix...), binary, "server", "-config", filepath.Join(n.Dir, "locum.hcl"))
	n.process, err = StartProcess(n.LogPath(), []string{"LOCUM_API_ADDR=", "LOCUM_CLUSTER_ADDR="}, argv[0], argv[1:]...)
	return err
}

// Kill is a crash: SIGKILL, and it returns when the process is gone.
func (n *Node) Kill() { n.process.Kill() }

// Stop is a planned end: SIGTERM. It returns an error if the exit code is not 0 or the limit is passed.
func (n *Node) Stop(limit time.Duration) error { return n.process.Stop(limit) }

// Freeze is a pause of the process (SIGSTOP); it returns when the kernel has stopped it.
func (n *Node) Freeze() error {
	if err := n.process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return Poll(ctx, n.Name+" is frozen", func() error {
		if state := n.process.state(); state != 'T' {
			return fmt.Errorf("its state is %q", state)
		}
		return nil
	})
}

// Wake ends a pause (SIGCONT).
func (n *Node) Wake() error { return n.process.Signal(syscall.SIGCONT) }

// Empty removes its data, as when a disk was replaced. The node must not run.
func (n *Node) Empty() error {
	if n.Running() {
		return fmt.Errorf("%s runs: its directory cannot be emptied", n.Name)
	}
	return os.RemoveAll(n.DataDir())
}

// LogTail returns the last lines of its log.
func (n *Node) LogTail(lines int) string {
	data, err := os.ReadFile(n.LogPath())
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// broke returns the first line of its log that no node may ever print, and some lines after it; "" for none.
func (n *Node) broke() string {
	data, err := os.ReadFile(n.LogPath())
	if err != nil {
		return ""
	}
	for _, sign := range []string{"panic: ", "fatal error: ", "WARNING: DATA RACE", "panic serving"} {
		if at := strings.Index(string(data), sign); at >= 0 {
			return string(data[at:min(len(data), at+3000)])
		}
	}
	return ""
}
