package resp

import (
	"strconv"
)

// keyCommands are about keys, whatever is in them.
var keyCommands = []command{
	{name: "del", arity: -2, traits: writes, first: 1, last: -1, step: 1, plan: planDel},
	{name: "unlink", arity: -2, traits: writes | fast, first: 1, last: -1, step: 1, plan: planDel},
	{name: "delifeq", arity: 3, traits: writes | fast, first: 1, last: 1, step: 1, plan: planDelIfEq},
	{name: "exists", arity: -2, traits: fast, first: 1, last: -1, step: 1, plan: planExists, read: (*conn).exists},
	{name: "type", arity: 2, traits: fast, first: 1, last: 1, step: 1, plan: planType, read: (*conn).keyType},
	{name: "flushdb", arity: -1, traits: writes, plan: planFlush},
	{name: "flushall", arity: -1, traits: writes | notInMulti, run: (*conn).flushAll},
	{name: "dbsize", arity: 1, traits: fast, run: (*conn).dbSize},
	{name: "scan", arity: -2, run: (*conn).scan},
}

func planDel(p *plan, args [][]byte) planned {
	for _, key := range args[1:] {
		p.add(Op{Kind: OpDelete, Key: key})
	}
	return planned{answer: answerSum}
}

func planDelIfEq(p *plan, args [][]byte) planned {
	p.add(Op{Kind: OpDelete, Key: args[1], If: IfEqual, Equal: args[2]})
	return planned{answer: answerDone}
}

func planExists(p *plan, args [][]byte) planned {
	for _, key := range args[1:] {
		p.add(Op{Kind: OpGet, Key: key})
	}
	return planned{answer: answerFound}
}

func (c *conn) exists(args [][]byte) {
	n := int64(0)
	for _, key := range args[1:] {
		_, found, err := c.server.store.Get(c.db, key)
		if err != nil {
			c.w.fail(errorText(err))
			return
		}
		if found {
			n++
		}
	}
	c.w.integer(n)
}

func typeName(found bool) string {
	if found {
		return "string"
	}
	return "none"
}

func planType(p *plan, args [][]byte) planned {
	p.add(Op{Kind: OpGet, Key: args[1]})
	return planned{answer: func(w *writer, rs []Result, _ planned) { w.simple(typeName(rs[0].Found)) }}
}

func (c *conn) keyType(args [][]byte) {
	_, found, err := c.server.store.Get(c.db, args[1])
	if err != nil {
		c.w.fail(errorText(err))
		return
	}
	c.w.simple(typeName(found))
}

// planFlush is FLUSHDB [ASYNC|SYNC], which are the same here.
func planFlush(p *plan, args [][]byte) planned {
	if !flushOption(args) {
		return failed(errSyntax)
	}
	p.add(Op{Kind: OpClear})
	return planned{answer: answerOK}
}

func flushOption(args [][]byte) bool {
	return len(args) == 1 || len(args) == 2 && (upper(args[1], "ASYNC") || upper(args[1], "SYNC"))
}

// flushAll empties all databases in one step.
func (c *conn) flushAll(args [][]byte) error {
	if !flushOption(args) {
		c.w.fail(errSyntax)
		return nil
	}
	if err := c.server.store.Clear(c.limited()); err != nil {
		c.w.fail(errorText(err))
		return nil
	}
	c.w.ok()
	return nil
}

func (c *conn) dbSize([][]byte) error {
	n, err := c.server.store.Len(c.db)
	if err != nil {
		c.w.fail(errorText(err))
		return nil
	}
	c.w.integer(int64(n))
	return nil
}

// Bounds of SCAN.
const (
	scanCount = 10
	maxScan   = 10000 // keys that are looked at for one answer, whatever COUNT says
)

// scan is SCAN cursor [MATCH pattern] [COUNT n] [TYPE name]. A key that is there from the first call to the last is listed, once or more.
func (c *conn) scan(args [][]byte) error {
	cursor, err := strconv.ParseUint(string(args[1]), 10, 64)
	if err != nil {
		c.w.fail("ERR invalid cursor")
		return nil
	}
	count, pattern, strings := int64(scanCount), []byte(nil), true
	for i := 2; i < len(args); i += 2 {
		switch {
		case i+1 == len(args):
			c.w.fail(errSyntax)
			return nil
		case upper(args[i], "COUNT"):
			n, ok := parseInt(args[i+1])
			if !ok {
				c.w.fail(errNotInteger)
				return nil
			}
			if n < 1 {
				c.w.fail(errSyntax)
				return nil
			}
			count = n
		case upper(args[i], "MATCH"):
			pattern = args[i+1]
		case upper(args[i], "TYPE"):
			strings = upper(args[i+1], "STRING")
		default:
			c.w.fail(errSyntax)
			return nil
		}
	}
	keys, next, err := c.server.store.Scan(c.db, cursor, int(min(count, maxScan)))
	if err != nil {
		c.w.fail(errorText(err))
		return nil
	}
	matching := keys[:0:0]
	for _, key := range keys {
		if strings && (pattern == nil || match(pattern, key)) {
			matching = append(matching, key)
		}
	}
	c.w.array(2)
	c.w.text(strconv.FormatUint(next, 10))
	c.w.array(len(matching))
	for _, key := range matching {
		c.w.text(key)
	}
	return nil
}

// match tells whether text fits a pattern with *, ?, [a-c], [^a] and \x, as Redis matches. It takes time in proportion to the product of
// the lengths, whatever the pattern.
func match(pattern []byte, text string) bool {
	p, t := 0, 0
	star, mark := -1, 0 // where to go back to
	for t < len(text) {
		if p < len(pattern) && pattern[p] == '*' {
			star, mark = p, t
			p++
			continue
		}
		if p < len(pattern) {
			if ok, n := matchOne(pattern[p:], text[t]); ok {
				p, t = p+n, t+1
				continue
			}
		}
		if star < 0 {
			return false
		}
		mark++
		p, t = star+1, mark
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// matchOne matches the element that pattern begins with, which is n bytes long.
func matchOne(pattern []byte, c byte) (ok bool, n int) {
	switch pattern[0] {
	case '?':
		return true, 1
	case '\\':
		if len(pattern) > 1 {
			return pattern[1] == c, 2
		}
	case '[':
		return matchClass(pattern, c)
	}
	return pattern[0] == c, 1
}

func matchClass(pattern []byte, c byte) (ok bool, n int) {
	i := 1
	not := i < len(pattern) && pattern[i] == '^'
	if not {
		i++
	}
	for ; i < len(pattern) && pattern[i] != ']'; i++ {
		switch {
		case pattern[i] == '\\' && i+1 < len(pattern):
			i++
			ok = ok || pattern[i] == c
		case i+2 < len(pattern) && pattern[i+1] == '-':
			low, high := pattern[i], pattern[i+2]
			if low > high {
				low, high = high, low
			}
			ok = ok || low <= c && c <= high
			i += 2
		default:
			ok = ok || pattern[i] == c
		}
	}
	return ok != not, min(i+1, len(pattern))
}
