package main

import (
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

func (a *app) historyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "history",
		Short:   "The last leaderships: who, when, and why they ended",
		Example: "  locum operator history",
		Args:    cobra.NoArgs,
	}
	format := formatFlag(cmd)
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		leaderships, err := c.History(cmd.Context())
		if err != nil {
			return err
		}
		return a.show(*format, map[string]any{"leaderships": leaderships}, func(w io.Writer) {
			var lines [][]string
			for _, l := range leaderships {
				to, lasted := "", time.Since(l.From)
				if l.To != nil {
					to, lasted = l.To.Format(time.RFC3339), l.To.Sub(l.From)
				}
				lines = append(lines, []string{strconv.FormatUint(l.Term, 10), l.Node, l.From.Format(time.RFC3339), to,
					lasted.Round(time.Second).String(), l.Reason})
			}
			rows(w, []string{"Term", "Node", "From", "To", "Lasted", "Why It Ended"}, lines...)
		})
	})
}
