package forward

import (
	"errors"
	"fmt"
)

var (
	// ErrVersion: the other node speaks no version of the forwarding protocol that this one knows.
	ErrVersion = errors.New("forward: no common protocol version")
	// ErrPeer: the other node is not the one that was meant.
	ErrPeer = errors.New("forward: wrong peer")
	// ErrClosed: the router has ended, or the connection was closed on purpose.
	ErrClosed = errors.New("forward: closed")
	// ErrConnectionLost: the connection to the other node broke or went silent.
	ErrConnectionLost = errors.New("forward: connection lost")
	// ErrSuperseded is the cause when another node has become active.
	ErrSuperseded = errors.New("forward: another node is active")
	// ErrDeposed is the cause that ends a request when this node's lease is over (P4).
	ErrDeposed = errors.New("forward: this node is not active any more")
	// ErrDraining is the cause that ends an endless request in a planned step-down (P5).
	ErrDraining = errors.New("forward: this node steps down")
	// ErrDrainLimit is the cause that ends a request which did not finish within the drain limit.
	ErrDrainLimit = errors.New("forward: the drain limit is over")
)

// errDrained: the active node steps down and takes no more; errFull: it takes no more at a time. Nothing
// was sent.
var (
	errDrained = errors.New("forward: the active node steps down")
	errFull    = errors.New("forward: too many requests at the active node")
)

// errBroken: the application that a handler passed the request to broke off.
var errBroken = errors.New("the application broke off without an answer")

// errLoop: following the redirect has led back to a standby.
var errLoop = errors.New("forward: redirected in a loop: several nodes have the same api_addr")

// errStopped: the peer wants no more body bytes.
var errStopped = errors.New("forward: the peer reads no more")

// resetError is how a stream ends that the peer reset.
type resetError struct {
	code resetCode
	msg  string
}

func (e *resetError) Error() string {
	if e.msg == "" {
		return "forward: stream reset: " + e.code.String()
	}
	return fmt.Sprintf("forward: stream reset: %s: %s", e.code, e.msg)
}
