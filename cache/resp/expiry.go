package resp

import (
	"math"
	"time"
)

// expiryCommands are about the TTL of keys.
var expiryCommands = []command{
	{name: "expire", arity: -3, traits: writes | fast, first: 1, last: 1, step: 1, plan: planExpire("expire", time.Second, false)},
	{name: "pexpire", arity: -3, traits: writes | fast, first: 1, last: 1, step: 1, plan: planExpire("pexpire", time.Millisecond, false)},
	{name: "expireat", arity: -3, traits: writes | fast, first: 1, last: 1, step: 1, plan: planExpire("expireat", time.Second, true)},
	{name: "pexpireat", arity: -3, traits: writes | fast, first: 1, last: 1, step: 1, plan: planExpire("pexpireat", time.Millisecond, true)},
	{name: "persist", arity: 2, traits: writes | fast, first: 1, last: 1, step: 1, plan: planPersist},
	remaining("ttl", func(ttl time.Duration) int64 { return int64((ttl + 500*time.Millisecond) / time.Second) }),
	remaining("pttl", func(ttl time.Duration) int64 { return ceilMillis(ttl) }),
	remaining("expiretime", func(ttl time.Duration) int64 { return time.Now().Add(ttl + 500*time.Millisecond).Unix() }),
}

// ceilMillis rounds up, so that what has not expired shows some time left.
func ceilMillis(d time.Duration) int64 { return int64((d + time.Millisecond - 1) / time.Millisecond) }

// expiryOption is EX, PX, EXAT or PXAT with its argument.
type expiryOption struct {
	given   bool
	persist bool
	unit    time.Duration
	at      bool // an instant, counted from 1970
	text    []byte
	zero    bool // 0 and less are allowed: the key is removed
	bad     bool // the text is no integer
}

// take reports whether arg is such an option, and only one is given.
func (e *expiryOption) take(arg, value []byte) bool {
	if e.given {
		return false
	}
	switch {
	case upper(arg, "EX"):
		e.unit = time.Second
	case upper(arg, "PX"):
		e.unit = time.Millisecond
	case upper(arg, "EXAT"):
		e.unit, e.at = time.Second, true
	case upper(arg, "PXAT"):
		e.unit, e.at = time.Millisecond, true
	default:
		return false
	}
	e.given, e.text = true, value
	return true
}

// ttl is what the key has from now on; false if the number cannot be taken. An instant is compared with this host's clock: it is the
// client's word against it, never another node's.
func (e *expiryOption) ttl(now time.Time) (time.Duration, bool) {
	n, ok := parseInt(e.text)
	if !ok {
		e.bad = true
		return 0, false
	}
	if n <= 0 && !e.zero {
		return 0, false
	}
	perUnit := int64(e.unit / time.Millisecond)
	if n > math.MaxInt64/perUnit || n < math.MinInt64/perUnit {
		return 0, false
	}
	millis := n * perUnit
	if e.at {
		millis -= now.UnixMilli() // the sum stays in range: one of them is positive, or both are small
	} else if millis > math.MaxInt64-now.UnixMilli() {
		return 0, false
	}
	return time.Duration(min(max(millis, -longest), longest)) * time.Millisecond, true
}

// longest is a TTL beyond which nobody can tell the difference, in milliseconds: 200 years.
const longest = int64(200 * 365 * 24 * time.Hour / time.Millisecond)

// refusal says why ttl returned false, for the command of this name.
func (e *expiryOption) refusal(name string) string {
	if e.bad {
		return errNotInteger
	}
	return "ERR invalid expire time in '" + name + "' command"
}

// planExpire is EXPIRE and its kin: key time [NX|XX|GT|LT].
func planExpire(name string, unit time.Duration, at bool) func(*plan, [][]byte) planned {
	return func(p *plan, args [][]byte) planned {
		var nx, xx, gt, lt bool
		for _, arg := range args[3:] {
			switch {
			case upper(arg, "NX"):
				nx = true
			case upper(arg, "XX"):
				xx = true
			case upper(arg, "GT"):
				gt = true
			case upper(arg, "LT"):
				lt = true
			default:
				return failed("ERR Unsupported option " + string(arg))
			}
		}
		switch {
		case nx && (xx || gt || lt):
			return failed("ERR NX and XX, GT or LT options at the same time are not compatible")
		case gt && lt:
			return failed("ERR GT and LT options at the same time are not compatible")
		}
		e := expiryOption{given: true, unit: unit, at: at, text: args[2], zero: true}
		ttl, ok := e.ttl(time.Now())
		if !ok {
			return failed(e.refusal(name))
		}
		op := Op{Kind: OpExpire, Key: args[1], Expiry: ExpirySet, TTL: ttl}
		switch {
		case nx:
			op.If = IfNoTTL
		case gt:
			op.If = IfLater // of a key without TTL nothing is later, so XX adds nothing
		case lt && xx:
			op.If = IfEarlierTTL
		case lt:
			op.If = IfEarlier
		case xx:
			op.If = IfTTL
		}
		p.add(op)
		return planned{answer: answerDone}
	}
}

func planPersist(p *plan, args [][]byte) planned {
	p.add(Op{Kind: OpExpire, Key: args[1], Expiry: ExpiryNone, If: IfTTL})
	return planned{answer: answerDone}
}

// remaining makes a command that shows a TTL: -2 where there is no key, -1 where it does not expire.
func remaining(name string, show func(time.Duration) int64) command {
	write := func(w *writer, ttl time.Duration, found bool) {
		switch {
		case !found:
			w.integer(-2)
		case ttl == 0:
			w.integer(-1)
		default:
			w.integer(show(ttl))
		}
	}
	return command{
		name: name, arity: 2, traits: fast, first: 1, last: 1, step: 1,
		plan: func(p *plan, args [][]byte) planned {
			p.add(Op{Kind: OpGet, Key: args[1]})
			return planned{answer: func(w *writer, rs []Result, _ planned) { write(w, rs[0].TTL, rs[0].Found) }}
		},
		read: func(c *conn, args [][]byte) {
			entry, found, err := c.server.store.Get(c.db, args[1])
			if err != nil {
				c.w.fail(errorText(err))
				return
			}
			write(&c.w, entry.TTL, found)
		},
	}
}
