package seal

import (
	"context"
	"errors"
)

// What can go wrong, by meaning.
var (
	// ErrWrongKey: the key does not open the blob. It is another key, or the blob was tampered with: an
	// authenticated cipher cannot tell the two apart.
	ErrWrongKey = errors.New("wrong key")
	// ErrNewerFormat: written by a newer version of Locum.
	ErrNewerFormat = errors.New("newer format")
	// ErrMalformed: not what it should be, whoever wrote it.
	ErrMalformed = errors.New("malformed")
	// ErrDuplicateShare: this share was given before.
	ErrDuplicateShare = errors.New("share was already given")
	// ErrMixedShares: the shares do not belong to one split.
	ErrMixedShares = errors.New("shares do not belong together")
)

// Seal wraps the root key so that it can lie in the data store.
//
// Implementations may be called concurrently. Wrapping twice gives two different blobs; every blob that an
// older version made can be unwrapped.
type Seal interface {
	// Type is the name in the configuration and in the stored Config: "static", "shamir", …
	Type() string

	// Wrap encrypts plain. The error says that the key could not be used; plain is never part of it.
	Wrap(ctx context.Context, plain []byte) ([]byte, error)

	// Unwrap returns what Wrap was given: [ErrWrongKey] if it was wrapped by another key or changed since,
	// [ErrNewerFormat], or [ErrMalformed].
	Unwrap(ctx context.Context, blob []byte) ([]byte, error)
}
