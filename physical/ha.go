package physical

import (
	"context"
	"time"
)

// HABackend is a data store in which one node at a time can hold a lock. It makes single attempts and
// keeps no timers: package election owns retries, renewal and expiry, once, for every store.
//
// All methods may be called concurrently, return within 100 ms of their context's end, and after Close return [ErrClosed]; so do
// those of [Watcher] and [Yielder]. An error that is none of those named below says that nothing was done, and nothing of the
// lock: while the store does not answer, a lock is neither lost nor free.
//
// The number of a leadership, its term, rises strictly over releases, expiries, takeovers and restarts of
// the store: whatever becomes of the lock itself, the number is never forgotten and never given twice.
type HABackend interface {
	// Acquire makes one attempt to take the lock for r.Holder, for ttl. The term that it is given is
	// greater than above and than every term that the lock has had. It returns a [*HeldError] (errors.Is
	// [ErrHeld]) while another holds the lock, also when the holder is r.Holder itself under an older grant.
	// An unclear outcome is [ErrUnknown]: the lock is perhaps held, and runs out by itself. A record without a Holder is
	// refused, with [ErrInvalid]: it would be a lock that is held and looks free. Where the store chooses who may acquire (see
	// [Yielder]), a node that was not chosen gets [ErrUnavailable].
	Acquire(ctx context.Context, r Record, ttl time.Duration, above uint64) (Grant, error)

	// Renew extends the grant by its TTL from an instant not before the call. It returns [ErrLost] once the
	// lock has run out or is another's, and never acquires anew. Any other error leaves the grant as it was.
	Renew(ctx context.Context, g Grant) (Grant, error)

	// Release gives the lock up, so that another can acquire it at once, and names in the record the node
	// that should ("" for whichever). It returns nil when the lock was already lost, and leaves a
	// successor's lock alone. The term is kept.
	Release(ctx context.Context, g Grant, next string) error

	// Holder returns the record of the lock while it is held. When it is not, it returns [ErrNoHolder] and
	// the last record with an empty Holder: its Term is the last one given, its Next the chosen successor.
	Holder(ctx context.Context) (Record, error)

	// Caps says what the store can do. It is constant from the moment the store is open.
	Caps() Caps

	// Close lets go of everything that the store holds; a lock that is held is left to run out. A second Close does nothing.
	Close() error
}

// Watcher is implemented by stores that can wake a standby: no polling where the store can tell.
type Watcher interface {
	// Watch waits until the record of the lock differs from seen, or until an Acquire has become worth
	// trying, and returns the record as it is then: one without a Holder when the lock is free. It may
	// return early.
	Watch(ctx context.Context, seen Record) (Record, error)
}

// Yielder is implemented by stores that choose who may acquire the lock before anyone asks, as raft does
// by electing a leader. A node that is not to become active hands that choice on.
type Yielder interface {
	// Yield passes the right to acquire to the node named, or to any other if to is "". It returns nil if
	// this node did not have it.
	Yield(ctx context.Context, to string) error
}

// Record is what the lock says of its holder. It is stored in plain (P8: it holds no secret).
type Record struct {
	Holder string `json:"holder"`         // the node's identity; "" while nobody holds the lock
	Name   string `json:"name,omitempty"` // the node's name, for people
	Term   uint64 `json:"term"`           // the term of this holder, or the last one given
	Next   string `json:"next,omitempty"` // set by a release: the identity of the node that should take over
}

// Grant is the proof of a lock that is held. It can be serialised, so that the guardian can release on
// behalf of a node that died.
type Grant struct {
	Record Record        `json:"record"`
	TTL    time.Duration `json:"ttl_ns"`          // in force; a store may have negotiated it
	Token  []byte        `json:"token,omitempty"` // the store's own: a session, a lease, a nonce
}

// Term returns the number of the leadership.
func (g Grant) Term() uint64 { return g.Record.Term }
