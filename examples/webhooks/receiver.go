package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"

	"github.com/locum-ha/locum"
)

const (
	maxHook = 256 << 10 // bytes
	keep    = 10_000    // ids of deliveries that were worked off, remembered so that a late repeat is recognised
)

// hook is a webhook as it came.
type hook struct {
	ID     string          `json:"id"`
	Source string          `json:"source"`
	Body   json.RawMessage `json:"body"`
}

// counts are kept in the commit that works a hook off: what they say is true of exactly the hooks that they counted.
type counts struct {
	Done   uint64         `json:"done"`
	Source map[string]int `json:"source"`
	Ring   uint64         `json:"ring"` // the place of the next id to remember
}

// receiver keeps hooks in entries: inbox/<number>, in the order in which they came; seen/<id>, so that none is taken twice.
type receiver struct {
	inbox locum.Table[hook]
	seen  locum.Table[string]
	ring  locum.Table[string]
	total locum.Table[counts]
	wake  chan struct{}

	mu   sync.Mutex
	term uint64 // the highest so far
	next uint64 // number in the inbox
}

func newReceiver(node *locum.Node) *receiver {
	e := node.Entries()
	return &receiver{
		inbox: locum.TableOf[hook](e, "inbox"), seen: locum.TableOf[string](e, "seen"),
		ring: locum.TableOf[string](e, "ring"), total: locum.TableOf[counts](e, "total"), wake: make(chan struct{}, 1),
	}
}

func (r *receiver) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /hooks/{source}", r.take)
	mux.HandleFunc("GET /counts", r.count)
	return mux
}

// take stores a hook and says so. Its sender repeats it until it is told that.
func (r *receiver) take(w http.ResponseWriter, req *http.Request) {
	h := hook{ID: req.Header.Get("X-Delivery-Id"), Source: req.PathValue("source")}
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxHook))
	if h.Body = body; err != nil || h.ID == "" || !json.Valid(body) {
		http.Error(w, "a hook has an X-Delivery-Id and a body of JSON, 256 KiB at the most", http.StatusBadRequest)
		return
	}
	name := r.number(req.Context())
	put, err := r.inbox.Change(name, h)
	if err == nil {
		_, err = r.seen.Put(req.Context(), h.ID, name, put, r.seen.If(h.ID, locum.Version{}))
	}
	switch {
	case errors.Is(err, locum.ErrConflict): // it came before: its id is there
	case err != nil:
		w.Header().Set("Retry-After", "1")
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
	w.WriteHeader(http.StatusAccepted)
}

// number gives a place in the inbox that nobody else gets: by term, then in the order in which they were asked for.
func (r *receiver) number(ctx context.Context) string {
	term := locum.TermOf(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if term > r.term {
		r.term, r.next = term, 0
	}
	r.next++
	return fmt.Sprintf("%020d-%020d", term, r.next)
}

func (r *receiver) count(w http.ResponseWriter, req *http.Request) {
	c, _, err := r.total.Get(req.Context(), "all")
	if err != nil && !errors.Is(err, locum.ErrNotFound) {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(c)
}

// run works hooks off, on the active node, until its leadership ends.
func (r *receiver) run(ctx context.Context, term uint64) error {
	slog.Info("working hooks off", "term", term)
	for ctx.Err() == nil {
		names, err := r.inbox.List(ctx, "", 100)
		for _, name := range names {
			if err = r.work(ctx, name); err != nil {
				break
			}
		}
		switch {
		case ctx.Err() != nil:
		case err != nil:
			return err
		case len(names) == 0:
			select {
			case <-ctx.Done():
			case <-r.wake:
			}
		}
	}
	return nil
}

// work is where a real program would do something. What it changes in the entries belongs into the same commit.
func (r *receiver) work(ctx context.Context, name string) error {
	h, version, err := r.inbox.Get(ctx, name)
	if err != nil {
		return err
	}
	c, before, err := r.total.Get(ctx, "all")
	if err != nil && !errors.Is(err, locum.ErrNotFound) {
		return err
	}
	if c.Source == nil {
		c.Source = map[string]int{}
	}
	c.Done++
	c.Source[h.Source]++
	slot := fmt.Sprint(c.Ring % keep)
	c.Ring++
	changes := []locum.Change{r.total.If("all", before), r.inbox.If(name, version), locum.Delete("inbox/" + name)}
	if old, _, err := r.ring.Get(ctx, slot); err == nil {
		changes = append(changes, locum.Delete("seen/"+old))
	} else if !errors.Is(err, locum.ErrNotFound) {
		return err
	}
	remember, err := r.ring.Change(slot, h.ID)
	if err != nil {
		return err
	}
	_, err = r.total.Put(ctx, "all", c, append(changes, remember)...)
	return err
}
