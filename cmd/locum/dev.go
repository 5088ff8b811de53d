package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// devOptions are the flags of dev.
type devOptions struct {
	nodes int
	dir   string
	port  int

	application applicationFlags
	command     []string
}

func (a *app) devCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dev [-- COMMAND…]",
		Short: "A whole cluster on this machine, nothing to configure",
		Long: `Starts a cluster of real processes on this machine, initialises and unseals it, says what there is and what to try, and
then follows it: a line whenever leadership changes, with how long nobody led. A node that dies is started again after a
few seconds. Ctrl-C ends all of it and leaves nothing behind, unless -dir is given: then the data is kept there, and the
next start with the same -dir goes on with it.

With a command behind --, all nodes protect it: it runs on the active one, told in PORT where to listen, and on whichever node its
clients come, they reach it.

Node i (1, 2, …) serves its API on port + 10·(i−1), its cluster port is the next one, and the application's the one after that:
8400, 8401 and 8402, 8410, 8411 and 8412, …
All of it listens on 127.0.0.1 only, in plain HTTP; the key that unseals the nodes lies beside their data. It is for
trying out and for tests, not for secrets.`,
		Example: "  locum dev\n  locum dev -- ./server\n  locum dev -nodes 5 -port 9400\n  locum dev -dir ~/locum-dev",
	}
	var o devOptions
	o.application.bind(cmd)
	cmd.Flags().IntVar(&o.nodes, "nodes", 3, "`number` of nodes, 1 to 9")
	cmd.Flags().StringVar(&o.dir, "dir", "", "`directory` to keep the data in; else a temporary one that is removed at the end")
	cmd.Flags().IntVar(&o.port, "port", 8400, "first `port`")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if o.command, err = commandAfterDashes(cmd, args); err != nil {
			return err
		}
		return a.dev(cmd.Context(), o)
	}
	return cmd
}

// errAsked: the user ended the cluster.
var errAsked = errors.New("ended as asked")

// dev is the whole life of a development cluster.
func (a *app) dev(ctx context.Context, o devOptions) (err error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	caught := make(chan os.Signal, 4)
	signal.Notify(caught, syscall.SIGINT, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // as it is under nohup
		signal.Notify(caught, syscall.SIGHUP)
	}
	defer signal.Stop(caught)
	go func() {
		select {
		case <-caught:
			end(errAsked)
		case <-ctx.Done():
		}
	}()

	c, err := newDevCluster(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.remove()) }()
	if err := c.checkPorts(); err != nil {
		return err
	}
	if err := c.write(); err != nil {
		return err
	}
	a.say("Starting %d nodes in %s …", len(c.nodes), c.dir)
	c.start(ctx)
	defer c.wait()     // after end: each node's owner ends its process
	defer end(errGone) // whatever the reason, the nodes end first
	if err := c.ready(ctx); err != nil {
		return unlessAsked(ctx, err)
	}
	a.introduce(c)
	err = a.follow(ctx, c)
	if errors.Is(context.Cause(ctx), errAsked) {
		a.say("\nEnding %d nodes …", len(c.nodes))
	}
	return unlessAsked(ctx, err)
}

var errGone = errors.New("the development cluster is over")

// unlessAsked drops an error that is only the consequence of the user's wish to end.
func unlessAsked(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errAsked) {
		return nil
	}
	return err
}

// follow prints what happens until ctx ends.
func (a *app) follow(ctx context.Context, c *devCluster) error {
	seen := make(chan sight)
	for _, n := range c.nodes {
		c.owners.Go(func() { n.watch(ctx, seen) })
	}
	t := &tracker{}
	line := func(text string) {
		if text != "" {
			a.say("%s  %s", time.Now().Format("15:04:05"), text)
		}
	}
	orphaned := orphanWatch()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-seen:
			line(t.see(s))
		case e := <-c.events:
			line(e)
		case now := <-tick.C:
			line(t.silence(now))
			if orphaned() {
				return fmt.Errorf("%q, which started this, has ended", "go run")
			}
		}
	}
}
