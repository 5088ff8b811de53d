package auth

import (
	"errors"
	"fmt"
)

// What can go wrong, by meaning. Errors of the store pass through as package physical has them.
var (
	// ErrDenied: there is no such token, it has run out, or it may not do this. Which of them is not told.
	ErrDenied = errors.New("permission denied")
	// ErrNoToken: the token that was asked about is not there. Who asks may ask.
	ErrNoToken = errors.New("bad token")
	// ErrNoAccessor: no token has this accessor.
	ErrNoAccessor = errors.New("invalid accessor")
	// ErrNoPolicy: there is no policy of this name.
	ErrNoPolicy = errors.New("no such policy")
	// ErrInvalid: the request cannot be carried out as it is; an *InvalidError says why.
	ErrInvalid = errors.New("invalid request")
	// ErrNewerFormat: stored by a newer version of Locum.
	ErrNewerFormat = errors.New("newer format")
	// ErrDamaged: what is stored cannot be read.
	ErrDamaged = errors.New("stored token or policy is damaged")
)

// InvalidError is ErrInvalid with the sentence for who sent the request. It holds no secret.
type InvalidError struct{ Message string }

func (e *InvalidError) Error() string { return e.Message }

// Is makes errors.Is(err, ErrInvalid) true.
func (e *InvalidError) Is(target error) bool { return target == ErrInvalid }

func invalidf(format string, args ...any) error {
	return &InvalidError{Message: fmt.Sprintf(format, args...)}
}
