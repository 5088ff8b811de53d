package keyed

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locum-ha/locum/forward"
	"github.com/locum-ha/locum/physical"
)

// Store is the store in plain, fenced by the term. *barrier.View is one.
type Store interface {
	Get(ctx context.Context, key string) (*physical.Entry, error)
	List(ctx context.Context, prefix, after string, limit int) ([]string, error)
	Commit(ctx context.Context, ops ...physical.Op) error
}

// Config of a Handler, for one term. Application, Store, Term and Deliver are required.
type Config struct {
	Application string
	Store       Store
	Term        uint64
	Deliver     http.Handler // passes a request on to the application

	Own     bool          // the application knows by itself what it has done: a request with an unknown outcome is delivered again
	TTL     time.Duration // how long a key is known. Default 24 h
	MaxSize int           // of a keyed request's body, and of an answer that is kept; bytes. Default 256 KiB

	// MaxRunning is how many keyed requests are carried out at a time; more wait at the router. Each may keep a body and an answer
	// in memory. Default 1024.
	MaxRunning int

	// Deposed is told that the store refused a write, or did not say what became of it: the request goes on at the node that is
	// active by then.
	Deposed func(r *http.Request, err error)

	Now      func() time.Time // default time.Now
	Logger   *slog.Logger     // default: nowhere
	Observer Observer
}

// Observer is told of events worth a metric. A func may be nil, is called on the request's way and must not wait.
type Observer struct {
	// Decided is told what became of a keyed request: "delivered", "replayed", "running" (409), "conflict" (422), "unknown", or
	// "refused" (400, 413).
	Decided func(outcome string)
}

// Handler carries keyed requests out once; others it passes on.
type Handler struct {
	cfg    Config
	prefix string

	running atomic.Int64

	mu      sync.Mutex
	working map[string]struct{} // names of the keys that are carried out here and now
}

// New checks the configuration, without I/O.
func New(cfg Config) (*Handler, error) {
	if cfg.Application == "" || cfg.Store == nil || cfg.Term == 0 || cfg.Deliver == nil {
		return nil, errors.New("keyed: Application, Store, Term and Deliver are required")
	}
	if cfg.TTL < 0 || cfg.MaxSize < 0 || cfg.MaxRunning < 0 {
		return nil, errors.New("keyed: limits must not be negative")
	}
	if cfg.TTL == 0 {
		cfg.TTL = 24 * time.Hour
	}
	if cfg.MaxSize == 0 {
		cfg.MaxSize = 256 << 10
	}
	if cfg.MaxRunning == 0 {
		cfg.MaxRunning = 1024
	}
	if cfg.Deposed == nil {
		cfg.Deposed = func(r *http.Request, _ error) { forward.Disown(r.Context()) }
	}
	if cfg.Observer.Decided == nil {
		cfg.Observer.Decided = func(string) {}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Handler{cfg: cfg, prefix: "core/app/" + cfg.Application + "/", working: map[string]struct{}{}}, nil
}

func (h *Handler) entry(name string) string { return h.prefix + "key/" + name }

func (h *Handler) mark(name string, expires time.Time) string {
	return h.prefix + "due/" + hour(expires.Add(time.Hour)) + "/" + name
}

// hour names one so that names sort as hours do.
func hour(t time.Time) string { return fmt.Sprintf("%010d", t.Unix()/3600) }

// ServeHTTP carries a keyed request out, or gives the answer that is known.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !Keyed(r) {
		h.cfg.Deliver.ServeHTTP(w, r)
		return
	}
	key, err := keyOf(r)
	if err != nil {
		h.cfg.Observer.Decided("refused")
		fail(w, http.StatusBadRequest, err.Error(), "no")
		return
	}
	defer h.running.Add(-1)
	if h.running.Add(1) > int64(h.cfg.MaxRunning) {
		forward.Decline(r.Context())
		fail(w, http.StatusServiceUnavailable, "too many requests with an Idempotency-Key at a time", "no")
		return
	}
	body, ok := h.body(w, r)
	if !ok {
		h.cfg.Observer.Decided("refused")
		return
	}
	c := &call{Handler: h, w: w, r: r, name: name(key), body: body, print: fingerprint(r, body), caller: caller(r)}
	if !h.enter(c.name) {
		c.busy()
		return
	}
	defer h.leave(c.name)
	c.run()
}

// body reads all of a request's.
func (h *Handler) body(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, true
	}
	if r.ContentLength <= int64(h.cfg.MaxSize) {
		b, err := io.ReadAll(io.LimitReader(r.Body, int64(h.cfg.MaxSize)+1))
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			fail(w, http.StatusRequestTimeout, "the request body came too slowly", "no")
			return nil, false
		case err != nil:
			fail(w, http.StatusBadRequest, "the request body ended early", "no")
			return nil, false
		case len(b) <= h.cfg.MaxSize:
			return b, true
		}
	}
	fail(w, http.StatusRequestEntityTooLarge,
		fmt.Sprintf("a request with an Idempotency-Key may have a body of %d bytes (idempotency_max_size)", h.cfg.MaxSize), "no")
	return nil, false
}

func (h *Handler) enter(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, busy := h.working[name]; busy {
		return false
	}
	h.working[name] = struct{}{}
	return true
}

func (h *Handler) leave(name string) {
	h.mu.Lock()
	delete(h.working, name)
	h.mu.Unlock()
}

// A call is one keyed request.
type call struct {
	*Handler
	w      http.ResponseWriter
	r      *http.Request
	name   string
	body   []byte
	print  []byte
	caller []byte
}

// busy answers a request whose key is being carried out: by whom, the record tells.
func (c *call) busy() {
	rec, _, err := c.read()
	switch {
	case err != nil:
		c.store(err)
	case rec != nil && !c.same(rec):
		c.conflict(rec)
	default:
		c.running()
	}
}

func (c *call) running() {
	c.cfg.Observer.Decided("running")
	c.w.Header()["Retry-After"] = []string{"1"}
	fail(c.w, http.StatusConflict, "a request with this Idempotency-Key is being carried out", "no")
}

// read returns the record, nil if there is none that counts, and how it is stored, nil if it is not.
func (c *call) read() (*record, []byte, error) {
	e, err := c.cfg.Store.Get(c.r.Context(), c.entry(c.name))
	if errors.Is(err, physical.ErrNotFound) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	rec, err := decode(e.Value)
	if err != nil {
		return nil, nil, err
	}
	if c.cfg.Now().After(rec.Expires) {
		rec = nil
	}
	return rec, e.Value, nil
}

func (c *call) same(rec *record) bool {
	return bytes.Equal(rec.Print, c.print) && bytes.Equal(rec.Caller, c.caller)
}

func (c *call) conflict(rec *record) {
	c.cfg.Observer.Decided("conflict")
	what := "another request"
	if !bytes.Equal(rec.Caller, c.caller) {
		what = "a request of another caller"
	}
	fail(c.w, http.StatusUnprocessableEntity, "this Idempotency-Key was used for "+what, "no")
}

// run decides by the record.
func (c *call) run() {
	rec, was, err := c.read()
	switch {
	case err != nil:
		c.store(err)
	case rec == nil:
		c.deliver(was)
	case !c.same(rec):
		c.conflict(rec)
	case rec.State == done:
		c.replay(rec.Answer)
	case c.cfg.Own:
		c.deliver(was)
	default: // running, by nobody any more
		c.cfg.Observer.Decided("unknown")
		fail(c.w, http.StatusServiceUnavailable, errUnknown.Error(), "unknown")
	}
}

// commitLimit bounds a commit that goes on when the client has gone.
const commitLimit = 10 * time.Second

// deliver commits the intent in the place of what was stored, passes the request on, and commits the answer before it is sent.
func (c *call) deliver(was []byte) {
	rec := &record{
		State: running, Print: c.print, Caller: c.caller, Term: c.cfg.Term, Attempt: rand.Text(), Expires: c.cfg.Now().Add(c.cfg.TTL),
	}
	intent, err := rec.encode()
	if err != nil {
		c.store(err)
		return
	}
	condition := physical.RequireAbsent(c.entry(c.name))
	if was != nil {
		condition = physical.RequireValue(c.entry(c.name), was)
	}
	// The client's leaving ends nothing: an intent of which nobody knows whether it was written would refuse every retry under its key.
	ctx, end := outlast(c.r.Context())
	defer end()
	committing, cancel := context.WithTimeout(ctx, commitLimit)
	err = c.cfg.Store.Commit(committing, condition, physical.Put(c.entry(c.name), intent), physical.Put(c.mark(c.name, rec.Expires), nil))
	cancel()
	if err != nil {
		c.store(err)
		return
	}
	c.cfg.Observer.Decided("delivered")
	a := &answer{limit: c.cfg.MaxSize, next: c.w, record: func(a *stored) error { return c.keep(rec, intent, a) }}
	r := c.r.WithContext(ctx)
	if len(c.body) > 0 || r.Body != nil && r.Body != http.NoBody {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(c.body)), int64(len(c.body))
		r.TransferEncoding = nil
		if len(r.Trailer) > 0 {
			r.ContentLength = -1 // chunked, so that they can follow
		}
	}
	switch whole := c.pass(a, r); {
	case !whole:
		forward.Broke(c.r.Context())
		fail(c.w, http.StatusBadGateway, errUnknown.Error(), "unknown")
	case a.outcome == "no":
		c.forget(intent, rec)
		a.send()
	case a.outcome == "unknown":
		a.send() // the intent stays, as long as any
	default:
		if err := a.finish(); err != nil {
			c.store(err)
		}
	}
}

// pass delivers the request. False: the answer broke off, and none of it was sent.
func (c *call) pass(a *answer, r *http.Request) (whole bool) {
	defer func() {
		if v := recover(); v != nil && (v != http.ErrAbortHandler || a.through) {
			panic(v)
		}
	}()
	c.cfg.Deliver.ServeHTTP(a, r)
	return true
}

// keep commits an answer. It does so also when the client has gone: it will ask again.
func (c *call) keep(rec *record, intent []byte, a *stored) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.r.Context()), commitLimit)
	defer cancel()
	rec.State, rec.Answer = done, a
	data, err := rec.encode()
	if err != nil {
		return err
	}
	return c.cfg.Store.Commit(ctx, physical.RequireValue(c.entry(c.name), intent), physical.Put(c.entry(c.name), data))
}

// forget takes the intent back of a request that was certainly not carried out.
func (c *call) forget(intent []byte, rec *record) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.r.Context()), commitLimit)
	defer cancel()
	err := c.cfg.Store.Commit(ctx, physical.RequireValue(c.entry(c.name), intent), physical.Delete(c.entry(c.name)), physical.Delete(c.mark(c.name, rec.Expires)))
	if err != nil {
		c.cfg.Logger.Warn("the intent of a request that was not carried out stays: its key cannot be used until it expires", "error", err)
	}
}

// replay gives the stored answer.
func (c *call) replay(a *stored) {
	c.cfg.Observer.Decided("replayed")
	if a == nil {
		fail(c.w, http.StatusInternalServerError, "the record of this Idempotency-Key holds no answer", "unknown")
		return
	}
	h := c.w.Header()
	for name, values := range a.Header {
		h[name] = values
	}
	h["X-Locum-Replayed"] = []string{"true"}
	if a.Dropped > 0 {
		fail(c.w, http.StatusConflict, fmt.Sprintf("this request was carried out, with status %d; its answer of %d bytes was too long to be kept (idempotency_max_size)",
			a.Status, a.Dropped), "yes")
		return
	}
	if _, ok := a.Header["Content-Type"]; !ok {
		h["Content-Type"] = nil
	}
	c.w.WriteHeader(a.Status)
	_, _ = c.w.Write(a.Body)
	for name, values := range a.Trailer {
		h[http.TrailerPrefix+name] = values
	}
}

// store answers for what the store said. Where another node may be active, or nobody knows what was written, the router decides anew.
func (c *call) store(err error) {
	switch {
	case errors.Is(err, physical.ErrFenced), errors.Is(err, physical.ErrUnknown), c.r.Context().Err() != nil:
		c.cfg.Deposed(c.r, err)
	case errors.Is(err, physical.ErrConflict):
		c.running() // somebody was quicker
		return
	default:
		c.cfg.Logger.Error("record of an Idempotency-Key", "error", err)
	}
	fail(c.w, http.StatusServiceUnavailable, "the record of this Idempotency-Key cannot be read or written", "unknown")
}

// fail answers in the place of the application.
func fail(w http.ResponseWriter, status int, msg, processed string) {
	body, _ := json.Marshal(struct { // of strings: cannot fail
		Errors    []string `json:"errors"`
		Processed string   `json:"processed,omitempty"`
	}{[]string{msg}, processed})
	h := w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Content-Length"] = []string{strconv.Itoa(len(body) + 1)}
	if status == http.StatusServiceUnavailable {
		h["Retry-After"] = []string{"1"}
	}
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
