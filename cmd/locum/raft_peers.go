package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

func (a *app) listPeersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list-peers",
		Short:   "The servers of the embedded store",
		Example: "  locum operator raft list-peers",
		Args:    cobra.NoArgs,
	}
	format := formatFlag(cmd)
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		peers, err := c.Raft().Peers(cmd.Context())
		if err != nil {
			return err
		}
		body := map[string]any{"data": map[string]any{"config": map[string]any{"servers": peers}}}
		return a.show(*format, body, func(w io.Writer) {
			var lines [][]string
			for _, p := range peers {
				state, voter := "follower", "true"
				if p.Leader {
					state = "leader"
				}
				if !p.Voter {
					voter = "false"
				}
				lines = append(lines, []string{p.NodeID, p.Name, p.Address, state, voter})
			}
			rows(w, []string{"Node ID", "Name", "Address", "State", "Voter"}, lines...)
		})
	})
}

func (a *app) removePeerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "remove-peer ID",
		Short:   "Take a server out of the embedded store for good",
		Example: "  locum operator raft list-peers\n  locum operator raft remove-peer 5b1f0c1e-1111-4222-8333-444455556666",
		Args:    cobra.ExactArgs(1),
	}
	cmd.ValidArgsFunction = a.completing(func(ctx context.Context, c *client.Client, _ string) ([]string, error) {
		peers, err := c.Raft().Peers(ctx)
		var ids []string
		for _, p := range peers {
			ids = append(ids, cobra.CompletionWithDesc(p.NodeID, p.Name))
		}
		return ids, err
	}, 1, 0)
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		if err := c.Raft().RemovePeer(cmd.Context(), args[0]); err != nil {
			return err
		}
		a.say("Server %s is removed.", args[0])
		return nil
	})
}
