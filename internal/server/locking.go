package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/locum-ha/locum/api"
	"github.com/locum-ha/locum/forward"
	"github.com/locum-ha/locum/lock"
	"github.com/locum-ha/locum/physical"
)

// How package locum asks for the cluster's locks: a request through this node's router, so that it runs on the active node
// wherever that is, waits while there is none, and is repeated after a failover, which its secret makes safe.

// The operations.
const (
	LockAcquire = "acquire"
	LockRenew   = "renew"
	LockRelease = "release"
	LockGet     = "get"
)

// lockAsked is one of them. A field more is no new format.
type lockAsked struct {
	Op string `json:"op"`
	lock.Request
}

// lockAnswered is what became of it.
type lockAnswered struct {
	Code  string     `json:"code,omitempty"` // "" if it was done
	Error string     `json:"error,omitempty"`
	Grant lock.Grant `json:"grant,omitzero"`
	State lock.State `json:"state,omitzero"`
}

// lockCodes are the errors that travel.
var lockCodes = map[string]error{
	"held": lock.ErrHeld, "lost": lock.ErrLost, "too many": lock.ErrTooMany, "invalid": physical.ErrInvalid,
	"newer format": lock.ErrNewerFormat, "unavailable": physical.ErrUnavailable,
}

const lockBody = 16 << 10 // bytes

// ErrOutcomeUnknown: the active node was lost, and the request cannot be repeated.
var ErrOutcomeUnknown = errors.New("outcome unknown")

// Locks are those of this leadership.
func (s *service) Locks() api.Locks { return s.locks.Load() }

// serveLocks carries one operation out on the active node.
func (l *leading) serveLocks(w http.ResponseWriter, r *http.Request) {
	var asked lockAsked
	if err := json.NewDecoder(io.LimitReader(r.Body, lockBody)).Decode(&asked); err != nil {
		answerJSON(w, http.StatusBadRequest, lockAnswered{Code: "invalid", Error: "the request is not what package locum sends"})
		return
	}
	answer, err := l.lockOp(r.Context(), asked)
	switch {
	case errors.Is(err, lock.ErrDraining):
		forward.Decline(r.Context()) // it waited here, and goes on waiting at the next active node
		return
	case errors.Is(err, physical.ErrFenced), errors.Is(err, physical.ErrUnknown), errors.Is(err, physical.ErrClosed):
		l.node.deposed(r, err)
		return
	case err != nil:
		answer.Code, answer.Error = "failed", err.Error()
		for code, sentinel := range lockCodes {
			if errors.Is(err, sentinel) {
				answer.Code = code
			}
		}
		if held := (*lock.HeldError)(nil); errors.As(err, &held) {
			answer.State = held.State
		}
	}
	answerJSON(w, http.StatusOK, answer)
}

func (l *leading) lockOp(ctx context.Context, asked lockAsked) (answer lockAnswered, err error) {
	m := l.locks.Load()
	switch asked.Op {
	case LockAcquire:
		answer.Grant, err = m.Acquire(ctx, asked.Request)
	case LockRenew:
		answer.Grant, err = m.Renew(ctx, asked.Name, asked.Secret)
	case LockRelease:
		err = m.Release(ctx, asked.Name, asked.Secret)
	case LockGet:
		answer.State, err = m.Get(ctx, asked.Name)
	default:
		err = fmt.Errorf("%w: the active node does not know the operation %q: it runs an older version", physical.ErrInvalid, asked.Op)
	}
	return answer, err
}

// Lock carries one operation out on the active node, whichever that is: package lock's errors, [ErrOutcomeUnknown], or that there
// is no active node.
func (s *Server) Lock(ctx context.Context, op string, req lock.Request) (lock.Grant, lock.State, error) {
	router := s.routing.Load()
	if router == nil {
		return lock.Grant{}, lock.State{}, errors.New("this node is starting, or has ended")
	}
	data, err := json.Marshal(lockAsked{Op: op, Request: req})
	if err != nil {
		return lock.Grant{}, lock.State{}, err
	}
	ctx = forward.WithPolicy(ctx, forward.Policy{NoRedirect: true, Repeat: true})
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "/", bytes.NewReader(data))
	if err != nil {
		return lock.Grant{}, lock.State{}, err
	}
	r.RequestURI, r.Host = "/", s.cfg.NodeName
	r.Header[headerProgram] = []string{programLocks}
	rec, broken := newRecorder(), false
	func() {
		defer func() {
			if v := recover(); v == http.ErrAbortHandler {
				broken = true // how a handler ends an answer that it cannot finish
			} else if v != nil {
				panic(v)
			}
		}()
		router.ServeHTTP(rec, r)
	}()
	switch {
	case broken:
		return lock.Grant{}, lock.State{}, fmt.Errorf("lock %q: %w", req.Name, ErrOutcomeUnknown)
	case ctx.Err() != nil:
		return lock.Grant{}, lock.State{}, fmt.Errorf("lock %q: %w", req.Name, context.Cause(ctx))
	}
	return lockResult(req.Name, rec)
}

func lockResult(name string, rec *recorder) (lock.Grant, lock.State, error) {
	if rec.code != http.StatusOK {
		var said struct {
			Errors    []string `json:"errors"`
			Processed string   `json:"processed"`
		}
		_ = json.Unmarshal(rec.body.Bytes(), &said) // what is no JSON says nothing
		err := fmt.Errorf("lock %q: %d: %v", name, rec.code, said.Errors)
		if said.Processed == "unknown" {
			err = fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
		}
		return lock.Grant{}, lock.State{}, err
	}
	var a lockAnswered
	if err := json.Unmarshal(rec.body.Bytes(), &a); err != nil {
		return lock.Grant{}, lock.State{}, fmt.Errorf("lock %q: the active node's answer: %w", name, err)
	}
	switch {
	case a.Code == "":
		return a.Grant, a.State, nil
	case a.Code == "held":
		return lock.Grant{}, a.State, &lock.HeldError{State: a.State}
	case lockCodes[a.Code] != nil:
		return lock.Grant{}, a.State, fmt.Errorf("%s: %w", a.Error, lockCodes[a.Code])
	}
	return lock.Grant{}, a.State, errors.New(a.Error)
}
