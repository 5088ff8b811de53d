package main

import (
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

func (a *app) membersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "members",
		Short:   "The nodes, and why each is not active",
		Example: "  locum operator members\n  locum operator members -format=json",
		Args:    cobra.NoArgs,
	}
	format := formatFlag(cmd)
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		nodes, err := c.Members(cmd.Context())
		if err != nil {
			return err
		}
		return a.show(*format, map[string]any{"nodes": nodes}, func(w io.Writer) {
			var lines [][]string
			for _, n := range nodes {
				echo := "-"
				if n.LastEcho != nil {
					echo = time.Since(*n.LastEcho).Round(time.Second).String() + " ago"
				}
				lines = append(lines, []string{n.Hostname, n.APIAddress, n.ClusterAddr, strconv.FormatBool(n.ActiveNode),
					strconv.FormatUint(n.Term, 10), strconv.Itoa(n.Priority), n.Version, echo, n.Reason})
			}
			rows(w, []string{"Node", "API Address", "Cluster Address", "Active", "Term", "Priority", "Version", "Last Echo", "Not Active Because"}, lines...)
		})
	})
}
