package main

import (
	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

func (a *app) sealCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "seal",
		Short: "Seal the active node: it forgets its keys",
		Long: `Seals the active node: it gives up its leadership, another node takes over, and it forgets its keys. It takes part
again when it is unsealed.`,
		Example: "  locum operator seal",
		Args:    cobra.NoArgs,
	}
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		if err := c.Seal(cmd.Context()); err != nil {
			return err
		}
		a.say("The node is sealed.")
		return nil
	})
}
