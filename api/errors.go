package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/locum-ha/locum/auth"
	"github.com/locum-ha/locum/kv"
	"github.com/locum-ha/locum/physical"
)

// ErrDenied: the token is missing, unknown, or may not do this. It becomes 403 "permission denied".
var ErrDenied = errors.New("permission denied")

// ErrSealed: the node was sealed while the request was on its way. It becomes a 503.
var ErrSealed = errors.New("node is sealed")

// Values of "processed" in an error answer.
const (
	ProcessedNo      = "no"      // certainly not carried out: it can be sent again
	ProcessedUnknown = "unknown" // it may have been carried out
)

// Error is an error with its HTTP answer. Implementations of the interfaces here return it where they know best what
// to tell the client; its text goes out as it is, so it holds no secret.
type Error struct {
	Status    int    // HTTP status code
	Message   string // one sentence: what is wrong, and what to do
	Processed string // "", ProcessedNo or ProcessedUnknown
}

func (e *Error) Error() string { return e.Message }

// Errorf makes an Error.
func Errorf(status int, format string, args ...any) *Error {
	return &Error{Status: status, Message: fmt.Sprintf(format, args...)}
}

// answerTo finds the answer to an error: by its own word, or by what the sentinels of the layers below mean.
// Everything else is the node's own trouble: the client gets no detail of it, the log does.
func answerTo(err error) (answer *Error, internal bool) {
	var known *Error
	var tooBig *http.MaxBytesError
	var tooLarge *physical.TooLargeError
	var invalid *kv.InvalidError
	var refused *auth.InvalidError
	switch {
	case errors.As(err, &known):
		return known, false
	case errors.Is(err, ErrDenied), errors.Is(err, auth.ErrDenied):
		return &Error{Status: http.StatusForbidden, Message: ErrDenied.Error()}, false
	case errors.As(err, &tooBig):
		return Errorf(http.StatusRequestEntityTooLarge, "the body is larger than the limit of %d bytes: send less at once", tooBig.Limit), false
	case errors.As(err, &tooLarge):
		return Errorf(http.StatusRequestEntityTooLarge, "%s: %s", tooLarge.Error(), smaller(tooLarge)), false
	case errors.As(err, &invalid):
		return &Error{Status: http.StatusBadRequest, Message: invalid.Message}, false
	case errors.As(err, &refused):
		return &Error{Status: http.StatusBadRequest, Message: refused.Message}, false
	case errors.Is(err, auth.ErrNoToken):
		return &Error{Status: http.StatusForbidden, Message: auth.ErrNoToken.Error()}, false
	case errors.Is(err, auth.ErrNoAccessor):
		return &Error{Status: http.StatusBadRequest, Message: auth.ErrNoAccessor.Error()}, false
	case errors.Is(err, kv.ErrCASMismatch):
		return &Error{Status: http.StatusBadRequest, Message: kv.ErrCASMismatch.Error()}, false
	case errors.Is(err, kv.ErrCASRequired):
		return &Error{Status: http.StatusBadRequest, Message: kv.ErrCASRequired.Error()}, false
	case errors.Is(err, physical.ErrInvalid):
		return Errorf(http.StatusBadRequest, "%s: paths have segments that are not empty, \".\" or \"..\", and no control characters", err), false
	case errors.Is(err, physical.ErrUnknown):
		return &Error{http.StatusServiceUnavailable, "the outcome of the request is unknown: it may have been carried out; read before you repeat it", ProcessedUnknown}, false
	case errors.Is(err, physical.ErrFenced):
		return &Error{http.StatusServiceUnavailable, "this node is not active any more, and nothing was written: send the request again", ProcessedNo}, false
	case errors.Is(err, physical.ErrUnavailable), errors.Is(err, physical.ErrClosed):
		return &Error{http.StatusServiceUnavailable, "the storage cannot be reached now, and nothing was written: send the request again", ProcessedNo}, false
	case errors.Is(err, ErrSealed):
		return sealedAnswer(true), false
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &Error{http.StatusServiceUnavailable, "the request was ended before it was done: it may have been carried out; read before you repeat it", ProcessedUnknown}, false
	default:
		return nil, true
	}
}

// smaller says what to do about a limit of the store.
func smaller(e *physical.TooLargeError) string {
	switch e.What {
	case "key", "path":
		return "use a shorter path"
	case "ops in a commit":
		return "change fewer things at once"
	default:
		return "store less there, or split it over several paths"
	}
}

// notActive reports whether err can be the fault of this node's leadership having ended, so that another node may be
// able to serve the request.
func notActive(err error) bool {
	return errors.Is(err, physical.ErrFenced) || errors.Is(err, physical.ErrUnavailable) || errors.Is(err, physical.ErrUnknown) ||
		errors.Is(err, physical.ErrClosed) || errors.Is(err, ErrSealed) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// sealedAnswer says what to do with a node that is sealed, or not even initialised.
func sealedAnswer(initialized bool) *Error {
	if !initialized {
		return &Error{http.StatusServiceUnavailable, "node is not initialised: run \"locum operator init\" on one node of the cluster, or let this one join (\"locum operator raft join\")", ProcessedNo}
	}
	return &Error{http.StatusServiceUnavailable, "node is sealed: unseal it (\"locum operator unseal\"), or send the request to another node", ProcessedNo}
}
