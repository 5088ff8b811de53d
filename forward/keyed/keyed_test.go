package keyed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/memory"
)

// fenced is the store as one term writes to it.
type fenced struct {
	physical.Backend
	fence *physical.Fence
}

func (f fenced) Commit(ctx context.Context, ops ...physical.Op) error {
	return f.Backend.Commit(ctx, f.fence, ops...)
}

// world is a store, and what the application does.
type world struct {
	t         *testing.T
	store     physical.Backend
	fence     physical.Fence
	now       time.Time
	delivered atomic.Int32
	app       http.HandlerFunc
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, store: memory.NewStore().Open(), now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	w.app = func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		rw.Header().Set("X-App", "yes")
		rw.Header().Set("Trailer", "X-Sum")
		rw.WriteHeader(http.StatusCreated)
		_, _ = rw.Write(append([]byte("made "), body...))
		rw.Header().Set("X-Sum", "s")
	}
	return w
}

// node is the handler of a new term: a node that became active.
func (w *world) node(change ...func(*Config)) *Handler {
	w.t.Helper()
	next := w.fence
	next.Lineage, next.Term = "l", next.Term+1
	if err := w.store.RaiseFence(context.Background(), w.fence, next); err != nil {
		w.t.Fatal(err)
	}
	w.fence = next
	fence := next
	cfg := Config{
		Application: "a", Store: fenced{w.store, &fence}, Term: next.Term, MaxSize: 1000, Now: func() time.Time { return w.now },
		Deliver: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.delivered.Add(1)
			w.app(rw, r)
		}),
	}
	for _, f := range change {
		f(&cfg)
	}
	h, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return h
}

type ask struct {
	key, body, user string
	ctx             context.Context
}

func (a ask) of(h http.Handler) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", "/orders?x=1", strings.NewReader(a.body))
	if a.ctx != nil {
		r = r.WithContext(a.ctx)
	}
	r.Header.Set("Idempotency-Key", a.key)
	if a.user != "" {
		r.Header.Set("Authorization", "Bearer "+a.user)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec
}

func (w *world) want(what string, rec *httptest.ResponseRecorder, status int, body string, delivered int32) {
	w.t.Helper()
	if rec.Code != status || !strings.Contains(rec.Body.String(), body) || w.delivered.Load() != delivered {
		w.t.Errorf("%s: %d %q, delivered %d times; want %d %q, %d", what, rec.Code, rec.Body, w.delivered.Load(), status, body, delivered)
	}
}

// "the answer is stored before it is sent, by any node": the same key gets the same answer, and one delivery.
func TestAnsweredFromTheStore(t *testing.T) {
	w := newWorld(t)
	h := w.node()
	w.want("first", ask{key: `"k-1"`, body: "x"}.of(h), 201, "made x", 1)
	again := ask{key: `"k-1"`, body: "x"}.of(h)
	w.want("again", again, 201, "made x", 1)
	if again.Header().Get("X-App") != "yes" || again.Header().Get("X-Locum-Replayed") != "true" || again.Result().Trailer.Get("X-Sum") != "s" {
		t.Errorf("header %v, trailer %v", again.Header(), again.Result().Trailer)
	}
	w.want("without quotes", ask{key: `k-1`, body: "x"}.of(h), 201, "made x", 1)
	w.want("at the next node", ask{key: `"k-1"`, body: "x"}.of(w.node()), 201, "made x", 1)
	w.want("another key", ask{key: `"k-2"`, body: "x"}.of(w.node()), 201, "made x", 2)
}

// draft-ietf-httpapi-idempotency-key-header §2.7: a key reused with another request is 422; issue 5: by another caller too.
func TestKeyOfAnother(t *testing.T) {
	w := newWorld(t)
	h := w.node()
	w.want("first", ask{key: "k", body: "x", user: "u"}.of(h), 201, "made x", 1)
	w.want("another body", ask{key: "k", body: "y", user: "u"}.of(h), 422, "another request", 1)
	w.want("another caller", ask{key: "k", body: "x", user: "v"}.of(h), 422, "another caller", 1)
	w.want("nobody", ask{key: "k", body: "x"}.of(h), 422, "another caller", 1)
}

func TestKeysThatAreNone(t *testing.T) {
	w := newWorld(t)
	h := w.node()
	for _, key := range []string{`""`, `"`, `"a"b"`, strings.Repeat("k", 257), "ä"} {
		w.want(key, ask{key: key}.of(h), 400, "Idempotency-Key", 0)
	}
	w.want("a long body", ask{key: "k", body: strings.Repeat("x", 1001)}.of(h), 413, "1000 bytes", 0)
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Idempotency-Key", "k")
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	w.want("a safe request is passed on", rec, 201, "made", 1)
}

// "running → 409", and to another caller nothing is said of it.
func TestWhileItRuns(t *testing.T) {
	w := newWorld(t)
	enter, leave := make(chan struct{}), make(chan struct{})
	w.app = func(rw http.ResponseWriter, _ *http.Request) {
		close(enter)
		<-leave
		_, _ = io.WriteString(rw, "slow")
	}
	h := w.node()
	first := make(chan *httptest.ResponseRecorder)
	go func() { first <- ask{key: "k"}.of(h) }()
	<-enter
	second := ask{key: "k"}.of(h)
	w.want("second", second, 409, "being carried out", 1)
	if second.Header().Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	w.want("of another", ask{key: "k", user: "v"}.of(h), 422, "another caller", 1)
	close(leave)
	w.want("first", <-first, 200, "slow", 1)
	w.want("third", ask{key: "k"}.of(h), 200, "slow", 1)
}

// "after a failover with no stored answer → unknown, unless idempotency = application".
func TestAfterAFailover(t *testing.T) {
	for _, own := range []bool{false, true} {
		w := newWorld(t)
		enter, leave := make(chan struct{}), make(chan struct{})
		w.app = func(rw http.ResponseWriter, _ *http.Request) {
			if w.delivered.Load() == 1 {
				close(enter)
				<-leave
			}
			_, _ = io.WriteString(rw, "answer")
		}
		old := w.node()
		first := make(chan *httptest.ResponseRecorder)
		go func() { first <- ask{key: "k"}.of(old) }()
		<-enter
		next := w.node(func(c *Config) { c.Own = own })
		if own {
			w.want("application deduplicates", ask{key: "k"}.of(next), 200, "answer", 2)
		} else {
			w.want("unknown", ask{key: "k"}.of(next), 503, `"processed":"unknown"`, 1)
		}
		close(leave)
		// P1: the deposed node stores nothing, so it sends nothing of the application's answer either.
		if rec := <-first; rec.Code != 503 || strings.Contains(rec.Body.String(), "answer\n") {
			t.Errorf("the deposed node answered %d %q", rec.Code, rec.Body)
		}
	}
}

// A deposed node delivers nothing: its intent is refused by the store.
func TestDeposedNodeDeliversNothing(t *testing.T) {
	w := newWorld(t)
	var told error
	old := w.node(func(c *Config) { c.Deposed = func(_ *http.Request, err error) { told = err } })
	w.node()
	w.want("deposed", ask{key: "k"}.of(old), 503, "unknown", 0)
	if !errors.Is(told, physical.ErrFenced) {
		t.Errorf("told %v", told)
	}
}

// slow is a store whose first Commit takes until the client has gone, and is not carried out if it was given up.
type slow struct {
	Store
	once  sync.Once
	leave func()
}

func (s *slow) Commit(ctx context.Context, ops ...physical.Op) error {
	s.once.Do(s.leave)
	if err := s.Store.Commit(context.WithoutCancel(ctx), ops...); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", physical.ErrUnknown, ctx.Err()) // it was written, and nobody knows
	}
	return nil
}

// A client that gives up while the intent is being committed can ask again under its key, too.
func TestClientLeavesDuringTheIntent(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(context.Background())
	h := w.node(func(c *Config) { c.Store = &slow{Store: c.Store, leave: cancel} })
	ask{key: "k", body: "b", ctx: ctx}.of(h)
	w.want("back again", ask{key: "k", body: "b"}.of(h), 201, "made b", 1)
}

// A keyed request's trailers reach the application, and are part of what a key stands for.
func TestTrailers(t *testing.T) {
	w := newWorld(t)
	w.app = func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprintf(rw, "sum %s, length %d", r.Trailer.Get("X-Sum"), r.ContentLength)
	}
	h := w.node()
	send := func(sum string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "/orders", io.MultiReader(strings.NewReader("body")))
		r.Header.Set("Idempotency-Key", "k")
		r.Trailer = http.Header{"X-Sum": {sum}}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		return rec
	}
	w.want("with trailers", send("s"), 200, "sum s, length -1", 1)
	w.want("again", send("s"), 200, "sum s, length -1", 1)
	w.want("with others", send("t"), 422, "another request", 1)
}

// A client that gives up and asks again under its key finds the answer: its leaving does not end what was begun.
func TestClientLeavesAndComesBack(t *testing.T) {
	w := newWorld(t)
	enter, leave := make(chan struct{}), make(chan struct{})
	w.app = func(rw http.ResponseWriter, r *http.Request) {
		close(enter)
		select {
		case <-leave:
		case <-r.Context().Done():
			t.Error("ended with the client")
		}
		_, _ = io.WriteString(rw, "done anyway")
	}
	h := w.node()
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		ask{key: "k", ctx: ctx}.of(h)
	}()
	<-enter
	cancel()
	close(leave)
	<-over
	w.want("back again", ask{key: "k"}.of(h), 200, "done anyway", 1)
}

func TestLongAnswer(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("long ", 1000)
	w.app = func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, long)
		_, _ = io.WriteString(rw, "end")
	}
	h := w.node()
	w.want("first", ask{key: "k"}.of(h), 200, long+"end", 1)
	w.want("again", ask{key: "k"}.of(h), 409, `"processed":"yes"`, 1)
}

// outcomes is what package upstream says of requests without an answer.
func outcome(processed string, broken bool) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		if broken {
			_, _ = io.WriteString(rw, "half of it")
			panic(http.ErrAbortHandler)
		}
		rw.(interface{ NotAnswered(string) }).NotAnswered(processed)
		rw.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(rw, processed)
	}
}

// What was certainly not delivered leaves no trace; what broke off is unknown for as long as the key is known.
func TestNoAnswer(t *testing.T) {
	w := newWorld(t)
	h := w.node()
	fine := w.app
	w.app = outcome("no", false)
	w.want("not reached", ask{key: "k"}.of(h), 503, "no", 1)
	w.app = fine
	w.want("again", ask{key: "k", body: "x"}.of(h), 201, "made x", 2)
	for i, app := range []http.HandlerFunc{outcome("unknown", false), outcome("", true)} {
		key := []string{"k2", "k3"}[i]
		w.app = app
		if rec := (ask{key: key}).of(h); rec.Code < 500 || strings.Contains(rec.Body.String(), "half") {
			t.Errorf("broken: %d %q", rec.Code, rec.Body)
		}
		w.app = fine
		w.want("again", ask{key: key}.of(h), 503, `"processed":"unknown"`, int32(3+i))
	}
}

// "for a configured time": then the key is new, and what is left of it is removed in bounded work (P12).
func TestExpiry(t *testing.T) {
	w := newWorld(t)
	h := w.node(func(c *Config) { c.TTL = time.Hour })
	for _, key := range []string{"a", "b", "c"} {
		ask{key: key}.of(h)
	}
	w.now = w.now.Add(time.Hour + time.Second)
	w.want("expired", ask{key: "a"}.of(h), 201, "made", 4)
	w.now = w.now.Add(2 * time.Hour)
	w.want("a is known no more either", ask{key: "a"}.of(h), 201, "made", 5)
	w.now = w.now.Add(30 * time.Minute)
	if err := h.Sweep(context.Background()); err != nil {
		t.Fatal(err)
	}
	left := func(what string) int {
		names, err := w.store.List(context.Background(), "core/app/a/"+what, "", 100)
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	if k, d := left("key/"), left("due/"); k != 1 || d != 1 {
		t.Errorf("%d keys and %d hours are left, want those of the last use", k, d)
	}
	w.want("known", ask{key: "a"}.of(h), 201, "made", 5)
	w.now = w.now.Add(3 * time.Hour)
	if err := h.Sweep(context.Background()); err != nil {
		t.Fatal(err)
	}
	if k, d := left("key/"), left("due/"); k != 0 || d != 0 {
		t.Errorf("%d keys and %d hours are left", k, d)
	}
}

// P12: what is carried out at a time is bounded; behind a router, more wait.
func TestBounded(t *testing.T) {
	w := newWorld(t)
	enter, leave := make(chan struct{}), make(chan struct{})
	w.app = func(http.ResponseWriter, *http.Request) {
		close(enter)
		<-leave
	}
	h := w.node(func(c *Config) { c.MaxRunning = 1 })
	first := make(chan *httptest.ResponseRecorder)
	go func() { first <- ask{key: "a"}.of(h) }()
	<-enter
	if rec := (ask{key: "b"}).of(h); rec.Code != 503 || rec.Header().Get("Retry-After") == "" || !strings.Contains(rec.Body.String(), `"processed":"no"`) {
		t.Errorf("%d %q", rec.Code, rec.Body)
	}
	close(leave)
	w.want("first", <-first, 200, "", 1)
}
