package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

func (a *app) kvDeleteCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "delete PATH",
		Short:   "Delete versions of an entry",
		Long:    `Deletes the newest version of an entry, or those named. It says nothing about an entry that is not there.`,
		Example: "  locum kv delete app/db\n  locum kv delete -versions 1,2 app/db",
		Args:    cobra.ExactArgs(1),
	}
	list := cmd.Flags().StringSlice("versions", nil, "`numbers` of the versions, with commas between")
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		var versions []uint64
		for _, text := range *list {
			n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
			if err != nil || n == 0 {
				return fmt.Errorf("%q is not the number of a version", text)
			}
			versions = append(versions, n)
		}
		if _, err := c.KV().Delete(cmd.Context(), entryPath(args[0]), versions...); err != nil {
			return err
		}
		a.say("Deleted, if it was there: %s", args[0])
		return nil
	})
}

func isNotFound(err error) bool { return errors.Is(err, client.ErrNotFound) }
