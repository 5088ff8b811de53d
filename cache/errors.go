package cache

import "errors"

// What can become of a call. Every error of a write is exactly one of [ErrNotDone] and [ErrUnknown], or says
// that the operation was carried out and refused ([ErrNotFound], [ErrConflict], [ErrNotNumber], …).
var (
	// ErrNotFound: no such entry, or it has expired.
	ErrNotFound = errors.New("no such entry")
	// ErrConflict: the condition of a conditional operation did not hold; nothing was changed.
	ErrConflict = errors.New("condition not met")
	// ErrNotDone: the write was certainly not carried out, and never will be; or the read could not be confirmed in time. It may be
	// tried again.
	ErrNotDone = errors.New("not done")
	// ErrUnknown: the write may or may not have been carried out, and may still be within the next seconds.
	ErrUnknown = errors.New("outcome unknown")
	// ErrNoQuorum: this node is not in contact with a majority of the configured hosts and has no data (P11).
	// A write that fails with it fails with ErrNotDone too.
	ErrNoQuorum = errors.New("the cache has no quorum")
	// ErrBusy: too many writes are waiting (P12). It is an ErrNotDone.
	ErrBusy = errors.New("too many writes are waiting")
	// ErrClosed: the node does not run. It is an ErrNotDone.
	ErrClosed = errors.New("the cache node is not running")
	// ErrTooLarge: the entry is larger than a cache may be, or than one operation may be.
	ErrTooLarge = errors.New("too large")
	// ErrNotNumber: the value is not a decimal 64-bit integer.
	ErrNotNumber = errors.New("value is not an integer or out of range")
	// ErrOverflow: the increment would leave the range of a 64-bit integer.
	ErrOverflow = errors.New("increment or decrement would overflow")
	// ErrInvalid: the call itself is wrong: an empty cache name, an unknown level, a negative TTL.
	ErrInvalid = errors.New("invalid call")
	// ErrMissed: a subscriber was too slow, or the node received the state as a whole: changes are missing.
	ErrMissed = errors.New("changes were missed")
)
