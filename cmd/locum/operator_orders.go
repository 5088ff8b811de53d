package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

func (a *app) pauseCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pause",
		Short: "Suspend automatic failover",
		Long: "Suspends automatic failover, for planned work on machines or networks: while the cluster is paused no other node takes over from the active " +
			"one, whatever happens to it, but in a step-down. A node that was active and comes back is active again. The pause outlives every restart; it ends with locum operator resume.",
		Example: "  locum operator pause\n  locum operator resume",
		Args:    cobra.NoArgs,
	}
	return a.ordering(cmd, func(ctx context.Context, c *client.Client, _ []string) (client.Ordered, error) { return c.Pause(ctx) })
}

func (a *app) resumeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "resume",
		Short: "End a pause of automatic failover",
		Long: "Ends a pause of automatic failover. While no node is active nobody can tell all of them: then the node asked (-address) takes part again, " +
			"and ends the pause for all once it is active.",
		Example: "  locum operator resume",
		Args:    cobra.NoArgs,
	}
	return a.ordering(cmd, func(ctx context.Context, c *client.Client, _ []string) (client.Ordered, error) { return c.Resume(ctx) })
}

func (a *app) maintenanceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "maintenance [-off] NODE",
		Short: "Take one node out of service",
		Long: "Takes a node out of service for work on it: it is no candidate any more, hands over if it is active, and says 503 on /v1/sys/ready, so that load " +
			"balancers leave it alone; what still reaches it is forwarded. That outlives its restarts, until -off.",
		Example: "  locum operator maintenance node-b\n  locum operator maintenance -off node-b",
		Args:    cobra.ExactArgs(1),
	}
	off := cmd.Flags().Bool("off", false, "put the node back into service")
	force := cmd.Flags().Bool("force", false, "also if no other node could be active then")
	cmd.ValidArgsFunction = a.completing(func(ctx context.Context, c *client.Client, _ string) ([]string, error) {
		nodes, err := c.Members(ctx)
		var names []string
		for _, n := range nodes {
			names = append(names, n.Hostname)
		}
		return names, err
	}, 1, 0)
	return a.ordering(cmd, func(ctx context.Context, c *client.Client, args []string) (client.Ordered, error) {
		return c.Maintenance(ctx, args[0], !*off, *force)
	})
}

// ordering is a command that changes what is ordered, and shows what is in force then.
func (a *app) ordering(cmd *cobra.Command, do func(ctx context.Context, c *client.Client, args []string) (client.Ordered, error)) *cobra.Command {
	format := formatFlag(cmd)
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		progress := a.progress()
		progress("waiting for every node to confirm")
		done, err := do(cmd.Context(), c, args)
		progress("")
		if err != nil {
			return err
		}
		return a.show(*format, done, func(w io.Writer) { showOrdered(w, done) })
	})
}

func showOrdered(w io.Writer, o client.Ordered) {
	failover, maintenance, confirmed := "automatic", "none", "all connected nodes"
	if o.Paused {
		failover = "paused: locum operator resume ends that"
	}
	if len(o.Maintenance) > 0 {
		maintenance = strings.Join(o.Maintenance, ", ")
	}
	if len(o.Unconfirmed) > 0 {
		confirmed = "all but " + strings.Join(o.Unconfirmed, ", ") + ", which will be told as soon as they answer"
	}
	pairs(w, "Failover", failover, "In Maintenance", maintenance, "Confirmed By", confirmed)
	if o.HandsOver {
		fmt.Fprintln(w, "The active node hands over. Who follows: locum status")
	}
}
