package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/locum-ha/locum"
)

// job is what a client asks for: a POST to URL, at its time.
type job struct {
	At   time.Time       `json:"at"`
	URL  string          `json:"url"`
	Body json.RawMessage `json:"body,omitempty"`
}

// outcome is what became of a job. There is one for each, for ever.
type outcome struct {
	Status   int    `json:"status"` // that the URL answered
	Error    string `json:"error,omitempty"`
	Attempts int    `json:"attempts"` // in the term that ended it
	Term     uint64 `json:"term"`
	Node     string `json:"node"`
}

// attempts is how often a URL that does not answer is tried.
const attempts = 10

// scheduler keeps the jobs in two tables. A job that is due lies in waiting under its time and its id, in the order of time; the
// commit that takes it out puts its outcome in.
type scheduler struct {
	node    *locum.Node
	waiting locum.Table[job]
	done    locum.Table[outcome]
	ids     locum.Table[string] // the name in waiting, by the client's id
	wake    chan struct{}
}

func newScheduler(node *locum.Node) *scheduler {
	e := node.Entries()
	return &scheduler{
		node: node, waiting: locum.TableOf[job](e, "waiting"), done: locum.TableOf[outcome](e, "done"),
		ids: locum.TableOf[string](e, "ids"), wake: make(chan struct{}, 1),
	}
}

// handler takes PUT and GET of /jobs/{id}. It runs on the active node.
func (s *scheduler) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /jobs/{id}", s.put)
	mux.HandleFunc("GET /jobs/{id}", s.get)
	return mux
}

// put stores a job. A client that got no answer sends it again: an id that is there is not stored a second time.
func (s *scheduler) put(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	var j job
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&j); err != nil || !strings.HasPrefix(j.URL, "http") {
		http.Error(w, `a job is {"at": "2026-01-02T15:04:05Z", "url": "http://…"}`, http.StatusBadRequest)
		return
	}
	name := fmt.Sprintf("%020d-%s", max(j.At.UnixNano(), 0), id)
	add, err := s.waiting.Change(name, j)
	if err == nil {
		_, err = s.ids.Put(r.Context(), id, name, add, s.ids.If(id, locum.Version{}))
	}
	if err != nil && !errors.Is(err, locum.ErrConflict) {
		fail(w, err)
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *scheduler) get(w http.ResponseWriter, r *http.Request) {
	o, _, err := s.done.Get(r.Context(), r.PathValue("id"))
	if errors.Is(err, locum.ErrNotFound) {
		if _, _, err = s.ids.Get(r.Context(), r.PathValue("id")); err == nil {
			w.WriteHeader(http.StatusAccepted) // it waits for its time
			return
		}
	}
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(o)
}

// fail answers so that a client knows whether to come again.
func fail(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, locum.ErrNotFound):
		http.Error(w, "no such job", http.StatusNotFound)
	default:
		w.Header().Set("Retry-After", "1")
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

// run does what is due, on the active node, until its leadership ends.
func (s *scheduler) run(ctx context.Context, term uint64) error {
	slog.Info("scheduling", "term", term)
	for {
		next, err := s.runDue(ctx, term)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-s.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// runDue runs the jobs whose time has come, and returns how long to wait for the next.
func (s *scheduler) runDue(ctx context.Context, term uint64) (time.Duration, error) {
	for {
		names, err := s.waiting.List(ctx, "", 1)
		if err != nil || len(names) == 0 {
			return time.Minute, err
		}
		j, version, err := s.waiting.Get(ctx, names[0])
		if err != nil {
			return 0, err
		}
		if wait := time.Until(j.At); wait > 0 {
			return min(wait, time.Minute), nil
		}
		_, id, _ := strings.Cut(names[0], "-")
		o := call(ctx, id, term, j)
		if ctx.Err() != nil {
			return 0, ctx.Err() // the next active node calls again: with the same key
		}
		o.Node = s.node.State().Node
		// One commit, fenced by the term: of several nodes that ever ran this job, one gets here.
		if _, err := s.done.Put(ctx, id, o, s.done.If(id, locum.Version{}), s.waiting.If(names[0], version), locum.Delete("waiting/"+names[0])); err != nil {
			return 0, err
		}
	}
}

// call sends the job to its URL. A receiver that must not do it twice keeps the key, or refuses terms lower than it has seen.
func call(ctx context.Context, id string, term uint64, j job) (o outcome) {
	o.Term = term
	for o.Attempts = 1; ; o.Attempts++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, j.URL, strings.NewReader(string(j.Body)))
		if err != nil {
			o.Error = err.Error()
			return o
		}
		req.Header.Set("Idempotency-Key", id)
		req.Header.Set("X-Fencing-Token", fmt.Sprint(term))
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			o.Status, o.Error = resp.StatusCode, ""
		} else {
			o.Error = err.Error()
		}
		if err == nil && resp.StatusCode < 500 || o.Attempts == attempts || ctx.Err() != nil {
			return o
		}
		pause := time.NewTimer(100 * time.Millisecond)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
	}
}
