package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/locum-ha/locum/physical"
)

// failure translates an error of the client library. A write that may have been sent has an unknown outcome.
func failure(ctx context.Context, err error, write bool) error {
	kind := physical.ErrUnavailable
	if write && !refused(err) {
		kind = physical.ErrUnknown
	}
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("%w: %w", kind, cause)
	}
	if errors.Is(err, rpctypes.ErrRequestTooLarge) || errors.Is(err, rpctypes.ErrTooManyOps) {
		return fmt.Errorf("%w: the servers' limits are lower than etcd's defaults: %v", physical.ErrTooLarge, err)
	}
	if code(err) == codes.PermissionDenied {
		return fmt.Errorf("%w: %v: the user needs the permission readwrite on all keys below path", kind, err)
	}
	return fmt.Errorf("%w: %v", kind, err)
}

// refused reports whether the error says for certain that the request was not carried out.
func refused(err error) bool {
	switch code(err) {
	case codes.InvalidArgument, codes.NotFound, codes.PermissionDenied, codes.Unauthenticated, codes.FailedPrecondition,
		codes.ResourceExhausted, codes.OutOfRange, codes.Unimplemented:
		return true
	case codes.Unavailable:
		// No connection was made, so nothing was sent.
		return strings.Contains(strings.ToLower(err.Error()), "error while dialing")
	}
	return false
}

func code(err error) codes.Code {
	var known rpctypes.EtcdError
	if errors.As(err, &known) {
		return known.Code()
	}
	return status.Code(err)
}
