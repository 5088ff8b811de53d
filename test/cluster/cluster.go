package cluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Options say which cluster to start. The zero value is three nodes on loopback with the default timing.
type Options struct {
	Nodes       int                  // default 3
	Dir         string               // where everything lies; default a new temporary directory
	Network     *Network             // nil: loopback
	Performance string               // storage "raft" performance
	LogLevel    string               // log_level
	Version     string               // of every node's program at first: see BinaryOf
	Extra       func(n *Node) string // more configuration, appended

	// Storage is the configuration's storage block, and ha_storage where there is one, for nodes that share a data
	// store. nil: raft.
	Storage func(n *Node) string
	// Advertise is the host:port under which the others reach a node's cluster port, a proxy before it say. nil: its own.
	Advertise func(n *Node) string
}

// Cluster is a set of nodes. Its methods may be called from several goroutines, but one node's Start, Kill,
// Stop and Empty by one at a time.
type Cluster struct {
	Nodes []*Node
	Token string // the root token made at init

	options Options
	dir     string
	ownDir  bool
	sealKey string
	base    [2]byte // of 127.a.b.0

	closing sync.Once
}

// Start starts a cluster, initialises it and waits until every node serves. Close ends it.
func Start(ctx context.Context, options Options) (*Cluster, error) {
	c, err := Prepare(options)
	if err != nil {
		return nil, err
	}
	if err := c.begin(ctx); err != nil {
		return nil, errors.Join(err, fmt.Errorf("logs are in %s\n%s", c.dir, c.Tails(15)), c.CloseKeep())
	}
	return c, nil
}

// Prepare makes the directories and configurations of a cluster and starts nothing.
func Prepare(options Options) (*Cluster, error) {
	if options.Nodes == 0 {
		options.Nodes = 3
	}
	c := &Cluster{options: options, dir: options.Dir}
	if c.dir == "" {
		dir, err := os.MkdirTemp("", "locum-cluster-")
		if err != nil {
			return nil, err
		}
		c.dir, c.ownDir = dir, true
	}
	c.sealKey = NewSealKey()
	_, _ = rand.Read(c.base[:])
	c.base[0] = 1 + c.base[0]%250 // not 127.0.x.y, where others listen
	for range options.Nodes {
		c.place()
	}
	for _, n := range c.Nodes {
		if err := c.writeConfig(n, c.sealKey); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// NewSealKey returns a fresh key for seal "static".
func NewSealKey() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	return hex.EncodeToString(key)
}

// place appends a node that is not configured yet.
func (c *Cluster) place() *Node {
	i := len(c.Nodes)
	n := &Node{Index: i, Name: fmt.Sprintf("n%d", i+1), Dir: filepath.Join(c.dir, fmt.Sprintf("n%d", i+1)), Version: c.options.Version}
	if c.options.Network != nil {
		n.IP, n.prefix = c.options.Network.IP(i), c.options.Network.exec(i)
	} else {
		n.IP = fmt.Sprintf("127.%d.%d.%d", c.base[0], c.base[1], i+1)
	}
	c.Nodes = append(c.Nodes, n)
	return n
}

// Add configures one more node, which joins through the others once it is started. An empty sealKey is the
// cluster's own.
func (c *Cluster) Add(sealKey string) (*Node, error) {
	if sealKey == "" {
		sealKey = c.sealKey
	}
	n := c.place()
	return n, c.writeConfig(n, sealKey)
}

// Move gives a node that does not run another address, as when a machine gets a new one. Loopback only.
func (c *Cluster) Move(n *Node) error {
	if n.Running() || c.options.Network != nil {
		return fmt.Errorf("%s cannot be moved", n.Name)
	}
	n.IP = fmt.Sprintf("127.%d.%d.%d", c.base[0], c.base[1], 100+n.Index)
	return c.writeConfig(n, c.sealKey)
}

func (c *Cluster) begin(ctx context.Context) error {
	// The others start when there is a cluster to join: before, they would try again every few seconds.
	for i, n := range c.Nodes {
		if err := n.Start(); err != nil {
			return err
		}
		if i == 0 && c.options.Storage == nil {
			if err := c.initialise(ctx, n); err != nil {
				return err
			}
		}
	}
	if c.options.Storage != nil { // all wait for it
		if err := c.initialise(ctx, c.Nodes[len(c.Nodes)-1]); err != nil {
			return err
		}
	}
	if err := c.WaitHealthy(ctx); err != nil || c.options.Storage != nil {
		return err
	}
	return c.WaitVoters(ctx, len(c.Nodes))
}

// Tails returns the last lines of every node's log, for a failure's message.
func (c *Cluster) Tails(lines int) string {
	out := ""
	for _, n := range c.Nodes {
		out += fmt.Sprintf("--- %s %s\n%s\n", n.Name, n.LogPath(), n.LogTail(lines))
	}
	return out
}

// Dir is where configurations, data and logs lie.
func (c *Cluster) Dir() string { return c.dir }

// Close ends every node at once and removes what Start made.
func (c *Cluster) Close() error {
	err := c.CloseKeep()
	if c.ownDir {
		err = errors.Join(err, os.RemoveAll(c.dir))
	}
	return err
}

// CloseKeep ends every node at once and leaves the directory.
func (c *Cluster) CloseKeep() error {
	c.closing.Do(func() {
		for _, n := range c.Nodes {
			if n.Running() {
				n.Kill()
			}
		}
	})
	return nil
}

// StopAll ends every running node as planned, all at the same time.
func (c *Cluster) StopAll(limit time.Duration) error {
	var wait sync.WaitGroup
	errs := make([]error, len(c.Nodes))
	for i, n := range c.Nodes {
		if n.Running() {
			wait.Go(func() { errs[i] = n.Stop(limit) })
		}
	}
	wait.Wait()
	return errors.Join(errs...)
}
