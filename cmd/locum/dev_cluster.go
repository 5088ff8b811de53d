package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/locum-ha/locum/client"
)

const (
	devStep     = 10 // ports between two nodes
	devPrefix   = "locum-dev-"
	devStartMax = 60 * time.Second
)

// devCluster is a development cluster: its directory and its nodes.
type devCluster struct {
	options   devOptions
	dir       string
	temporary bool
	unlock    func() error
	nodes     []*devNode
	token     client.Secret
	events    chan string
	spawner   *spawner
	owners    sync.WaitGroup // a goroutine for each process, and one for each watch
}

// newDevCluster makes or takes the directory and lays the nodes out.
func newDevCluster(o devOptions) (*devCluster, error) {
	switch {
	case o.nodes < 1 || o.nodes > 9:
		return nil, withHint(fmt.Errorf("%d nodes", o.nodes), "write -nodes with a number from 1 to 9")
	case o.port < 1 || o.port+devStep*(o.nodes-1)+2 > 65535:
		return nil, withHint(fmt.Errorf("port %d leaves no room for %d nodes", o.port, o.nodes), "write -port with a smaller number, such as 8400")
	}
	c := &devCluster{options: o, dir: o.dir, temporary: o.dir == "", events: make(chan string, 16)}
	var err error
	if c.temporary {
		sweep()
		c.dir, err = os.MkdirTemp("", devPrefix)
	} else if c.dir, err = filepath.Abs(o.dir); err == nil {
		err = os.MkdirAll(c.dir, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("the cluster's directory: %w", err)
	}
	if c.unlock, err = lockDir(c.dir); err != nil {
		return nil, withHint(fmt.Errorf("%s is in use by another locum dev: %w", c.dir, err), "end that one, or choose another directory with -dir")
	}
	for i := range o.nodes {
		name := "node-" + strconv.Itoa(i+1)
		at := func(offset int) string { return "127.0.0.1:" + strconv.Itoa(o.port+devStep*i+offset) }
		n := &devNode{cluster: c, name: name, dir: filepath.Join(c.dir, name), api: at(0), peer: at(1)}
		if len(o.command) > 0 {
			n.app = at(2)
		}
		c.nodes = append(c.nodes, n)
	}
	if next := filepath.Join(c.dir, "node-"+strconv.Itoa(o.nodes+1)); exists(next) {
		return nil, errors.Join(withHint(fmt.Errorf("%s exists: the cluster there has more than %d nodes", next, o.nodes),
			"write -nodes with their number, or choose another directory with -dir"), c.unlock())
	}
	return c, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// sweep removes what dev processes that were killed left behind: directories of ours that nobody has locked.
func sweep() {
	old, err := filepath.Glob(filepath.Join(os.TempDir(), devPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range old {
		if !exists(filepath.Join(dir, lockName)) {
			continue // not ours, or not there yet
		}
		if unlock, err := lockDir(dir); err == nil {
			_ = os.RemoveAll(dir) // another user's, at worst: it stays
			_ = unlock()
		}
	}
}

// remove takes a temporary directory away.
func (c *devCluster) remove() error {
	var err error
	if c.temporary {
		err = os.RemoveAll(c.dir)
	}
	return errors.Join(err, c.unlock())
}

// checkPorts names a port that is taken before anything is started.
func (c *devCluster) checkPorts() error {
	for _, n := range c.nodes {
		for what, address := range map[string]string{"API": n.api, "cluster port": n.peer, "application": n.app} {
			if address == "" {
				continue
			}
			ln, err := net.Listen("tcp", address)
			if err != nil {
				_, port, _ := net.SplitHostPort(address)
				return withHint(fmt.Errorf("port %s, for the %s of %s, cannot be used: %w", port, what, n.name, err),
					"end what uses it, or choose other ports with -port, such as -port 9400")
			}
			if err := ln.Close(); err != nil {
				return err
			}
		}
	}
	return nil
}

// write makes the seal key and the nodes' configurations.
func (c *devCluster) write() error {
	key := filepath.Join(c.dir, "seal.key")
	if !exists(key) {
		raw := make([]byte, 32)
		_, _ = rand.Read(raw) // never fails
		if err := os.WriteFile(key, []byte(hex.EncodeToString(raw)+"\n"), 0o600); err != nil {
			return err
		}
	}
	token, err := os.ReadFile(c.tokenFile())
	switch {
	case err == nil:
		c.token = client.Secret(strings.TrimSpace(string(token)))
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	for _, n := range c.nodes {
		if err := n.write(key); err != nil {
			return err
		}
	}
	return nil
}

func (c *devCluster) tokenFile() string { return filepath.Join(c.dir, "root-token") }

// start gives every node an owner that keeps its process running until ctx ends.
func (c *devCluster) start(ctx context.Context) {
	c.spawner = newSpawner()
	for _, n := range c.nodes {
		n.failed = make(chan error, 1)
		c.owners.Go(func() { n.keep(ctx) })
	}
}

// wait returns when every process has ended. The context given to start must have ended.
func (c *devCluster) wait() {
	done := make(chan struct{})
	go func() { c.owners.Wait(); close(done) }()
	for {
		select {
		case <-c.events: // nobody reads any more
		case <-done:
			c.spawner.close()
			return
		}
	}
}

// ready initialises the first node unless the directory holds a cluster already, and waits until all nodes take part.
func (c *devCluster) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, devStartMax, fmt.Errorf("not ready within %s", devStartMax))
	defer cancel()
	if c.token == "" {
		if err := c.poll(ctx, "initialising "+c.nodes[0].name, c.initialise); err != nil {
			return err
		}
	}
	return c.poll(ctx, "waiting until all nodes take part", c.complete)
}

// poll tries until it succeeds, ctx ends, or a node's process dies.
func (c *devCluster) poll(ctx context.Context, doing string, try func(context.Context) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		for _, n := range c.nodes {
			select {
			case died := <-n.failed:
				return withHint(fmt.Errorf("%s ended: %w\n%s", n.name, died, n.logTail(8)), "its whole log: "+n.log())
			default:
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w; last: %w; logs: %s", doing, context.Cause(ctx), err, filepath.Join(c.dir, "node-*", "log"))
		case <-tick.C:
		}
	}
}

// initialise makes the cluster on the first node, and keeps the token.
func (c *devCluster) initialise(ctx context.Context) error {
	first, err := c.nodes[0].client("")
	if err != nil {
		return err
	}
	defer first.Close()
	if _, err := first.SealStatus(ctx); err != nil {
		return err // not up yet
	}
	answer, err := first.Init(ctx, client.InitRequest{})
	if err != nil {
		return err
	}
	c.token = client.Secret(answer.RootToken)
	return os.WriteFile(c.tokenFile(), []byte(answer.RootToken+"\n"), 0o600)
}

// complete reports nil when one node is active, the others stand by, and all of them vote: from then on any one may die.
func (c *devCluster) complete(ctx context.Context) error {
	active := 0
	for _, n := range c.nodes {
		cl, err := n.client(c.token)
		if err != nil {
			return err
		}
		health, err := cl.Health(ctx)
		cl.Close()
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", n.name, err)
		case health.Code == 200:
			active++
		case health.Code != 429:
			return fmt.Errorf("%s is not ready (health %d)", n.name, health.Code)
		}
	}
	if active != 1 {
		return fmt.Errorf("%d nodes are active", active)
	}
	cl, err := c.nodes[0].client(c.token)
	if err != nil {
		return err
	}
	defer cl.Close()
	peers, err := cl.Raft().Peers(ctx)
	if err != nil {
		return err
	}
	voters := 0
	for _, p := range peers {
		if p.Voter {
			voters++
		}
	}
	if voters != len(c.nodes) {
		return fmt.Errorf("%d of %d nodes vote", voters, len(c.nodes))
	}
	return nil
}
