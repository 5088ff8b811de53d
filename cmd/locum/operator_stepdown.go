package main

import (
	"context"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

func (a *app) stepDownCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "step-down",
		Short:   "Let another node become active; no request fails",
		Example: "  locum operator step-down\n  locum operator step-down -to node-b -wait 30s",
		Args:    cobra.NoArgs,
	}
	to := cmd.Flags().String("to", "", "`name` of the node that should take over; else whichever the cluster chooses")
	wait := cmd.Flags().Duration("wait", 0, "how `long` to wait until the next node serves; 0: do not wait")
	_ = cmd.RegisterFlagCompletionFunc("to", a.completing(func(ctx context.Context, c *client.Client, _ string) ([]string, error) {
		nodes, err := c.Members(ctx)
		var names []string
		for _, n := range nodes {
			names = append(names, n.Hostname)
		}
		return names, err
	}, 1, 0))
	format := formatFlag(cmd)
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		start := time.Now()
		progress := a.progress()
		if *wait > 0 {
			progress("waiting for the next node to serve")
		}
		next, err := c.StepDown(cmd.Context(), *to, *wait)
		progress("")
		if err != nil {
			return err
		}
		if next == (client.NewActive{}) {
			return a.show(*format, struct{}{}, func(w io.Writer) {
				_, _ = io.WriteString(w, "The active node steps down. Who follows: locum status\n")
			})
		}
		return a.show(*format, next, func(w io.Writer) {
			pairs(w, "Active Node", next.Node, "Active Node Address", next.LeaderAddress,
				"Term", strconv.FormatUint(next.Term, 10), "Took", time.Since(start).Round(time.Millisecond).String())
		})
	})
}
