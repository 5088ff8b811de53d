package resp

import (
	"time"
)

// stringCommands read and write values.
var stringCommands = []command{
	{name: "get", arity: 2, traits: fast, first: 1, last: 1, step: 1, plan: planGet, read: (*conn).get},
	{name: "set", arity: -3, traits: writes, first: 1, last: 1, step: 1, plan: planSet},
	{name: "setex", arity: 4, traits: writes, first: 1, last: 1, step: 1, plan: planSetEx(time.Second)},
	{name: "psetex", arity: 4, traits: writes, first: 1, last: 1, step: 1, plan: planSetEx(time.Millisecond)},
	{name: "setnx", arity: 3, traits: writes | fast, first: 1, last: 1, step: 1, plan: planSetNX},
	{name: "getset", arity: 3, traits: writes | fast, first: 1, last: 1, step: 1, plan: planGetSet},
	{name: "getdel", arity: 2, traits: writes | fast, first: 1, last: 1, step: 1, plan: planGetDel},
	{name: "getex", arity: -2, traits: writes | fast, first: 1, last: 1, step: 1, plan: planGetEx},
	{name: "mget", arity: -2, traits: fast, first: 1, last: -1, step: 1, plan: planMGet, read: (*conn).mget},
	{name: "mset", arity: -3, traits: writes, first: 1, last: -1, step: 2, plan: planMSet},
	{name: "msetnx", arity: -3, traits: writes | notInMulti, first: 1, last: -1, step: 2, plan: planMSetNX},
	{name: "incr", arity: 2, traits: writes | fast, first: 1, last: 1, step: 1, plan: planIncr(1)},
	{name: "decr", arity: 2, traits: writes | fast, first: 1, last: 1, step: 1, plan: planIncr(-1)},
	{name: "incrby", arity: 3, traits: writes | fast, first: 1, last: 1, step: 1, plan: planIncrBy},
	{name: "decrby", arity: 3, traits: writes | fast, first: 1, last: 1, step: 1, plan: planDecrBy},
	{name: "append", arity: 3, traits: writes | fast, first: 1, last: 1, step: 1, plan: planAppend},
	{name: "strlen", arity: 2, traits: fast, first: 1, last: 1, step: 1, plan: planStrlen, read: (*conn).strlen},
}

func planGet(p *plan, args [][]byte) planned {
	p.add(Op{Kind: OpGet, Key: args[1]})
	return planned{answer: answerOld}
}

func (c *conn) get(args [][]byte) {
	entry, found, err := c.server.store.Get(c.db, args[1])
	if err != nil {
		c.w.fail(errorText(err))
		return
	}
	c.w.value(entry.Value, found)
}

func planMGet(p *plan, args [][]byte) planned {
	for _, key := range args[1:] {
		p.add(Op{Kind: OpGet, Key: key})
	}
	return planned{answer: answerOlds}
}

func (c *conn) mget(args [][]byte) {
	before := len(c.w.buf)
	c.w.array(len(args) - 1)
	for _, key := range args[1:] {
		entry, found, err := c.server.store.Get(c.db, key)
		if err != nil {
			c.w.buf = c.w.buf[:before]
			c.w.fail(errorText(err))
			return
		}
		c.w.value(entry.Value, found)
	}
}

func planStrlen(p *plan, args [][]byte) planned {
	p.add(Op{Kind: OpGet, Key: args[1]})
	return planned{answer: func(w *writer, rs []Result, _ planned) { w.integer(int64(len(rs[0].Old))) }}
}

func (c *conn) strlen(args [][]byte) {
	entry, _, err := c.server.store.Get(c.db, args[1])
	if err != nil {
		c.w.fail(errorText(err))
		return
	}
	c.w.integer(int64(len(entry.Value)))
}

// planSet is SET key value [NX|XX|IFEQ value] [GET] [EX s|PX ms|EXAT s|PXAT ms|KEEPTTL].
func planSet(p *plan, args [][]byte) planned {
	op := Op{Kind: OpPut, Key: args[1], Value: args[2]}
	var e expiryOption
	for i := 3; i < len(args); i++ {
		more := i+1 < len(args)
		switch arg := args[i]; {
		case upper(arg, "NX") && op.If == Always:
			op.If = IfAbsent
		case upper(arg, "XX") && op.If == Always:
			op.If = IfPresent
		case upper(arg, "IFEQ") && op.If == Always && more:
			i++
			op.If, op.Equal = IfEqual, args[i]
		case upper(arg, "NX") && op.If == IfAbsent, upper(arg, "XX") && op.If == IfPresent:
		case upper(arg, "GET"):
			op.Old = true
		case upper(arg, "KEEPTTL") && !e.given && !e.persist:
			op.Expiry = ExpiryKeep
		case op.Expiry != ExpiryKeep && more && e.take(arg, args[i+1]):
			i++
		default:
			return failed(errSyntax)
		}
	}
	if e.given {
		ttl, ok := e.ttl(time.Now())
		if !ok {
			return failed(e.refusal("set"))
		}
		op.Expiry, op.TTL = ExpirySet, ttl
	}
	p.add(op)
	switch {
	case op.Old:
		return planned{answer: answerOld}
	case op.If == Always:
		return planned{answer: answerOK}
	}
	return planned{answer: func(w *writer, rs []Result, _ planned) {
		if rs[0].Done {
			w.ok()
			return
		}
		w.null()
	}}
}

// planSetEx is SETEX and PSETEX key time value.
func planSetEx(unit time.Duration) func(*plan, [][]byte) planned {
	return func(p *plan, args [][]byte) planned {
		e := expiryOption{given: true, unit: unit, text: args[2]}
		ttl, ok := e.ttl(time.Now())
		if !ok {
			name := "setex"
			if unit == time.Millisecond {
				name = "psetex"
			}
			return failed(e.refusal(name))
		}
		p.add(Op{Kind: OpPut, Key: args[1], Value: args[3], Expiry: ExpirySet, TTL: ttl})
		return planned{answer: answerOK}
	}
}

func planSetNX(p *plan, args [][]byte) planned {
	p.add(Op{Kind: OpPut, Key: args[1], Value: args[2], If: IfAbsent})
	return planned{answer: answerDone}
}

func planGetSet(p *plan, args [][]byte) planned {
	p.add(Op{Kind: OpPut, Key: args[1], Value: args[2], Old: true})
	return planned{answer: answerOld}
}

func planGetDel(p *plan, args [][]byte) planned {
	p.add(Op{Kind: OpDelete, Key: args[1], Old: true})
	return planned{answer: answerOld}
}

// planGetEx is GETEX key [EX s|PX ms|EXAT s|PXAT ms|PERSIST].
func planGetEx(p *plan, args [][]byte) planned {
	var e expiryOption
	for i := 2; i < len(args); i++ {
		switch more := i+1 < len(args); {
		case upper(args[i], "PERSIST") && !e.given:
			e.persist = true
		case !e.persist && more && e.take(args[i], args[i+1]):
			i++
		default:
			return failed(errSyntax)
		}
	}
	switch {
	case e.given:
		ttl, ok := e.ttl(time.Now())
		if !ok {
			return failed(e.refusal("getex"))
		}
		p.add(Op{Kind: OpExpire, Key: args[1], Expiry: ExpirySet, TTL: ttl, Old: true})
	case e.persist:
		p.add(Op{Kind: OpExpire, Key: args[1], Expiry: ExpiryNone, If: IfTTL, Old: true})
	default:
		p.add(Op{Kind: OpGet, Key: args[1]})
	}
	return planned{answer: answerOld}
}

func planMSet(p *plan, args [][]byte) planned {
	if len(args)%2 == 0 {
		return failed(wrongNumber("mset"))
	}
	for i := 1; i < len(args); i += 2 {
		p.add(Op{Kind: OpPut, Key: args[i], Value: args[i+1]})
	}
	return planned{answer: answerOK, alone: len(args) > 2*batchOps}
}

// planMSetNX is carried out alone: that all its keys are absent is the condition of the step.
func planMSetNX(p *plan, args [][]byte) planned {
	if len(args)%2 == 0 {
		return failed(wrongNumber("msetnx"))
	}
	for i := 1; i < len(args); i += 2 {
		p.watch = append(p.watch, Watched{Key: args[i]})
		p.add(Op{Kind: OpPut, Key: args[i], Value: args[i+1]})
	}
	return planned{alone: true, answer: func(w *writer, rs []Result, _ planned) { w.flag(rs != nil) }}
}

func planIncr(delta int64) func(*plan, [][]byte) planned {
	return func(p *plan, args [][]byte) planned {
		p.add(Op{Kind: OpIncr, Key: args[1], Delta: delta})
		return planned{answer: answerNumber}
	}
}

func planIncrBy(p *plan, args [][]byte) planned {
	delta, ok := parseInt(args[2])
	if !ok {
		return failed(errNotInteger)
	}
	p.add(Op{Kind: OpIncr, Key: args[1], Delta: delta})
	return planned{answer: answerNumber}
}

func planDecrBy(p *plan, args [][]byte) planned {
	delta, ok := parseInt(args[2])
	switch {
	case !ok:
		return failed(errNotInteger)
	case delta == -1<<63:
		return failed("ERR decrement would overflow")
	}
	p.add(Op{Kind: OpIncr, Key: args[1], Delta: -delta})
	return planned{answer: answerNumber}
}

func planAppend(p *plan, args [][]byte) planned {
	p.add(Op{Kind: OpAppend, Key: args[1], Value: args[2]})
	return planned{answer: answerNumber}
}
