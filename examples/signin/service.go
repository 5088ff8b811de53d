package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/locum-ha/locum/cache"
)

// What a user may do in a window of time.
const (
	limit  = 20
	window = time.Minute
)

// service keeps three kinds of values that are too short-lived for a database and too precious to lose with a process.
type service struct {
	node     *cache.Node
	codes    *cache.Cache // code → user; each is good once
	sessions *cache.Cache // session → user
	attempts *cache.Cache // user → attempts in this window
}

func newService(node *cache.Node) http.Handler {
	s := &service{node, node.Cache("codes"), node.Cache("sessions"), node.Cache("attempts")}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /authorize", s.authorize)
	mux.HandleFunc("POST /token", s.token)
	mux.HandleFunc("GET /me", s.me)
	mux.HandleFunc("POST /signout", s.signOut)
	mux.HandleFunc("GET /ready", s.ready)
	return mux
}

// authorize gives a user a code, but not too many of them in a while.
func (s *service) authorize(w http.ResponseWriter, r *http.Request) {
	user := r.FormValue("user")
	n, err := s.attempts.Increment(r.Context(), user, 1, window) // the first attempt begins the window
	if err != nil {
		fail(w, err)
		return
	}
	if n > limit {
		http.Error(w, "too many attempts", http.StatusTooManyRequests)
		return
	}
	code := rand.Text()
	if _, err := s.codes.Put(r.Context(), code, []byte(user), cache.DefaultTTL, cache.Quorum); err != nil {
		fail(w, err)
		return
	}
	answer(w, code)
}

// token redeems a code for a session. Take removes the code as it reads it: of all who try, at all nodes, one gets it.
func (s *service) token(w http.ResponseWriter, r *http.Request) {
	item, err := s.codes.Take(r.Context(), r.FormValue("code"))
	switch {
	case errors.Is(err, cache.ErrNotFound):
		http.Error(w, "no such code, or it was used", http.StatusBadRequest)
		return
	case err != nil:
		fail(w, err)
		return
	}
	session := rand.Text()
	if _, err := s.sessions.Put(r.Context(), session, item.Value, cache.DefaultTTL, cache.Quorum); err != nil {
		// The code is used up whatever became of the session: the user has to ask for another one.
		http.Error(w, "the code was used, and no session could be made: ask for a new code", http.StatusConflict)
		return
	}
	answer(w, session)
}

// me tells whose session this is. The node's own memory is asked first; only what is not there is asked of all.
func (s *service) me(w http.ResponseWriter, r *http.Request) {
	item, err := s.find(r.Context(), r.FormValue("session"))
	switch {
	case errors.Is(err, cache.ErrNotFound):
		http.Error(w, "no such session", http.StatusUnauthorized)
	case err != nil:
		fail(w, err)
	default:
		answer(w, string(item.Value))
	}
}

func (s *service) find(ctx context.Context, session string) (cache.Item, error) {
	item, err := s.sessions.Get(ctx, session, cache.Local)
	if errors.Is(err, cache.ErrNotFound) {
		return s.sessions.Get(ctx, session, cache.Consistent)
	}
	return item, err
}

func (s *service) signOut(w http.ResponseWriter, r *http.Request) {
	_, err := s.sessions.Delete(r.Context(), r.FormValue("session"), cache.Quorum)
	switch {
	case errors.Is(err, cache.ErrUnknown): // the leader was lost with it; to sign out twice does no harm
		again(w)
	case err != nil:
		fail(w, err)
	default:
		answer(w, "bye")
	}
}

// ready is for load balancers, and tells whether this node leads: for what should run once.
func (s *service) ready(w http.ResponseWriter, _ *http.Request) {
	health := s.node.Health()
	if health.Status == cache.Bad {
		http.Error(w, health.Reason, http.StatusServiceUnavailable)
		return
	}
	answer(w, fmt.Sprintf("%s leader=%t", health.Status, s.node.IsLeader()))
}

// fail tells what was certainly not done, and may be sent again, from what nobody knows.
func fail(w http.ResponseWriter, err error) {
	if errors.Is(err, cache.ErrUnknown) {
		http.Error(w, "outcome unknown", http.StatusInternalServerError)
		return
	}
	again(w)
}

func again(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	http.Error(w, "try again", http.StatusServiceUnavailable)
}

func answer(w http.ResponseWriter, text string) {
	_, _ = io.WriteString(w, text) // the client may be gone
}
