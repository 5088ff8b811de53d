package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/locum-ha/locum/client"
)

func (a *app) cacheCommand() *cobra.Command {
	g := group("cache", "The replicated in-memory cache",
		"  locum cache set -ttl 10m session:42 @session.json\n  locum cache get session:42\n  locum cache stats",
		a.cacheGetCommand(), a.cacheSetCommand(), a.cacheDelCommand(), a.cacheListCommand(), a.cacheStatsCommand())
	g.Long = `Reads and writes entries of the cache, which lives in the memory of all nodes. There are several by name; where none is named the
one that clients of Redis see as database 0 is meant. On a node that is a cache and nothing else, the token is its CACHE_API_TOKEN.`
	return g
}

// defaultCache is the cache that is meant where none is named.
const defaultCache = "default"

func cacheFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("cache", defaultCache, "`name` of the cache")
}

func (a *app) cacheGetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "get KEY",
		Short:   "Read an entry",
		Long:    "Prints the value, byte for byte. With -take the entry is removed as it is read: of all who take it, one gets it.",
		Example: "  locum cache get session:42\n  locum cache get -consistent -format=json session:42\n  locum cache get -cache codes -take 8f2c",
		Args:    cobra.ExactArgs(1),
	}
	name := cacheFlag(cmd)
	consistent := cmd.Flags().Bool("consistent", false, "read what the whole cache agrees on, not only what the node asked has")
	take := cmd.Flags().Bool("take", false, "remove the entry as it is read")
	format := formatFlag(cmd)
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		in := c.Cache(*name)
		var item client.CacheItem
		var err error
		if *take {
			item, _, err = in.Take(cmd.Context(), args[0])
		} else {
			item, _, err = in.Get(cmd.Context(), args[0], *consistent)
		}
		switch {
		case isNotFound(err):
			return fmt.Errorf("there is no entry %s in the cache %q", args[0], *name)
		case err != nil:
			return err
		case *format == "json":
			return a.show(*format, struct {
				Value   []byte `json:"value"` // as base64
				Version string `json:"version"`
				TTLMS   int64  `json:"ttl_ms,omitempty"`
			}{item.Value, item.Version, item.TTL.Milliseconds()}, nil)
		}
		if _, err := a.out.Write(item.Value); err != nil {
			return err
		}
		if !strings.HasSuffix(string(item.Value), "\n") && a.isTerminal(a.out) {
			_, err = fmt.Fprintln(a.out)
		}
		return err
	})
}

func (a *app) cacheSetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set KEY VALUE|@FILE|-",
		Short: "Write an entry",
		Example: `  locum cache set greeting hello
  locum cache set -ttl 10m session:42 @session.json
  locum cache set -absent -ttl 30s lock me
  locum cache set -if-version 17 counter 18`,
		Args: cobra.ExactArgs(2),
	}
	name := cacheFlag(cmd)
	var o client.CachePut
	cmd.Flags().StringVar(&o.TTL, "ttl", "", "`time` to live, such as 30s, or none, or keep; the cache's default if not given")
	cmd.Flags().StringVar(&o.Ack, "ack", "", "how far the write must have come: `level` quorum (the default), once, leader or direct")
	cmd.Flags().BoolVar(&o.IfAbsent, "absent", false, "only if there is no such entry")
	cmd.Flags().StringVar(&o.IfMatch, "if-version", "", "only if the entry has this `version`, as get -format=json shows it; *: only if there is one")
	complete(cmd, "ack", "quorum", "once", "leader", "direct")
	format := formatFlag(cmd)
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		value := args[1]
		if value == "-" || strings.HasPrefix(value, "@") {
			var err error
			if value, err = a.readSource(value); err != nil {
				return err
			}
		} else if rest, ok := strings.CutPrefix(value, `\`); ok && strings.HasPrefix(rest, "@") {
			value = rest
		}
		if _, err := strconv.ParseUint(o.IfMatch, 10, 64); err == nil {
			o.IfMatch = strconv.Quote(o.IfMatch) // as HTTP writes it
		}
		version, _, err := c.Cache(*name).Put(cmd.Context(), args[0], []byte(value), o)
		if err != nil {
			return err
		}
		return a.show(*format, map[string]string{"version": version}, func(w io.Writer) {
			pairs(w, "Key", args[0], "Version", version)
		})
	})
}

func (a *app) cacheDelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "del KEY …",
		Short:   "Remove entries",
		Long:    "Removes entries. It says nothing about one that is not there.",
		Example: "  locum cache del session:42 session:43",
		Args:    cobra.MinimumNArgs(1),
	}
	name := cacheFlag(cmd)
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		for _, key := range args {
			if _, err := c.Cache(*name).Delete(cmd.Context(), key); err != nil {
				return err
			}
			a.say("Removed, if it was there: %s", key)
		}
		return nil
	})
}

func (a *app) cacheListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list [PREFIX]",
		Short:   "List keys",
		Example: "  locum cache list session:\n  locum cache list -limit 10 -after session:41 session:",
		Args:    cobra.MaximumNArgs(1),
	}
	name := cacheFlag(cmd)
	limit := cmd.Flags().Int("limit", 1000, "how many keys at most")
	after := cmd.Flags().String("after", "", "begin behind this `key`")
	format := formatFlag(cmd)
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, args []string) error {
		keys, err := c.Cache(*name).List(cmd.Context(), strings.Join(args, ""), *after, *limit)
		if err != nil {
			return err
		}
		return a.show(*format, keys, func(w io.Writer) {
			for _, key := range keys {
				fmt.Fprintln(w, key)
			}
		})
	})
}

func (a *app) cacheStatsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "stats",
		Short:   "The cache as this node sees it",
		Long:    "Shows the node's part of the cache: its health, who leads, sizes and counters since the node's start. It needs no token.",
		Example: "  locum cache stats\n  locum cache stats -format=json -address http://10.0.0.2:8400",
		Args:    cobra.NoArgs,
	}
	format := formatFlag(cmd)
	return a.asking(cmd, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		st, err := c.CacheStatus(cmd.Context())
		if err != nil {
			return err
		}
		return a.show(*format, st, func(w io.Writer) { cacheTable(w, st) })
	})
}

func cacheTable(w io.Writer, st client.CacheStatus) {
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	pairs(w, "Status", st.Status, "Reason", st.Reason, "State", st.State, "Leader", st.Leader, "Term", number(st.Term),
		"Hosts", fmt.Sprintf("%d of %d connected, quorum %d", len(st.Connected), len(st.Hosts), st.Quorum),
		"Reads", fmt.Sprintf("%d, hit rate %s", st.Hits+st.Misses, rate(st.Hits, st.Hits+st.Misses)),
		"Elections Won", number(st.Elections), "Times Emptied", number(st.Emptied),
		"State Transfers", fmt.Sprintf("%d received, %d sent", st.TransfersIn, st.TransfersOut))
	fmt.Fprintln(w)
	var lines [][]string
	for _, level := range []string{"quorum", "once", "leader", "direct"} {
		s := st.Writes[level]
		lines = append(lines, []string{level, number(s.Done), number(s.Failed), number(s.Unknown), fmt.Sprintf("%d µs", s.MeanUS)})
	}
	rows(w, []string{"Writes", "Done", "Failed", "Unknown", "Mean"}, lines...)
	fmt.Fprintln(w)
	lines = nil
	for _, name := range slices.Sorted(maps.Keys(st.Caches)) {
		c := st.Caches[name]
		lines = append(lines, []string{name, fmt.Sprintf("%d of %d", c.Entries, c.MaxEntries), fmt.Sprintf("%d of %d", c.Bytes, c.MaxBytes), number(c.Evictions), number(c.Expired)})
	}
	rows(w, []string{"Cache", "Entries", "Bytes", "Evicted", "Expired"}, lines...)
}

// rate shows a part of a whole.
func rate(part, whole uint64) string {
	if whole == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(whole))
}
