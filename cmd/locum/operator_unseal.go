package main

import (
	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

func (a *app) unsealCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "unseal [KEY]",
		Short: "Give a node one share of the root key",
		Long: `Gives the node that is asked one share of the root key. As many shares as the threshold says open it.

The key is asked for without echo, or read from stdin. As an argument it would stand in the shell's history and in
the list of processes: it is taken, with a warning.`,
		Example: "  locum operator unseal\n  locum operator unseal -address https://b.example.com:8400 < share.txt\n  locum operator unseal -reset",
		Args:    cobra.MaximumNArgs(1),
	}
	reset := cmd.Flags().Bool("reset", false, "forget the shares given so far")
	format := formatFlag(cmd)
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		var status client.SealStatus
		var err error
		if *reset {
			status, err = c.ResetUnseal(cmd.Context())
		} else {
			var share client.Secret
			if len(args) == 1 {
				a.warn("other users of this machine can see a key in the arguments; prefer the prompt, or stdin")
				share, err = nonEmpty("unseal key", args[0])
			} else {
				share, err = a.secret("unseal key")
			}
			if err != nil {
				return err
			}
			status, err = c.Unseal(cmd.Context(), share)
		}
		if err != nil {
			return err
		}
		return a.show(*format, status, nodeStatus{SealStatus: status}.table)
	})
}
