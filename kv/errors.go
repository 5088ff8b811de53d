package kv

import (
	"errors"
	"fmt"
)

// What can go wrong, by meaning; the texts are Vault's. Errors of the store pass through as package physical has
// them: after physical.ErrUnknown the write may have been carried out, now or later.
var (
	// ErrNotFound: there is no such path or version.
	ErrNotFound = errors.New("no value found")
	// ErrDeleted: the version was deleted or destroyed; a *DeletedError has its metadata.
	ErrDeleted = errors.New("version was deleted")
	// ErrCASMismatch: the path's current version is another one.
	ErrCASMismatch = errors.New("check-and-set parameter did not match the current version")
	// ErrCASRequired: the path may only be written with check-and-set.
	ErrCASRequired = errors.New("check-and-set parameter required for this call")
	// ErrInvalid: the request cannot be carried out on any state; an *InvalidError says why.
	ErrInvalid = errors.New("invalid request")
	// ErrDamaged: what is stored cannot be read.
	ErrDamaged = errors.New("stored entry is damaged")
	// ErrNewerFormat: stored by a newer version of Locum.
	ErrNewerFormat = errors.New("newer format")
)

// InvalidError is ErrInvalid with the sentence for who sent the request.
type InvalidError struct{ Message string }

func (e *InvalidError) Error() string { return e.Message }

// Is makes errors.Is(err, ErrInvalid) true.
func (e *InvalidError) Is(target error) bool { return target == ErrInvalid }

func invalidf(format string, args ...any) error {
	return &InvalidError{Message: fmt.Sprintf(format, args...)}
}

// DeletedError is ErrDeleted with what is left of the version: the answer is 404 with this beside "data": null.
type DeletedError struct{ Metadata VersionMetadata }

func (e *DeletedError) Error() string {
	if e.Metadata.Destroyed {
		return fmt.Sprintf("version %d was destroyed", e.Metadata.Version)
	}
	return fmt.Sprintf("version %d was deleted", e.Metadata.Version)
}

// Is makes errors.Is(err, ErrDeleted) true.
func (e *DeletedError) Is(target error) bool { return target == ErrDeleted }
