package barrier

import "errors"

// What can go wrong, by meaning. Errors of the store pass through as package physical has them.
var (
	// ErrSealed: the barrier has no keys.
	ErrSealed = errors.New("barrier is sealed")
	// ErrNotInitialized: the store has no keyring.
	ErrNotInitialized = errors.New("barrier is not initialized")
	// ErrInitialized: the store has a keyring already; it was left alone.
	ErrInitialized = errors.New("barrier is already initialized")
	// ErrWrongKey: the root key does not open the keyring: it is another cluster's, or the keyring was tampered with.
	ErrWrongKey = errors.New("root key does not open the keyring")
	// ErrTampered: an entry is not what was stored under its name.
	ErrTampered = errors.New("entry was tampered with")
	// ErrNewerFormat: written by a newer version of Locum.
	ErrNewerFormat = errors.New("newer format")
	// ErrReserved: the entry is the barrier's own.
	ErrReserved = errors.New("entry is reserved for the barrier")
)
