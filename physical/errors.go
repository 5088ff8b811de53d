package physical

import (
	"errors"
	"fmt"
)

// What can go wrong, by meaning. Stores translate their client library's errors into these at the edge;
// callers use errors.Is.
var (
	// ErrNotFound: there is no entry at the key.
	ErrNotFound = errors.New("entry not found")
	// ErrFenced: the stored fence is another one; nothing was written. Who gets it is not active any more.
	ErrFenced = errors.New("fenced: another term may write")
	// ErrConflict: a condition of the commit does not hold; nothing was written.
	ErrConflict = errors.New("condition failed")
	// ErrTooLarge: a limit of the store is exceeded; a *TooLargeError says which. Nothing was written.
	ErrTooLarge = errors.New("too large for the store")
	// ErrInvalid: a key, prefix, op or record that no store takes. Nothing was written.
	ErrInvalid = errors.New("invalid")
	// ErrUnknown: the request was sent and no answer came; it may have been carried out, now or later.
	ErrUnknown = errors.New("outcome unknown")
	// ErrUnavailable: the store cannot be reached or cannot serve now; the request was not carried out.
	ErrUnavailable = errors.New("store unavailable")
	// ErrHeld: another grant holds the lock; a *HeldError carries its record.
	ErrHeld = errors.New("lock is held")
	// ErrLost: the grant is no longer in force.
	ErrLost = errors.New("lock lost")
	// ErrNoHolder: nobody holds the lock.
	ErrNoHolder = errors.New("no holder")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store closed")
)

// HeldError is ErrHeld with the record of the holder.
type HeldError struct{ Record Record }

func (e *HeldError) Error() string {
	return fmt.Sprintf("lock is held by %q in term %d", e.Record.Holder, e.Record.Term)
}

// Is makes errors.Is(err, ErrHeld) true.
func (e *HeldError) Is(target error) bool { return target == ErrHeld }

// TooLargeError is ErrTooLarge with the limit that was exceeded.
type TooLargeError struct {
	What  string // "key", "value", "bytes in a commit", "ops in a commit"
	Key   string // where it is one entry
	Size  int    // bytes, or ops
	Limit int    // the same unit as Size
}

func (e *TooLargeError) Error() string {
	if e.Key != "" {
		return fmt.Sprintf("%s of %q too large: %d, the store's limit is %d", e.What, e.Key, e.Size, e.Limit)
	}
	return fmt.Sprintf("%s too large: %d, the store's limit is %d", e.What, e.Size, e.Limit)
}

// Is makes errors.Is(err, ErrTooLarge) true.
func (e *TooLargeError) Is(target error) bool { return target == ErrTooLarge }
