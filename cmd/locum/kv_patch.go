package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

func (a *app) kvPatchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "patch PATH [KEY=VALUE…]",
		Short: "Change some keys of an entry, as a new version",
		Long: `Writes a new version that is the newest one with changes: the keys that are given replace those of their name, the rest
stays. Values are given as with "locum kv put"; in a JSON object null removes a key, too.`,
		Example: "  locum kv patch app/db password=@password.txt\n  locum kv patch -remove-data old -cas 3 app/db user=orders",
		Args:    cobra.MinimumNArgs(1),
	}
	cas := casFlag(cmd)
	remove := cmd.Flags().StringArray("remove-data", nil, "`key` to remove; may be repeated")
	format := formatFlag(cmd)
	return a.asksEntry(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		want, err := cas()
		if err != nil {
			return err
		}
		data, err := a.readData(args[1:])
		if err != nil {
			return err
		}
		for _, key := range *remove {
			data[key] = nil
		}
		if len(data) == 0 {
			return withHint(errors.New("nothing to change"), "write KEY=VALUE, or -remove-data KEY")
		}
		v, meta, err := c.KV().Patch(cmd.Context(), entryPath(args[0]), data, want)
		if err != nil {
			return missingEntry(err, args[0])
		}
		return a.showVersion(*format, v, meta)
	})
}

// missingEntry says which entry is not there.
func missingEntry(err error, path string) error {
	if isNotFound(err) {
		return fmt.Errorf("there is no entry %s", path)
	}
	return err
}

func (a *app) kvRollbackCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "rollback -version N PATH",
		Short:   "Make an old version the newest one",
		Long:    `Writes the data of an old version as a new one. If somebody else writes the entry in between, nothing is written.`,
		Example: "  locum kv rollback -version 2 app/db",
		Args:    cobra.ExactArgs(1),
	}
	number := cmd.Flags().Uint64("version", 0, "`number` of the version to go back to")
	format := formatFlag(cmd)
	return a.asksEntry(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		if *number == 0 {
			return withHint(errors.New("no version"), "name it: -version N; which there are: locum kv metadata get "+args[0])
		}
		path := entryPath(args[0])
		current, _, err := c.KV().Metadata(cmd.Context(), path)
		if err != nil {
			return missingEntry(err, args[0])
		}
		old, _, err := c.KV().Get(cmd.Context(), path, *number)
		if isNotFound(err) && old.Metadata.Version == 0 {
			return fmt.Errorf("there is no version %d of %s", *number, args[0])
		}
		if err != nil {
			return explainMissing(err, args[0], old)
		}
		v, meta, err := c.KV().Put(cmd.Context(), path, old.Data, &current.CurrentVersion)
		if err != nil {
			return err
		}
		return a.showVersion(*format, v, meta)
	})
}
