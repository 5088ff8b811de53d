package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

func (a *app) kvCommand() *cobra.Command {
	g := group("kv", "Versioned entries", a.kvGetCommand(), a.kvPutCommand(), a.kvDeleteCommand(), a.kvListCommand())
	g.Long = `Reads and writes versioned entries. The mount's name may stand before a path or not: "app/db" and "secret/app/db" are the
same entry.`
	return g
}

// entryPath takes the mount's name off, which users of Vault write.
func entryPath(arg string) string {
	return strings.TrimPrefix(strings.Trim(arg, "/"), "secret/")
}

// way says which node carried a request out.
type way struct {
	Node        string `json:"node,omitempty"`
	Term        uint64 `json:"term,omitempty"`
	ForwardedBy string `json:"forwarded_by,omitempty"`
}

func wayOf(m client.Meta) way { return way{m.Node, m.Term, m.ForwardedBy} }
