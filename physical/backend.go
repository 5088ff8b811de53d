package physical

import (
	"context"
	"fmt"
)

// Backend is a data store for small entries.
//
// Keys are non-empty slash-separated paths of valid UTF-8 without control characters, not starting or
// ending in "/", and without empty, "." or ".." segments ([CheckKey]). Values are any bytes, the empty
// value included. All methods may be called concurrently, return within 100 ms of their context's end,
// and after Close return [ErrClosed].
type Backend interface {
	// Get returns the entry at key, or [ErrNotFound]. For the active node it is current: it reflects every
	// Commit that returned before the call began, on whichever node. On a standby it may lag behind
	// (see [Caps.LocalReads]). The caller owns the returned value.
	Get(ctx context.Context, key string) (*Entry, error)

	// List returns the direct children of prefix, which is "" or ends in "/", relative to it, in ascending
	// byte order. A child with children of its own is listed as a folder with "/" at its end; a name that is
	// both an entry and a folder is listed twice. Only names greater than after are returned (after need not
	// exist), at most limit of them where limit > 0. A prefix without children gives an empty list.
	List(ctx context.Context, prefix, after string, limit int) ([]string, error)

	// Commit applies all ops, in order, or none. Conditions among them are checked against the state before
	// the commit; if one fails nothing is written and the error is [ErrConflict]. A key may be written once
	// in a commit, and conditioned once.
	//
	// With a fence the ops are applied only while the stored fence is exactly that one, checked in the same
	// transaction (P1); otherwise [ErrFenced]. Without a fence (nil) a commit succeeds only while the store has
	// no fence yet; otherwise [ErrFenced].
	//
	// Ops beyond the store's limits ([Caps]) are refused with a [*TooLargeError] before anything is sent. An
	// outcome that cannot be known is [ErrUnknown]; every other error says that nothing was written.
	Commit(ctx context.Context, fence *Fence, ops ...Op) error

	// RaiseFence replaces the stored fence from by to, in one step. It returns [ErrFenced] if the stored one
	// is not from any more, or if to is not higher ([Fence.Below]). The first fence is raised from the zero
	// Fence. Its outcome can be [ErrUnknown]: then Fence tells, by the nonce, who won.
	RaiseFence(ctx context.Context, from, to Fence) error

	// Fence returns the stored fence, current as in Get; the zero Fence if there is none yet.
	Fence(ctx context.Context) (Fence, error)

	// Caps says what the store can do. It is constant from the moment the store is open.
	Caps() Caps

	// Close lets go of everything that the store holds. A second Close does nothing.
	Close() error
}

// Gatherer is implemented by stores that put commits which wait into one transaction by themselves. For the others the node
// does it, within their limits.
type Gatherer interface {
	// GathersCommits does nothing: that it is there says so.
	GathersCommits()
}

// Entry is one stored value with its name.
type Entry struct {
	Key   string
	Value []byte
}

// Fence is who may write: all three fields are compared, so that two holders of one number cannot be
// taken for each other. The zero Fence means that there is none.
type Fence struct {
	Lineage string   // which history of locks the term belongs to; a new one when ha_storage changes
	Term    uint64   // the term of the leadership that may write
	Nonce   [16]byte // fresh for every raise, so that an unclear raise can be settled by reading back
}

// IsZero reports whether f is the fence of a store that has none yet.
func (f Fence) IsZero() bool { return f == Fence{} }

// Below reports whether to may replace f: a higher term, of whichever lineage. A lineage's terms start
// above those of the one before, so that terms rise for the life of the cluster.
func (f Fence) Below(to Fence) bool { return to.Term > f.Term && to.Lineage != "" }

// String shows lineage and term.
func (f Fence) String() string { return fmt.Sprintf("%s/%d/%x", f.Lineage, f.Term, f.Nonce[:4]) }

// OpKind says what an Op does.
type OpKind uint8

// The kinds of Op. The numbers are part of stored formats and never change.
const (
	OpPut           OpKind = 1 // write Value at Key
	OpDelete        OpKind = 2 // remove Key; nothing happens if it is not there
	OpRequireAbsent OpKind = 3 // condition: there is no entry at Key
	OpRequireValue  OpKind = 4 // condition: the entry at Key holds exactly Value
)

// Op is one step of a Commit.
type Op struct {
	Kind  OpKind
	Key   string
	Value []byte
}

// Put writes value at key.
func Put(key string, value []byte) Op { return Op{Kind: OpPut, Key: key, Value: value} }

// Delete removes the entry at key, if there is one.
func Delete(key string) Op { return Op{Kind: OpDelete, Key: key} }

// RequireAbsent lets a commit succeed only if there is no entry at key.
func RequireAbsent(key string) Op { return Op{Kind: OpRequireAbsent, Key: key} }

// RequireValue lets a commit succeed only if the entry at key holds exactly value.
func RequireValue(key string, value []byte) Op {
	return Op{Kind: OpRequireValue, Key: key, Value: value}
}

// IsCondition reports whether the op checks and writes nothing.
func (o Op) IsCondition() bool { return o.Kind == OpRequireAbsent || o.Kind == OpRequireValue }
