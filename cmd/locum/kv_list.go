package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

func (a *app) kvListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list [PATH]",
		Short:   "The names of entries; folders end in \"/\"",
		Example: "  locum kv list\n  locum kv list app -format=json",
		Args:    cobra.MaximumNArgs(1),
	}
	format := formatFlag(cmd)
	return a.asksEntry(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		folder := ""
		if len(args) == 1 {
			folder = folderPath(args[0])
		}
		keys, _, err := c.KV().List(cmd.Context(), folder)
		if isNotFound(err) {
			return fmt.Errorf("there is nothing under %q", folder+"/")
		}
		if err != nil {
			return err
		}
		return a.show(*format, keys, func(w io.Writer) {
			rows(w, []string{"Keys"})
			for _, key := range keys {
				fmt.Fprintln(w, key)
			}
		})
	})
}
