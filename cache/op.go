package cache

import (
	"fmt"
	"time"
)

// Level says when a write is acknowledged. Conditional operations are always acknowledged at Quorum,
// whatever level is asked for: their answer is known only then.
type Level uint8

const (
	// Quorum: the write is applied on a majority of the configured hosts, and survives the loss of any
	// minority of them, the leader included (P11).
	Quorum Level = iota
	// Once: the write is in the log of the leader and of one more node; it is lost only if the leader is
	// lost and the other does not become the next one or is lost too.
	Once
	// Leader: the write is in the log of the leader; it is lost if the leader is lost before others have it.
	Leader
	// Direct: the write is visible on this node at once and is on its way to the others. It takes part in the
	// log's order like any other write, and gives way to a write of the same key that the log has already.
	Direct
)

// String returns the level's name, as Locum's interfaces spell it.
func (l Level) String() string {
	switch l {
	case Quorum:
		return "quorum"
	case Once:
		return "once"
	case Leader:
		return "leader"
	case Direct:
		return "direct"
	}
	return fmt.Sprintf("level %d", uint8(l))
}

// ParseLevel is the other way; it returns [ErrInvalid] for anything else.
func ParseLevel(s string) (Level, error) {
	for l := Quorum; l <= Direct; l++ {
		if l.String() == s {
			return l, nil
		}
	}
	return 0, fmt.Errorf("%w: %q is no level; use quorum, once, leader or direct", ErrInvalid, s)
}

// Read says how fresh a read is.
type Read uint8

const (
	// Local: what this node has. It may lag behind the leader, by at most [Config].QuorumLossTimeout.
	Local Read = iota
	// OwnWrites: what this node has, once it has applied every write that was acknowledged through this
	// node, at any level.
	OwnWrites
	// Consistent: linearizable. A majority of the configured hosts confirms the leader first; no log entry.
	Consistent
)

// TTLs that are no durations.
const (
	// DefaultTTL takes the cache's default.
	DefaultTTL time.Duration = 0
	// NoExpiry keeps the entry until it is removed or evicted.
	NoExpiry time.Duration = -1
	// KeepTTL leaves the expiry as it is; none if the entry is new.
	KeepTTL time.Duration = -2
)

// OpKind is what an operation does. The numbers are part of the log's format and never change.
type OpKind uint8

const (
	OpGet       OpKind = 1 // result: Found, Value, Version, TTL
	OpPut       OpKind = 2 // Value, TTL, If
	OpDelete    OpKind = 3 // If; result: Found, and Value (the old one) if WantOld
	OpIncrement OpKind = 4 // Delta, TTL for a new entry only; result: Number
	OpAppend    OpKind = 5 // Value, TTL for a new entry only; result: Number, the new length
	OpTouch     OpKind = 6 // TTL becomes the entry's; NoExpiry takes the expiry away; result: Found
	OpClear     OpKind = 7 // all entries of the cache
	OpPublish   OpKind = 8 // Key is the channel, Value the message; nothing is stored

	opTick    OpKind = 64 // time passes
	opDeclare OpKind = 65 // Value: the options of all caches, as the leader is configured
)

// Condition is what must hold for an operation to be carried out.
type Condition uint8

const (
	Always    Condition = iota
	IfAbsent            // no such entry
	IfPresent           // there is one
	IfVersion           // it has Op.Version
	IfValue             // its value is Op.Expect
	IfExpires           // it expires some time
	IfLasting           // there is one, and it does not expire
	IfLonger            // it expires before Op.TTL would have it expire
	IfShorter           // it does not expire, or later than Op.TTL would have it expire
	IfSooner            // it expires, and later than Op.TTL would have it expire
)

// Op is one operation on one cache. Cache and Key are not checked further: any bytes will do.
type Op struct {
	Kind    OpKind
	Cache   string
	Key     string
	Value   []byte
	TTL     time.Duration // DefaultTTL, NoExpiry, KeepTTL, or at least a millisecond
	If      Condition
	Version uint64
	Expect  []byte
	Delta   int64
	WantOld bool // the result carries the entry as it was before

	base uint64 // of a direct put: it gives way to a version above this one
	from string // of a direct put: unless this node wrote it
	ends int64  // of a direct put: when it expires, milliseconds of the log's time; 0 for never. It has no TTL
}

// conditional reports whether the answer is known only when the operation has been applied.
func (op *Op) conditional() bool {
	switch op.Kind {
	case OpPut:
		return op.If != Always || op.WantOld || op.TTL == KeepTTL
	case OpDelete:
		return op.If != Always || op.WantOld
	case OpClear, OpPublish:
		return false
	}
	return true
}

// Result is what an operation did.
type Result struct {
	// Done: it was carried out. False if the condition did not hold, or Err is set; for OpGet and OpTouch, if
	// there is no such entry.
	Done bool
	// Found: there was an entry before.
	Found   bool
	Value   []byte        // OpGet: its value. With WantOld, or if the condition did not hold: the value before. Do not change it
	Version uint64        // the entry's version after the operation; before it, if not Done
	TTL     time.Duration // OpGet, or with WantOld: what is left; NoExpiry if it does not expire
	Number  int64         // OpIncrement, OpAppend
	Err     error         // ErrNotNumber, ErrOverflow, ErrTooLarge, ErrInvalid
}

// Watch is a condition of a transaction: the key has still this version; 0 means that there is no such entry.
type Watch struct {
	Cache   string
	Key     string
	Version uint64
}

// Txn is a list of operations that are carried out with nothing in between, on every node. It is carried
// out if all watched keys are unchanged; an operation whose own condition does not hold, or that fails, does
// not keep the others from being carried out. The values that it returns have 32 MiB together at most: an OpGet, or an operation with
// WantOld, whose value would be beyond that is not carried out and has [ErrTooLarge]; the value that a condition met is left out.
type Txn struct {
	Watch []Watch
	Ops   []Op
}

// Item is an entry as a read found it. A direct put that the log has not decided yet is shown with a version of 1<<63 or more, of its own;
// what asks for that version finds a conflict. The entry's version is known when the log has the put.
type Item struct {
	Value   []byte        // shared: do not change it
	Version uint64        // rises with every change of the entry, and is never used again
	TTL     time.Duration // what is left; NoExpiry if it does not expire
}
