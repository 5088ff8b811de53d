package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

func (a *app) kvGetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "get PATH",
		Short:   "Read an entry",
		Example: "  locum kv get app/db\n  locum kv get -version 2 app/db\n  locum kv get -field password app/db",
		Args:    cobra.ExactArgs(1),
	}
	number := cmd.Flags().Uint64("version", 0, "`number` of the version; the newest if not given")
	field := fieldFlag(cmd)
	format := formatFlag(cmd)
	return a.asksEntry(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		entry, meta, err := c.KV().Get(cmd.Context(), entryPath(args[0]), *number)
		if err != nil {
			return explainMissing(err, args[0], entry)
		}
		if *field != "" {
			value, ok := entry.Data[*field]
			if !ok {
				return fmt.Errorf("%s has no key %q", args[0], *field)
			}
			_, err := fmt.Fprintln(a.out, plain(value))
			return err
		}
		body := struct {
			Data client.Entry `json:"data"`
			way
		}{entry, wayOf(meta)}
		return a.show(*format, body, func(w io.Writer) {
			m := entry.Metadata
			rows(w, []string{"Key", "Value"})
			for _, key := range slices.Sorted(maps.Keys(entry.Data)) {
				fmt.Fprintf(w, "%s\t%s\n", key, plain(entry.Data[key]))
			}
			fmt.Fprintln(w)
			pairs(w, "Version", strconv.FormatUint(m.Version, 10), "Created", m.CreatedTime.Format(time.RFC3339Nano),
				"Node", meta.Node, "Term", positive(meta.Term), "Forwarded By", meta.ForwardedBy)
		})
	})
}

// explainMissing tells an entry that never was from a version that was deleted.
func explainMissing(err error, path string, entry client.Entry) error {
	switch {
	case !isNotFound(err):
		return err
	case entry.Metadata.Destroyed:
		return fmt.Errorf("version %d of %s was destroyed", entry.Metadata.Version, path)
	case entry.Metadata.Version != 0:
		return fmt.Errorf("version %d of %s was deleted at %s", entry.Metadata.Version, path, entry.Metadata.DeletionTime)
	}
	return fmt.Errorf("there is no entry %s", path)
}

// plain prints a value: strings as they are, everything else as JSON.
func plain(value any) string {
	if s, ok := value.(string); ok {
		return s
	}
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(data)
}
