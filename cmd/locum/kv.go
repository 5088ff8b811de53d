package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

func (a *app) kvCommand() *cobra.Command {
	g := group("kv", "Versioned entries", "  locum kv put app/db user=orders password=@password.txt\n  locum kv get app/db\n  locum kv list app",
		a.kvGetCommand(), a.kvPutCommand(), a.kvPatchCommand(), a.kvListCommand(), a.kvRollbackCommand(),
		a.kvDeleteCommand(), a.kvUndeleteCommand(), a.kvDestroyCommand(), a.kvMetadataCommand())
	g.Long = `Reads and writes versioned entries. The mount's name may stand before a path or not: "app/db" and "secret/app/db" are the
same entry.`
	return g
}

// mountName is the only mount that there is.
const mountName = "secret"

// asksEntry makes a command that asks a node about the entry that its first argument names.
func (a *app) asksEntry(cmd *cobra.Command, run func(*cobra.Command, *client.Client, []string) error) *cobra.Command {
	mount := cmd.Flags().String("mount", mountName, "`name` of the mount, as Vault's command line takes it; there is one")
	cmd = a.asking(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		if strings.Trim(*mount, "/") != mountName {
			return withHint(fmt.Errorf("there is no mount %q", *mount), "entries are at "+mountName+"/: leave -mount out")
		}
		return run(cmd, c, args)
	})
	cmd.ValidArgsFunction = a.completing(func(ctx context.Context, c *client.Client, typed string) ([]string, error) {
		return entriesBelow(ctx, c, typed)
	}, 1, cobra.ShellCompDirectiveNoSpace)
	return cmd
}

// entriesBelow lists the paths that go on from what was typed.
func entriesBelow(ctx context.Context, c *client.Client, typed string) ([]string, error) {
	folder := typed[:strings.LastIndexByte(typed, '/')+1]
	keys, _, err := c.KV().List(ctx, folderPath(folder))
	for i := range keys {
		keys[i] = folder + keys[i]
	}
	return keys, err
}

// entryPath takes the mount's name off, which users of Vault write.
func entryPath(arg string) string {
	return strings.TrimPrefix(strings.Trim(arg, "/"), mountName+"/")
}

// folderPath is entryPath for a folder, which may be the mount itself.
func folderPath(arg string) string {
	if strings.Trim(arg, "/") == mountName {
		return ""
	}
	return entryPath(arg)
}

// way says which node carried a request out.
type way struct {
	Node        string `json:"node,omitempty"`
	Term        uint64 `json:"term,omitempty"`
	ForwardedBy string `json:"forwarded_by,omitempty"`
}

func wayOf(m client.Meta) way { return way{m.Node, m.Term, m.ForwardedBy} }

// casFlag adds -cas; what it returns gives its value, nil where it was not given.
func casFlag(cmd *cobra.Command) func() (*uint64, error) {
	cas := cmd.Flags().Int64("cas", -1, "only if this is the newest `version`; 0: only if there is none")
	cmd.Flags().Lookup("cas").DefValue = ""
	return func() (*uint64, error) {
		if !cmd.Flags().Changed("cas") {
			return nil, nil
		}
		if *cas < 0 {
			return nil, fmt.Errorf("-cas must not be negative")
		}
		n := uint64(*cas)
		return &n, nil
	}
}

// showVersion prints the version that a write made.
func (a *app) showVersion(format string, v client.Version, meta client.Meta) error {
	body := struct {
		Data client.Version `json:"data"`
		way
	}{v, wayOf(meta)}
	return a.show(format, body, func(w io.Writer) {
		pairs(w, "Version", strconv.FormatUint(v.Version, 10), "Created", v.CreatedTime.Format(time.RFC3339Nano),
			"Node", meta.Node, "Term", positive(meta.Term), "Forwarded By", meta.ForwardedBy)
	})
}

// versionsFlag adds -versions; what it returns gives its value.
func versionsFlag(cmd *cobra.Command) func() ([]uint64, error) {
	list := cmd.Flags().StringSlice("versions", nil, "`numbers` of the versions, with commas between")
	return func() ([]uint64, error) {
		var versions []uint64
		for _, text := range *list {
			n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
			if err != nil || n == 0 {
				return nil, fmt.Errorf("%q is not the number of a version", text)
			}
			versions = append(versions, n)
		}
		return versions, nil
	}
}
