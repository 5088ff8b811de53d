package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/locum-ha/locum/lock"
	"github.com/locum-ha/locum/physical"
)

// Locks are the named locks; package lock's Manager has them. Errors are that package's.
type Locks interface {
	Acquire(ctx context.Context, r lock.Request) (lock.Grant, error)
	Renew(ctx context.Context, name, secret string) (lock.Grant, error)
	Release(ctx context.Context, name, secret string) error
	Break(ctx context.Context, name string) error
	Get(ctx context.Context, name string) (lock.State, error)
	List(ctx context.Context, after string, limit int) ([]string, error)
}

const (
	locksBase = "/v1/locks/"

	maxLockList = 1000 // names in one answer
)

func (a *active) lockRoutes() {
	const class = "locks"
	a.below = append(a.below, prefix{locksBase, &route{class: class, on: get(a.readLock).with(both(a.takeLock)).with(methods{http.MethodDelete: a.breakLock})}})
	list := &route{class: class, on: methods{methodList: a.listLocks}}
	a.routes["/v1/locks"], a.routes[locksBase] = list, list
}

func lockName(r *http.Request) string { return r.URL.Path[len(locksBase):] }

// heldLock is a lock in an answer. Times are durations as the API takes them.
type heldLock struct {
	Name   string `json:"name"`
	Held   bool   `json:"held"`
	Holder string `json:"holder"`
	Number uint64 `json:"number"` // rises with every change of hands: the fencing token
	TTL    string `json:"ttl"`
	Left   string `json:"left,omitempty"`
	Since  string `json:"since,omitempty"`
}

func (a *active) lockGranted(w http.ResponseWriter, r *http.Request, g lock.Grant, err error) {
	if err != nil {
		a.lockFailed(w, r, err)
		return
	}
	a.sys(w, r, heldLock{Name: g.Name, Held: true, Holder: g.Holder, Number: g.Number, TTL: g.TTL.String()})
}

// lockFailed answers with an error of the locks. A wait that a step-down ends goes on at the next active node.
func (a *active) lockFailed(w http.ResponseWriter, r *http.Request, err error) {
	var held *lock.HeldError
	switch {
	case errors.As(err, &held):
		err = Errorf(http.StatusConflict, "%v, for %s more unless it is renewed: wait with \"wait\", or try again later", held, held.State.Left.Round(time.Millisecond))
	case errors.Is(err, lock.ErrLost):
		err = Errorf(http.StatusConflict, "the lock is lost: it ran out, was released or was broken; acquire it anew, and expect a higher number")
	case errors.Is(err, lock.ErrTooMany):
		err = &Error{http.StatusServiceUnavailable, err.Error() + ": release some, or wait until they run out", ProcessedNo}
	case errors.Is(err, lock.ErrNewerFormat):
		err = Errorf(http.StatusInternalServerError, "%v: upgrade this node", err)
	case errors.Is(err, lock.ErrDraining):
		err = physical.ErrUnavailable
	}
	a.fail(w, r, err)
}

func (a *active) readLock(w http.ResponseWriter, r *http.Request) {
	s, err := a.service.Locks().Get(r.Context(), lockName(r))
	if err != nil {
		a.lockFailed(w, r, err)
		return
	}
	if s.Number == 0 {
		a.fail(w, r, Errorf(http.StatusNotFound, "no lock %q is known: nobody has held it, at least not for a while", s.Name))
		return
	}
	out := heldLock{Name: s.Name, Held: s.Held, Holder: s.Holder, Number: s.Number, TTL: s.TTL.String(), Since: s.Since.UTC().Format(time.RFC3339)}
	if s.Held {
		out.Left = s.Left.Round(time.Millisecond).String()
	}
	a.sys(w, r, out)
}

// takeLock acquires a lock, or renews it: who holds it already under this secret gets the same number again. With "release" it
// gives it up.
func (a *active) takeLock(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Secret  string   `json:"secret"`
		Holder  string   `json:"holder"`
		TTL     duration `json:"ttl"`
		Wait    duration `json:"wait"`
		Renew   bool     `json:"renew"` // only while it is held: never acquires anew
		Release bool     `json:"release"`
	}
	if err := a.decode(w, r, &body, false); err != nil {
		a.fail(w, r, err)
		return
	}
	locks, name := a.service.Locks(), lockName(r)
	switch {
	case body.Renew && body.Release:
		a.fail(w, r, Errorf(http.StatusBadRequest, "renew and release exclude each other"))
	case body.Release:
		a.lockFreed(w, r, locks.Release(r.Context(), name, body.Secret))
	case body.Renew:
		g, err := locks.Renew(r.Context(), name, body.Secret)
		a.lockGranted(w, r, g, err)
	default:
		g, err := locks.Acquire(r.Context(), lock.Request{Name: name, Holder: body.Holder, Secret: body.Secret, TTL: body.TTL.value, Wait: body.Wait.value})
		a.lockGranted(w, r, g, err)
	}
}

// breakLock takes a lock from whoever holds it.
func (a *active) breakLock(w http.ResponseWriter, r *http.Request) {
	a.lockFreed(w, r, a.service.Locks().Break(r.Context(), lockName(r)))
}

func (a *active) lockFreed(w http.ResponseWriter, r *http.Request, err error) {
	if err != nil {
		a.lockFailed(w, r, err)
		return
	}
	empty(w)
}

func (a *active) listLocks(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	limit := maxLockList
	if text := query.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			a.fail(w, r, Errorf(http.StatusBadRequest, "limit is a number from 1 to %d", maxLockList))
			return
		}
		limit = min(n, maxLockList)
	}
	names, err := a.service.Locks().List(r.Context(), query.Get("after"), limit)
	if err != nil {
		a.lockFailed(w, r, err)
		return
	}
	if len(names) == 0 {
		a.fail(w, r, Errorf(http.StatusNotFound, "there are no locks"))
		return
	}
	a.sys(w, r, map[string]any{"keys": names})
}

// isLock reports whether the path is a lock's.
func isLock(path string) bool { return strings.HasPrefix(path, locksBase) }
