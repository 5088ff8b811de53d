package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

func (a *app) kvMetadataCommand() *cobra.Command {
	return group("metadata", "Entries over all their versions", "  locum kv metadata get app/db\n  locum kv metadata put -max-versions 5 app/db",
		a.metadataGetCommand(), a.metadataPutCommand(), a.metadataPatchCommand(), a.metadataDeleteCommand())
}

func (a *app) metadataGetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "get PATH",
		Short:   "An entry's settings and versions",
		Example: "  locum kv metadata get app/db\n  locum kv metadata get -format=json app/db",
		Args:    cobra.ExactArgs(1),
	}
	field := fieldFlag(cmd)
	format := formatFlag(cmd)
	return a.asksEntry(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		m, meta, err := c.KV().Metadata(cmd.Context(), entryPath(args[0]))
		if err != nil {
			return missingEntry(err, args[0])
		}
		if *field != "" {
			return a.showField(m, *field)
		}
		body := struct {
			Data client.EntryMetadata `json:"data"`
			way
		}{m, wayOf(meta)}
		return a.show(*format, body, func(w io.Writer) { metadataTable(w, m) })
	})
}

func metadataTable(w io.Writer, m client.EntryMetadata) {
	pairs(w, "Current Version", strconv.FormatUint(m.CurrentVersion, 10), "Oldest Version", strconv.FormatUint(m.OldestVersion, 10),
		"Max Versions", strconv.Itoa(m.MaxVersions), "CAS Required", strconv.FormatBool(m.CASRequired),
		"Delete Version After", m.DeleteVersionAfter, "Created", m.CreatedTime.Format(time.RFC3339Nano),
		"Updated", m.UpdatedTime.Format(time.RFC3339Nano))
	for _, key := range slices.Sorted(maps.Keys(m.Custom)) {
		fmt.Fprintf(w, "Custom: %s\t%s\n", key, m.Custom[key])
	}
	fmt.Fprintln(w)
	var lines [][]string
	for number, v := range m.Versions {
		deleted := cmp.Or(v.DeletionTime, "-")
		if v.Destroyed {
			deleted = "destroyed"
		}
		lines = append(lines, []string{number, v.CreatedTime.Format(time.RFC3339Nano), deleted})
	}
	slices.SortFunc(lines, func(x, y []string) int {
		return cmp.Or(len(x[0])-len(y[0]), strings.Compare(x[0], y[0])) // as numbers
	})
	rows(w, []string{"Version", "Created", "Deleted"}, lines...)
}

// metadataFlags adds the settings of an entry; what it returns gives those that were set.
func metadataFlags(cmd *cobra.Command) func() (client.MetadataChange, error) {
	f := cmd.Flags()
	number := f.Int("max-versions", 0, "`number` of versions to keep; 0: as the store's settings say")
	required := f.Bool("cas-required", false, "refuse writes that do not say which version they replace")
	after := f.Duration("delete-version-after", 0, "how `long` versions live; 0: for ever")
	custom := f.StringArray("custom-metadata", nil, "`KEY=VALUE` of the entry's own metadata; may be repeated")
	return func() (client.MetadataChange, error) {
		var change client.MetadataChange
		if f.Changed("max-versions") {
			change.MaxVersions = number
		}
		if f.Changed("cas-required") {
			change.CASRequired = required
		}
		if f.Changed("delete-version-after") {
			change.DeleteVersionAfter = after
		}
		var err error
		if f.Changed("custom-metadata") {
			change.Custom, err = keyValues("custom-metadata", *custom)
		}
		return change, err
	}
}

// keyValues reads KEY=VALUE, each in a flag of its own.
func keyValues(flag string, list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, one := range list {
		key, value, ok := strings.Cut(one, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("-%s %q is not KEY=VALUE", flag, one)
		}
		out[key] = value
	}
	return out, nil
}

func (a *app) metadataPutCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "put PATH",
		Short: "Set an entry's settings",
		Long: `Sets the settings of an entry that are given; custom metadata as a whole. An entry that is not there is made, without a
version.`,
		Example: "  locum kv metadata put -max-versions 5 -cas-required app/db\n  locum kv metadata put -custom-metadata owner=orders -delete-version-after 720h app/db",
		Args:    cobra.ExactArgs(1),
	}
	settings := metadataFlags(cmd)
	return a.asksEntry(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		change, err := settings()
		if err == nil {
			_, err = c.KV().PutMetadata(cmd.Context(), entryPath(args[0]), change)
		}
		if err != nil {
			return err
		}
		a.say("Set: %s", args[0])
		return nil
	})
}

func (a *app) metadataPatchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "patch PATH",
		Short:   "Change some of an entry's settings",
		Long:    `Changes the settings that are given of an entry that is there; custom metadata key by key.`,
		Example: "  locum kv metadata patch -custom-metadata owner=orders app/db\n  locum kv metadata patch -remove-custom-metadata owner app/db",
		Args:    cobra.ExactArgs(1),
	}
	settings := metadataFlags(cmd)
	remove := cmd.Flags().StringArray("remove-custom-metadata", nil, "`key` of the entry's own metadata to remove; may be repeated")
	return a.asksEntry(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		change, err := settings()
		if err != nil {
			return err
		}
		change.RemoveCustom = *remove
		if change.MaxVersions == nil && change.CASRequired == nil && change.DeleteVersionAfter == nil && len(change.Custom)+len(*remove) == 0 {
			return withHint(errors.New("nothing to change"), "see "+cmd.CommandPath()+" -help")
		}
		if _, err := c.KV().PatchMetadata(cmd.Context(), entryPath(args[0]), change); err != nil {
			return missingEntry(err, args[0])
		}
		a.say("Changed: %s", args[0])
		return nil
	})
}

func (a *app) metadataDeleteCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "delete PATH",
		Short:   "Remove an entry with all its versions, for good",
		Example: "  locum kv metadata delete app/db",
		Args:    cobra.ExactArgs(1),
	}
	return a.asksEntry(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		if _, err := c.KV().DeleteMetadata(cmd.Context(), entryPath(args[0])); err != nil {
			return err
		}
		a.say("Removed with all its versions, if it was there: %s", args[0])
		return nil
	})
}
