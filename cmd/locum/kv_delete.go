package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

func (a *app) kvDeleteCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete PATH",
		Short: "Delete versions of an entry",
		Long: `Deletes the newest version of an entry, or those named. Deleted versions can be undeleted until they are destroyed. It
says nothing about an entry that is not there.`,
		Example: "  locum kv delete app/db\n  locum kv delete -versions 1,2 app/db",
		Args:    cobra.ExactArgs(1),
	}
	versions := versionsFlag(cmd)
	return a.asksEntry(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		list, err := versions()
		if err != nil {
			return err
		}
		if _, err := c.KV().Delete(cmd.Context(), entryPath(args[0]), list...); err != nil {
			return err
		}
		a.say("Deleted, if it was there: %s", args[0])
		return nil
	})
}

func (a *app) kvUndeleteCommand() *cobra.Command {
	return a.marking(&cobra.Command{
		Use:     "undelete -versions N PATH",
		Short:   "Take the deletion of versions back",
		Example: "  locum kv undelete -versions 2 app/db",
	}, "No longer deleted", func(kv client.KV) func(context.Context, string, ...uint64) (client.Meta, error) { return kv.Undelete })
}

func (a *app) kvDestroyCommand() *cobra.Command {
	return a.marking(&cobra.Command{
		Use:     "destroy -versions N PATH",
		Short:   "Remove the data of versions for good",
		Example: "  locum kv destroy -versions 1,2 app/db",
	}, "Destroyed", func(kv client.KV) func(context.Context, string, ...uint64) (client.Meta, error) { return kv.Destroy })
}

// marking makes a command that does something to versions that must be named.
func (a *app) marking(cmd *cobra.Command, done string, mark func(client.KV) func(context.Context, string, ...uint64) (client.Meta, error)) *cobra.Command {
	cmd.Args = cobra.ExactArgs(1)
	versions := versionsFlag(cmd)
	return a.asksEntry(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		list, err := versions()
		if err == nil && len(list) == 0 {
			err = withHint(errors.New("no versions"), "name them: -versions 1,2; which there are: locum kv metadata get "+args[0])
		}
		if err != nil {
			return err
		}
		if _, err := mark(c.KV())(cmd.Context(), entryPath(args[0]), list...); err != nil {
			return missingEntry(err, args[0])
		}
		a.say("%s, if it was there: %s", done, args[0])
		return nil
	})
}

func isNotFound(err error) bool { return errors.Is(err, client.ErrNotFound) }
