package resp

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// connectionCommands are about the connection itself.
var connectionCommands = []command{
	{name: "hello", arity: -1, traits: noAuth | notInMulti | fast, run: (*conn).hello},
	{name: "auth", arity: -2, traits: noAuth | fast, run: (*conn).auth},
	{name: "ping", arity: -1, traits: whileSubscribed | fast, run: (*conn).ping},
	{name: "echo", arity: 2, traits: fast, run: func(c *conn, args [][]byte) error { c.w.bulk(args[1]); return nil }},
	{name: "select", arity: 2, traits: notInMulti | fast, run: (*conn).selectDB},
	{name: "reset", arity: 1, traits: noAuth | inMulti | whileSubscribed | fast, run: (*conn).reset},
	{name: "quit", arity: -1, traits: noAuth | inMulti | whileSubscribed | fast, run: func(c *conn, _ [][]byte) error { c.w.ok(); return errQuit }},
	{name: "client", arity: -2, run: (*conn).client},
	{name: "locum.ack", arity: -1, traits: fast, run: (*conn).acknowledge},
}

// version is what clients are told that this is: the Redis whose answers it gives.
const version = "7.0.15"

// hello is HELLO [version [AUTH user password] [SETNAME name]].
func (c *conn) hello(args [][]byte) error {
	resp3 := c.w.resp3
	if len(args) > 1 {
		n, ok := parseInt(args[1])
		switch {
		case !ok:
			c.w.fail("ERR Protocol version is not an integer or out of range")
			return nil
		case n != 2 && n != 3:
			c.w.fail("NOPROTO unsupported protocol version")
			return nil
		}
		resp3 = n == 3
	}
	var user, password, name []byte
	for i := 2; i < len(args); {
		switch left := len(args) - i; {
		case upper(args[i], "AUTH") && left > 2:
			user, password = args[i+1], args[i+2]
			i += 3
		case upper(args[i], "SETNAME") && left > 1:
			name = args[i+1]
			i += 2
		default:
			c.w.fail(errSyntaxIn("HELLO", args[i]))
			return nil
		}
	}
	if user != nil && !c.authenticate(user, password) {
		c.w.fail(wrongPassword)
		return nil
	}
	if !c.authed {
		c.w.fail("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time")
		return nil
	}
	if name != nil {
		if !goodName(name) {
			c.w.fail(badName)
			return nil
		}
		c.describe(func(l *label) { l.name = string(name) })
	}
	c.speak(resp3)
	c.welcome()
	return nil
}

func errSyntaxIn(command string, option []byte) string {
	return fmt.Sprintf("ERR Syntax error in %s option '%s'", command, option[:min(len(option), 128)])
}

// speak changes the protocol's version.
func (c *conn) speak(resp3 bool) {
	c.w.resp3 = resp3
	c.describe(func(l *label) {
		l.version = 2
		if resp3 {
			l.version = 3
		}
	})
}

// protocol is the version that the client speaks, for other goroutines.
func (c *conn) protocol() int {
	c.seen.Lock()
	defer c.seen.Unlock()
	return c.label.version
}

func (c *conn) welcome() {
	proto := int64(2)
	if c.w.resp3 {
		proto = 3
	}
	c.w.pairs(7)
	c.w.text("server")
	c.w.text("redis")
	c.w.text("version")
	c.w.text(version)
	c.w.text("proto")
	c.w.integer(proto)
	c.w.text("id")
	c.w.integer(int64(c.id))
	c.w.text("mode")
	c.w.text("standalone")
	c.w.text("role")
	c.w.text("master")
	c.w.text("modules")
	c.w.array(0)
}

const wrongPassword = "WRONGPASS invalid username-password pair or user is disabled."

// auth is AUTH [user] password.
func (c *conn) auth(args [][]byte) error {
	if len(args) > 3 {
		c.w.fail(errSyntax)
		return nil
	}
	user, password := []byte("default"), args[len(args)-1]
	if len(args) == 3 {
		user = args[1]
	} else if c.server.cfg.Password == "" {
		c.w.fail("ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?")
		return nil
	}
	if !c.authenticate(user, password) {
		c.w.fail(wrongPassword)
		return nil
	}
	c.w.ok()
	return nil
}

func (c *conn) ping(args [][]byte) error {
	subscribed := c.inbox != nil && c.inbox.count() > 0 && !c.w.resp3
	switch {
	case len(args) > 2:
		c.w.fail(wrongNumber("ping"))
	case subscribed:
		c.w.array(2)
		c.w.text("pong")
		if len(args) == 2 {
			c.w.bulk(args[1])
		} else {
			c.w.text("")
		}
	case len(args) == 2:
		c.w.bulk(args[1])
	default:
		c.w.simple("PONG")
	}
	return nil
}

func (c *conn) selectDB(args [][]byte) error {
	n, ok := parseInt(args[1])
	switch {
	case !ok || n != int64(int32(n)):
		c.w.fail(errNotInteger)
	case n < 0 || n >= int64(c.server.cfg.Databases):
		c.w.fail("ERR DB index is out of range")
	default:
		c.db = int(n)
		c.describe(func(l *label) { l.db = int(n) })
		c.w.ok()
	}
	return nil
}

// reset makes the connection what it was at its start.
func (c *conn) reset([][]byte) error {
	c.leaveMulti()
	if c.inbox != nil {
		for _, channel := range c.inbox.list() {
			c.drop(channel)
		}
	}
	c.db, c.level, c.silent = 0, LevelQuorum, speaking
	c.authed = c.server.cfg.Password == ""
	c.speak(false)
	c.describe(func(l *label) { l.name, l.db, l.subscriptions = "", 0, 0 })
	c.w.simple("RESET")
	return nil
}

// acknowledge is LOCUM.ACK [level]: how far this connection's writes must have come before they are answered, where the answer does not
// depend on what is stored. Without an argument it tells the level.
func (c *conn) acknowledge(args [][]byte) error {
	names := []string{LevelQuorum: "quorum", LevelOnce: "once", LevelLeader: "leader", LevelDirect: "direct"}
	switch len(args) {
	case 1:
		c.w.text(names[c.level])
		return nil
	case 2:
		for level, name := range names {
			if upper(args[1], strings.ToUpper(name)) {
				c.level = Level(level)
				c.w.ok()
				return nil
			}
		}
		c.w.fail("ERR unknown level: write quorum, once, leader or direct")
		return nil
	}
	c.w.fail(wrongNumber("locum.ack"))
	return nil
}

const badName = "ERR Client names cannot contain spaces, newlines or special characters."

func goodName(name []byte) bool {
	for _, b := range name {
		if b < '!' || b > '~' {
			return false
		}
	}
	return len(name) <= 1024
}

// client is CLIENT with the subcommands that drivers send.
func (c *conn) client(args [][]byte) error {
	sub := func(name string, n int) bool { return upper(args[1], name) && len(args) == n }
	switch {
	case sub("ID", 2):
		c.w.integer(int64(c.id))
	case sub("GETNAME", 2):
		c.seen.Lock()
		name := c.label.name
		c.seen.Unlock()
		c.w.value([]byte(name), name != "")
	case sub("SETNAME", 3):
		if !goodName(args[2]) {
			c.w.fail(badName)
			return nil
		}
		c.describe(func(l *label) { l.name = string(args[2]) })
		c.w.ok()
	case sub("SETINFO", 4):
		c.setInfo(args[2], args[3])
	case sub("INFO", 2):
		c.w.verbatim(c.line() + "\n")
	case upper(args[1], "LIST"):
		var b strings.Builder
		for _, other := range c.server.clients() {
			b.WriteString(other.line() + "\n")
		}
		c.w.verbatim(b.String())
	case sub("REPLY", 3):
		c.reply(args[2])
	case sub("NO-EVICT", 3), sub("NO-TOUCH", 3):
		if !upper(args[2], "ON") && !upper(args[2], "OFF") {
			c.w.fail(errSyntax)
			return nil
		}
		c.w.ok() // nothing is evicted for a client's sake, and reads move nothing
	case upper(args[1], "KILL") && len(args) > 2:
		return c.kill(args[2:])
	default:
		c.w.fail(unknownSubcommand("CLIENT", args[1], "ID", "GETNAME", "SETNAME", "SETINFO", "INFO", "LIST", "REPLY", "NO-EVICT", "NO-TOUCH", "KILL"))
	}
	return nil
}

// unknownSubcommand tells a wrong number of arguments from a name that there is not.
func unknownSubcommand(command string, name []byte, known ...string) string {
	for _, one := range known {
		if upper(name, one) {
			return wrongNumber(strings.ToLower(command + "|" + one))
		}
	}
	return "ERR unknown subcommand '" + string(name[:min(len(name), 128)]) + "'. Try " + command + " HELP."
}

func (c *conn) setInfo(what, value []byte) {
	if !goodName(value) {
		c.w.fail("ERR " + strings.ToLower(string(what)) + " cannot contain spaces, newlines or special characters.")
		return
	}
	switch {
	case upper(what, "LIB-NAME"):
		c.describe(func(l *label) { l.library = string(value) })
	case upper(what, "LIB-VER"):
		c.describe(func(l *label) { l.libraryVersion = string(value) })
	default:
		c.w.fail("ERR Unrecognized option '" + string(what[:min(len(what), 128)]) + "'")
		return
	}
	c.w.ok()
}

func (c *conn) reply(mode []byte) {
	switch {
	case upper(mode, "ON"):
		c.silent = speaking
		c.w.ok()
	case upper(mode, "OFF"):
		c.silent = silent
	case upper(mode, "SKIP"):
		if c.silent == speaking {
			c.silent = skipNext
		}
	default:
		c.w.fail(errSyntax)
	}
}

// kill is CLIENT KILL addr, or CLIENT KILL ID n | ADDR addr.
func (c *conn) kill(args [][]byte) error {
	var chosen func(*conn) bool
	old := len(args) == 1
	switch {
	case old:
		chosen = func(o *conn) bool { return o.raw.RemoteAddr().String() == string(args[0]) }
	case len(args) == 2 && upper(args[0], "ADDR"):
		chosen = func(o *conn) bool { return o.raw.RemoteAddr().String() == string(args[1]) }
	case len(args) == 2 && upper(args[0], "ID"):
		id, err := strconv.ParseUint(string(args[1]), 10, 63)
		if err != nil || id == 0 {
			c.w.fail("ERR client-id should be greater than 0")
			return nil
		}
		chosen = func(o *conn) bool { return o.id == id }
	default:
		c.w.fail(errSyntax)
		return nil
	}
	n, self := int64(0), false
	for _, other := range c.server.clients() {
		if chosen(other) {
			n++
			if other == c {
				self = old
				continue // Redis does not end the caller by a filter: skipme
			}
			_ = other.raw.Close() // its goroutine notices
		}
	}
	switch {
	case !old:
		c.w.integer(n)
	case n == 0:
		c.w.fail("ERR No such client")
	default:
		c.w.ok()
	}
	if self {
		return errQuit
	}
	return nil
}

// line describes the connection as CLIENT LIST does.
func (c *conn) line() string {
	c.seen.Lock()
	l := c.label
	c.seen.Unlock()
	now := time.Now()
	flags := "N"
	if l.subscriptions > 0 {
		flags = "P"
	}
	if l.queued >= 0 {
		flags = "x"
	}
	name := "NULL"
	if cmd := c.last.Load(); cmd != nil {
		name = cmd.name
	}
	return fmt.Sprintf("id=%d addr=%s laddr=%s fd=-1 name=%s age=%d idle=%d flags=%s db=%d sub=%d psub=0 ssub=0 multi=%d qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd=%s user=default redir=-1 resp=%d lib-name=%s lib-ver=%s",
		c.id, addressOf(c.raw.RemoteAddr()), addressOf(c.raw.LocalAddr()), l.name, int64(now.Sub(c.since).Seconds()), int64(now.Sub(time.Unix(0, c.spoke.Load())).Seconds()),
		flags, l.db, l.subscriptions, l.queued, name, l.version, l.library, l.libraryVersion)
}

func addressOf(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}
