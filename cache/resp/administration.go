package resp

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// serverCommands are about the server.
var serverCommands = []command{
	{name: "wait", arity: 3, run: (*conn).wait},
	{name: "info", arity: -1, run: (*conn).info},
	{name: "command", arity: -1, run: (*conn).commandCommand},
	{name: "config", arity: -2, run: (*conn).config},
}

// wait is WAIT replicas milliseconds: how many nodes beside the leader have this connection's writes. At level quorum that has been
// waited for already; a connection with a lower level waits here. More than the quorum is not waited for.
func (c *conn) wait(args [][]byte) error {
	n, ok := parseInt(args[1])
	if !ok {
		c.w.fail(errNotInteger)
		return nil
	}
	timeout, ok := parseInt(args[2])
	switch {
	case !ok:
		c.w.fail("ERR timeout is not an integer or out of range")
		return nil
	case timeout < 0:
		c.w.fail("ERR timeout is negative")
		return nil
	}
	if c.weak && n > 0 {
		limit := c.server.cfg.CommandTimeout
		if timeout > 0 && timeout < int64(limit/time.Millisecond) {
			limit = time.Duration(timeout) * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(c.ctx, limit)
		defer cancel()
		if err := c.server.store.Settle(ctx); err != nil {
			c.w.integer(0)
			return nil
		}
		c.weak = false
	}
	c.w.integer(int64(c.server.store.Replicas()))
	return nil
}

// policy is how entries are evicted: the least recently modified ones. Reads do not count, so "lru" would not be true.
const policy = "allkeys-lrm"

// configuration is what CONFIG GET shows: what drivers and redis-benchmark ask for.
func (s *Server) configuration() map[string]string {
	return map[string]string{
		"appendonly": "no", "save": "", "databases": strconv.Itoa(s.cfg.Databases), "maxclients": strconv.Itoa(s.cfg.MaxConns),
		"maxmemory": "0", "maxmemory-policy": policy, "timeout": "0", "proto-max-bulk-len": strconv.Itoa(s.cfg.MaxCommand),
		"notify-keyspace-events": "", "cluster-enabled": "no",
	}
}

// config is CONFIG GET pattern …; what is configured is Locum's own configuration, so nothing can be set here.
func (c *conn) config(args [][]byte) error {
	if !upper(args[1], "GET") {
		c.w.fail("ERR CONFIG " + string(args[1][:min(len(args[1]), 128)]) + " is not supported: only CONFIG GET. Locum's own configuration says what is set")
		return nil
	}
	if len(args) == 2 {
		c.w.fail(wrongNumber("config|get"))
		return nil
	}
	all := c.server.configuration()
	var names []string
	for name := range all {
		if slices.ContainsFunc(args[2:], func(pattern []byte) bool { return match([]byte(strings.ToLower(string(pattern))), name) }) {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	c.w.pairs(len(names))
	for _, name := range names {
		c.w.text(name)
		c.w.text(all[name])
	}
	return nil
}

// infoSections in the order in which INFO shows them.
var infoSections = []struct {
	name string
	show func(s *Server, i Info) string
}{
	{"server", infoServer}, {"clients", infoClients}, {"memory", infoMemory}, {"persistence", infoPersistence},
	{"stats", infoStats}, {"replication", infoReplication}, {"keyspace", infoKeyspace},
}

func (c *conn) info(args [][]byte) error {
	wanted := func(name string) bool {
		return len(args) == 1 || slices.ContainsFunc(args[1:], func(arg []byte) bool {
			return upper(arg, strings.ToUpper(name)) || upper(arg, "ALL") || upper(arg, "DEFAULT") || upper(arg, "EVERYTHING")
		})
	}
	var parts []string
	info := c.server.store.Info()
	for _, section := range infoSections {
		if wanted(section.name) {
			title := strings.ToUpper(section.name[:1]) + section.name[1:]
			parts = append(parts, "# "+title+"\r\n"+section.show(c.server, info))
		}
	}
	c.w.verbatim(strings.Join(parts, "\r\n"))
	return nil
}

func infoServer(s *Server, i Info) string {
	up := int64(time.Since(i.Started).Seconds())
	return fmt.Sprintf("redis_version:%s\r\nredis_mode:standalone\r\nlocum_version:%s\r\nos:%s %s\r\narch_bits:64\r\nprocess_id:%d\r\nuptime_in_seconds:%d\r\nuptime_in_days:%d\r\n",
		version, i.Version, runtime.GOOS, runtime.GOARCH, os.Getpid(), up, up/86400)
}

func infoClients(s *Server, _ Info) string {
	return fmt.Sprintf("connected_clients:%d\r\nmaxclients:%d\r\nblocked_clients:0\r\n", len(s.clients()), s.cfg.MaxConns)
}

func infoMemory(_ *Server, i Info) string {
	return fmt.Sprintf("used_memory_dataset:%d\r\nmaxmemory:0\r\nmaxmemory_policy:%s\r\n", i.Bytes, policy)
}

func infoPersistence(*Server, Info) string {
	return "loading:0\r\nrdb_bgsave_in_progress:0\r\naof_enabled:0\r\n"
}

func infoStats(s *Server, i Info) string {
	return fmt.Sprintf("total_connections_received:%d\r\ntotal_commands_processed:%d\r\nexpired_keys:%d\r\nevicted_keys:%d\r\nkeyspace_hits:%d\r\nkeyspace_misses:%d\r\n",
		s.accepted.Load(), s.commands.Load(), i.Expired, i.Evicted, i.Hits, i.Misses)
}

// infoReplication calls every node a master: each takes writes, and a client that looks for one need not look further.
func infoReplication(_ *Server, i Info) string {
	var b strings.Builder
	fmt.Fprintf(&b, "role:master\r\nconnected_slaves:%d\r\n", len(i.Others))
	for n, other := range i.Others {
		fmt.Fprintf(&b, "locum_node%d:%s\r\n", n, other)
	}
	fmt.Fprintf(&b, "locum_is_leader:%s\r\nlocum_leader:%s\r\nlocum_term:%d\r\n", map[bool]string{true: "1", false: "0"}[i.IsLeader], i.Leader, i.Term)
	return b.String()
}

func infoKeyspace(s *Server, _ Info) string {
	var b strings.Builder
	for db := range s.cfg.Databases {
		if n, err := s.store.Len(db); err == nil && n > 0 {
			fmt.Fprintf(&b, "db%d:keys=%d,expires=0,avg_ttl=0\r\n", db, n)
		}
	}
	return b.String()
}

// commandCommand is COMMAND [COUNT | LIST | INFO [name …] | DOCS [name …] | GETKEYS command …].
func (c *conn) commandCommand(args [][]byte) error {
	if len(args) == 1 {
		names := commandNames()
		c.w.array(len(names))
		for _, name := range names {
			c.describeCommand(table[name])
		}
		return nil
	}
	switch {
	case upper(args[1], "COUNT") && len(args) == 2:
		c.w.integer(int64(len(table)))
	case upper(args[1], "LIST") && len(args) == 2:
		names := commandNames()
		c.w.array(len(names))
		for _, name := range names {
			c.w.text(name)
		}
	case upper(args[1], "INFO"):
		asked := args[2:]
		if len(asked) == 0 {
			return c.commandCommand(args[:1])
		}
		c.w.array(len(asked))
		for _, name := range asked {
			c.describeCommand(find(name))
		}
	case upper(args[1], "DOCS"):
		c.w.pairs(0)
	case upper(args[1], "GETKEYS") && len(args) > 3:
		c.keysOf(args[2:])
	default:
		c.w.fail(unknownSubcommand("COMMAND", args[1], "COUNT", "LIST", "GETKEYS"))
	}
	return nil
}

func commandNames() []string {
	names := make([]string, 0, len(table))
	for name := range table {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// describeCommand writes what Redis 7 tells of a command; null for one that there is not.
func (c *conn) describeCommand(cmd *command) {
	if cmd == nil {
		c.w.null()
		return
	}
	var flags []string
	for _, one := range []struct {
		trait traits
		name  string
	}{{writes, "write"}, {noAuth, "no_auth"}, {notInMulti, "no_multi"}, {fast, "fast"}} {
		if cmd.has(one.trait) {
			flags = append(flags, one.name)
		}
	}
	if cmd.first > 0 && !cmd.has(writes) {
		flags = append(flags, "readonly")
	}
	c.w.array(10)
	c.w.text(cmd.name)
	c.w.integer(int64(cmd.arity))
	c.w.set(len(flags))
	for _, flag := range flags {
		c.w.simple(flag)
	}
	c.w.integer(int64(cmd.first))
	c.w.integer(int64(cmd.last))
	c.w.integer(int64(cmd.step))
	c.w.set(0)   // ACL categories
	c.w.array(0) // tips
	c.w.array(0) // key specifications
	c.w.array(0) // subcommands
}

func (c *conn) keysOf(args [][]byte) {
	cmd := find(args[0])
	switch {
	case cmd == nil:
		c.w.fail("ERR Invalid command specified")
		return
	case cmd.first == 0:
		c.w.fail("ERR The command has no key arguments")
		return
	case cmd.arity > 0 && len(args) != cmd.arity, len(args) < -cmd.arity:
		c.w.fail("ERR Invalid number of arguments specified for command")
		return
	}
	last := cmd.last
	if last < 0 {
		last += len(args)
	}
	var keys [][]byte
	for i := cmd.first; i <= last; i += cmd.step {
		keys = append(keys, args[i])
	}
	c.w.array(len(keys))
	for _, key := range keys {
		c.w.bulk(key)
	}
}
