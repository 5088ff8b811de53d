package resp

import (
	"context"
	"errors"
	"time"
)

// Level is how far a write must have come before it is answered: see package cache.
type Level uint8

// The levels that LOCUM.ACK takes. Whatever is conditional on what is stored is always carried out at LevelQuorum.
const (
	LevelQuorum Level = iota // applied on a majority of the configured hosts
	LevelOnce                // the leader and one more node
	LevelLeader              // the leader
	LevelDirect              // this node
)

// Errors of a Store. Others are shown to the client as they are, behind "ERR".
var (
	// ErrNoQuorum: nothing was read or done, since this node has no quorum (P11). The client sees "CLUSTERDOWN …".
	ErrNoQuorum = errors.New("no quorum")

	// ErrUnknown: the write was sent and its outcome is not known. The client sees "UNKNOWN …".
	ErrUnknown = errors.New("outcome unknown")

	// ErrNotDone: the write was not carried out and never will be. The client sees "TRYAGAIN …".
	ErrNotDone = errors.New("not done")

	// ErrTooLarge: a value or batch is larger than the cache takes; nothing was done.
	ErrTooLarge = errors.New("too large")

	// ErrNotInteger: an Incr met a value that is no 64-bit integer. Only in Result.Err.
	ErrNotInteger = errors.New("value is not an integer or out of range")

	// ErrOverflow: an Incr would leave the range of 64 bits. Only in Result.Err.
	ErrOverflow = errors.New("increment or decrement would overflow")
)

// Store is what the server needs of a cache: numbered databases, of which all keys of one connection at a time are in one.
// Its methods may be called concurrently. Slices that are passed in are not kept; slices that come out are not changed.
type Store interface {
	// Get reads a key from this node's memory, without waiting. It sees every write that this node has answered before.
	Get(db int, key []byte) (entry Entry, found bool, err error)

	// Scan lists about count keys and where to go on, 0 at the end. Every key that is there from the first call, with cursor 0, to
	// the last is listed once or more. A cursor is good on the node that gave it.
	Scan(db int, cursor uint64, count int) (keys []string, next uint64, err error)

	// Len is how many keys there are.
	Len(db int) (int, error)

	// Apply carries out all ops, in order and as one step that nothing comes between, or nothing. If a watched key is not
	// at its version any more it does nothing and returns swapped = false. It waits for a limited time only.
	Apply(ctx context.Context, db int, level Level, tx Tx) (results []Result, swapped bool, err error)

	// Clear removes every key of every database, as one step.
	Clear(ctx context.Context) error

	// Publish sends a message to the subscribers on all nodes.
	Publish(ctx context.Context, channel string, message []byte) error

	// Subscribe calls deliver with every message, in one order for all nodes, until ctx ends or nothing can be received; it
	// calls lost when some were missed.
	Subscribe(ctx context.Context, deliver func(channel string, message []byte), lost func()) error

	// Settle returns when every write that this node has answered before, at whatever level, has come as far as LevelQuorum asks.
	Settle(ctx context.Context) error

	// Replicas is how many nodes beside the leader are known to have every write of level quorum that was answered.
	Replicas() int

	// Info describes the node, for INFO.
	Info() Info
}

// Entry is one key's value.
type Entry struct {
	Value   []byte
	TTL     time.Duration // what is left of it; 0 if it does not expire
	Version uint64        // rises with every change, never 0
}

// Tx is one atomic step.
type Tx struct {
	Watch []Watched // all must hold, or nothing is done
	Ops   []Op
}

// Watched is a key with the version that it was seen at, 0 for a key that was not there.
type Watched struct {
	Key     []byte
	Version uint64
}

// Kind is what an Op does.
type Kind uint8

// The kinds of ops, with what they put into the Result. Found and Old tell of the key before the op.
const (
	OpGet    Kind = iota // Old, TTL
	OpPut                // Done; stores Value
	OpDelete             // Done
	OpExpire             // Done; sets the TTL, or removes it with KeepNone
	OpIncr               // Number, the new value; keeps the TTL. A key that is not there counts as 0
	OpAppend             // Number, the new length; keeps the TTL
	OpClear              // removes every key of the database
)

// Expiry is what becomes of a key's TTL.
type Expiry uint8

// What OpPut and OpExpire do with the TTL.
const (
	ExpiryNone Expiry = iota // the key does not expire
	ExpiryKeep               // it stays as it is
	ExpirySet                // it is Op.TTL from now on; one that is not positive removes the key
)

// Condition is when an op is carried out.
type Condition uint8

// Conditions of OpPut and OpDelete, then those of OpExpire.
const (
	Always Condition = iota
	IfAbsent
	IfPresent
	IfEqual      // the value is Op.Equal
	IfNoTTL      // it does not expire
	IfTTL        // it expires
	IfLater      // the new TTL is longer; one without TTL counts as infinite
	IfEarlier    // the new TTL is shorter
	IfEarlierTTL // it expires, and the new TTL is shorter
)

// Op is one operation on one key.
type Op struct {
	Kind   Kind
	Key    []byte
	Value  []byte // OpPut, OpAppend
	Equal  []byte // IfEqual
	Delta  int64  // OpIncr
	If     Condition
	Expiry Expiry
	TTL    time.Duration // ExpirySet
	Old    bool          // put the value before the op into Result.Old, also for other kinds than OpGet
}

// Result is what came of an Op.
type Result struct {
	Done   bool // it was carried out: its condition held, and there was something to do it to
	Found  bool // there was such a key before
	Old    []byte
	TTL    time.Duration // before the op; 0 if it does not expire
	Number int64
	Err    error // ErrNotInteger or ErrOverflow: this op did nothing, the others went on
}

// Info is what INFO tells of the node.
type Info struct {
	Version  string // of Locum
	IsLeader bool
	Leader   string   // host:port of the leader's cache port, "" if there is none
	Others   []string // the other nodes that are connected, host:port
	Term     uint64
	Bytes    int64 // of keys and values
	Hits     uint64
	Misses   uint64
	Evicted  uint64
	Expired  uint64
	Started  time.Time
}
