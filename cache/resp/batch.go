package resp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/locum-ha/locum/cache"
)

// planned is a command whose ops are gathered and whose answer is yet to be written.
type planned struct {
	ops    int // how many of the gathered ops are its own
	answer func(*writer, []Result, planned)
	fail   string // instead: it has no ops
	alone  bool   // it has conditions of its own, or ops that must be in a step alone
}

// batch are commands that write, gathered to be carried out as one step.
type batch struct {
	tx      Tx
	plans   []planned
	level   Level
	bytes   int
	scratch []Op // of the command that is being planned
}

// plan is where a command's plan function puts its ops.
type plan struct {
	conn  *conn
	ops   []Op
	watch []Watched
}

// add appends an op.
func (p *plan) add(op Op) { p.ops = append(p.ops, op) }

// blind reports whether the answer does not depend on what is stored, so that it may be given before that is known.
func blind(ops []Op) bool {
	for _, op := range ops {
		if op.Kind != OpPut || op.If != Always || op.Old || op.Expiry == ExpiryKeep {
			return false
		}
	}
	return true
}

// gather plans a command and leaves it to be carried out with its neighbours. Its arguments stay valid until then: settle is
// called before the reader's buffer is touched.
func (c *conn) gather(cmd *command, args [][]byte) {
	b := &c.batch
	p := plan{conn: c, ops: b.scratch[:0]}
	one := cmd.plan(&p, args)
	b.scratch = p.ops[:0]
	if one.fail == "" {
		one.fail = tooLong(p.ops)
	}
	if one.fail != "" {
		p.ops = p.ops[:0]
	}
	one.ops = len(p.ops)
	level := LevelQuorum
	if blind(p.ops) {
		level = c.level
	}
	if one.fail == "" && one.ops > 0 {
		bytes := sizeOf(p.ops)
		full := len(b.tx.Ops)+one.ops > batchOps || b.bytes+bytes > batchBytes
		if len(b.tx.Ops) > 0 && (level != b.level || one.alone || full) {
			c.settle()
		}
		b.level = level
		b.bytes += bytes
		b.tx.Ops = append(b.tx.Ops, p.ops...)
		b.tx.Watch = append(b.tx.Watch, p.watch...)
	}
	b.plans = append(b.plans, one)
	if one.alone {
		c.settle()
	}
}

// tooLong refuses a command with a key that no cache takes, which would make the whole step fail, its neighbours' ops included.
func tooLong(ops []Op) string {
	for i := range ops {
		if len(ops[i].Key) > cache.MaxKey {
			return fmt.Sprintf("ERR a key of %d bytes, %d are possible", len(ops[i].Key), cache.MaxKey)
		}
	}
	return ""
}

func sizeOf(ops []Op) int {
	n := 0
	for _, op := range ops {
		n += len(op.Key) + len(op.Value) + len(op.Equal)
	}
	return n
}

// settle carries out what is gathered, and writes the answers.
func (c *conn) settle() {
	b := &c.batch
	if len(b.plans) == 0 {
		return
	}
	var results []Result
	held := true
	var err error
	if len(b.tx.Ops) > 0 {
		if b.level != LevelQuorum {
			c.weak = true
		}
		results, held, err = c.apply(b.level, b.tx)
	}
	for _, one := range b.plans {
		own := results
		if err == nil && held {
			own, results = results[:one.ops], results[one.ops:]
		}
		switch {
		case one.fail != "":
			c.w.fail(one.fail)
		case err != nil && one.ops > 0:
			c.w.fail(errorText(err))
		case !held:
			one.answer(&c.w, nil, one)
		default:
			one.write(&c.w, own)
		}
	}
	clear(b.tx.Ops) // they point into the reader's buffer
	b.tx.Ops, b.tx.Watch, b.plans, b.bytes = b.tx.Ops[:0], nil, b.plans[:0], 0
}

// write answers with what became of the command's own ops: if one of them could not be done, with why.
func (p planned) write(w *writer, own []Result) {
	for i := range own {
		if err := own[i].Err; err != nil {
			w.fail(resultError(err))
			return
		}
	}
	p.answer(w, own, p)
}

// apply is Store.Apply, which has a limit of time of its own.
func (c *conn) apply(level Level, tx Tx) ([]Result, bool, error) {
	results, held, err := c.server.store.Apply(c.limited(), c.db, level, tx)
	if errors.Is(err, ErrUnknown) { // it may be nowhere yet: WAIT looks
		c.weak = true
	}
	if err == nil && held && len(results) != len(tx.Ops) {
		return nil, false, errors.New("the cache answered another number of operations than it was given")
	}
	return results, held, err
}

// limited returns the context of a command that writes. It is used for a tenth of its time, for all commands then: one for each would
// cost a good part of what the command does.
func (c *conn) limited() context.Context {
	limit := c.server.cfg.CommandTimeout
	if now := time.Now(); c.limit == nil || now.Sub(c.limitSet) > limit/10 {
		if c.limit != nil {
			c.limitEnd()
		}
		c.limit, c.limitEnd = context.WithDeadline(c.ctx, now.Add(limit))
		c.limitSet = now
	}
	return c.limit
}

// errorText is what the client is told about an error of the Store.
func errorText(err error) string {
	switch {
	case errors.Is(err, ErrNoQuorum):
		return "CLUSTERDOWN The cache has no quorum: nothing was read or done. Try again"
	case errors.Is(err, ErrUnknown):
		return "UNKNOWN The outcome of the write is unknown: it may have been carried out. Read before you repeat it"
	case errors.Is(err, ErrNotDone):
		return "TRYAGAIN The cache could not do it now, and nothing was done. Try again"
	case errors.Is(err, ErrTooLarge):
		return "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
	}
	return "ERR " + err.Error()
}

// resultError is what the client is told about an op that could not be done.
func resultError(err error) string {
	switch {
	case errors.Is(err, ErrNotInteger):
		return errNotInteger
	case errors.Is(err, ErrOverflow):
		return "ERR increment or decrement would overflow"
	}
	return errorText(err)
}
