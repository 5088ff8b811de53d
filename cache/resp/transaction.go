package resp

import (
	"bytes"
)

// transactionCommands; EXEC stands in commands.go.
var transactionCommands = []command{
	{name: "multi", arity: 1, traits: inMulti | fast, run: (*conn).begin},
	{name: "discard", arity: 1, traits: inMulti | fast, run: (*conn).discard},
	{name: "watch", arity: -2, traits: inMulti | fast, first: 1, last: -1, step: 1, run: (*conn).watchKeys},
	{name: "unwatch", arity: 1, traits: fast, run: (*conn).unwatch},
}

// watched is a watched key with its database.
type watched struct {
	db int
	Watched
}

// transaction is what MULTI gathers.
type transaction struct {
	commands []queued
	bytes    int
	broken   bool // a command was refused: EXEC does nothing
}

type queued struct {
	cmd  *command
	args [][]byte
}

// maxCommandsQueued bounds a transaction, beside its bytes.
const maxCommandsQueued = 1 << 16

func (c *conn) begin([][]byte) error {
	if c.multi != nil {
		c.w.fail("ERR MULTI calls can not be nested")
		return nil
	}
	c.multi = &transaction{}
	c.describe(func(l *label) { l.queued = 0 })
	c.w.ok()
	return nil
}

// queue keeps a command for EXEC. Its arguments lie in the reader's buffer, so they are copied.
func (c *conn) queue(cmd *command, args [][]byte) {
	t := c.multi
	size := 0
	for _, arg := range args {
		size += len(arg) + 24
	}
	if t.bytes+size > c.server.cfg.MaxQueued || len(t.commands) == maxCommandsQueued {
		t.broken = true
		c.w.fail("ERR the transaction is too large")
		return
	}
	t.bytes += size
	kept := make([][]byte, len(args))
	for i, arg := range args {
		kept[i] = bytes.Clone(arg)
	}
	t.commands = append(t.commands, queued{cmd, kept})
	c.describe(func(l *label) { l.queued = len(t.commands) })
	c.w.simple("QUEUED")
}

// leaveMulti ends MULTI and WATCH.
func (c *conn) leaveMulti() {
	c.multi, c.watch = nil, nil
	c.describe(func(l *label) { l.queued = -1 })
}

func (c *conn) discard([][]byte) error {
	if c.multi == nil {
		c.w.fail("ERR DISCARD without MULTI")
		return nil
	}
	c.leaveMulti()
	c.w.ok()
	return nil
}

// watchKeys notes the versions of keys. A key that is not there has version 0: one that came and went again in between is not noticed.
func (c *conn) watchKeys(args [][]byte) error {
	if c.multi != nil {
		c.w.fail("ERR WATCH inside MULTI is not allowed")
		return nil
	}
	if len(c.watch)+len(args) > maxCommandsQueued {
		c.w.fail("ERR too many watched keys")
		return nil
	}
	size := 0
	for i := range c.watch {
		size += len(c.watch[i].Key)
	}
	for _, key := range args[1:] {
		if fail := tooLong([]Op{{Key: key}}); fail != "" {
			c.w.fail(fail)
			return nil
		}
		if size += len(key); size > c.server.cfg.MaxQueued {
			c.w.fail("ERR too many watched keys")
			return nil
		}
		entry, found, err := c.server.store.Get(c.db, key)
		if err != nil {
			c.w.fail(errorText(err))
			return nil
		}
		w := watched{c.db, Watched{Key: bytes.Clone(key)}}
		if found {
			w.Version = entry.Version
		}
		c.watch = append(c.watch, w)
	}
	c.w.ok()
	return nil
}

func (c *conn) unwatch([][]byte) error {
	c.watch = nil
	c.w.ok()
	return nil
}

// exec carries out what was gathered, as one step. Commands that neither read nor write keys are answered after it.
func (c *conn) exec([][]byte) error {
	t := c.multi
	watch := c.watch
	c.leaveMulti()
	switch {
	case t == nil:
		c.watch = watch
		c.w.fail("ERR EXEC without MULTI")
		return nil
	case t.broken:
		c.w.fail("EXECABORT Transaction discarded because of previous errors.")
		return nil
	}
	p := plan{conn: c}
	plans := make([]planned, len(t.commands))
	for i, q := range t.commands {
		if q.cmd.plan != nil {
			before := len(p.ops)
			plans[i] = q.cmd.plan(&p, q.args)
			if plans[i].fail == "" {
				plans[i].fail = tooLong(p.ops[before:])
			}
			if plans[i].fail != "" {
				p.ops = p.ops[:before]
			}
			plans[i].ops = len(p.ops) - before
		}
	}
	tx := Tx{Ops: p.ops}
	for _, w := range watch {
		if w.db != c.db {
			c.w.fail("ERR a watched key is in another database than the transaction")
			return nil
		}
		tx.Watch = append(tx.Watch, w.Watched)
	}
	var results []Result
	if len(tx.Ops) > 0 || len(tx.Watch) > 0 {
		level := LevelQuorum
		if len(tx.Watch) == 0 && blind(tx.Ops) {
			level = c.level
			c.weak = c.weak || level != LevelQuorum
		}
		var held bool
		var err error
		results, held, err = c.apply(level, tx)
		switch {
		case err != nil:
			c.w.fail(errorText(err))
			return nil
		case !held:
			c.w.nullArray()
			return nil
		}
	}
	return c.answerAll(t.commands, plans, results)
}

func (c *conn) answerAll(commands []queued, plans []planned, results []Result) error {
	c.w.array(len(commands))
	for i, q := range commands {
		one := plans[i]
		switch {
		case q.cmd.plan == nil:
			if err := q.cmd.run(c, q.args); err != nil {
				return err
			}
		case one.fail != "":
			c.w.fail(one.fail)
		default:
			one.write(&c.w, results[:one.ops])
			results = results[one.ops:]
		}
	}
	return nil
}
