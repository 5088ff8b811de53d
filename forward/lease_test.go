package forward

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// P4: an answer made from state that may be old leaves no node, also not one whose handler had read it
// when the lease still stood. The request goes on to the next active node if it may be repeated.
func TestNoAnswerAfterTheLease(t *testing.T) {
	for _, via := range []string{"local", "forwarded"} {
		for _, method := range []string{"GET", "POST"} {
			for _, ending := range []string{"clock", "context", "abandon"} {
				t.Run(via+" "+method+" "+ending, func(t *testing.T) {
					checkLeaks(t)
					n := newTrio(t)
					l := newLease()
					read := make(chan struct{})
					goOn := make(chan struct{})
					n.a.Lead(1, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						close(read)
						<-goOn
						w.Header().Set("X-Stale", "1")
						_, _ = io.WriteString(w, "stale")
					}))
					n.s.Follow(n.a.target(1, n.s))
					n.s.waitUp()
					from := n.s
					if via == "local" {
						from = n.a
					}
					ch := ask(from, httptest.NewRequest(method, "/", strings.NewReader("x")))
					<-read
					switch ending {
					case "clock":
						l.invalid.Store(true) // as seen by a woken process before any timer has fired
					case "context":
						l.end(errors.New("not renewed"))
					case "abandon":
						n.a.Abandon()
					}
					close(goOn)
					n.b.Lead(2, newLease(), http.HandlerFunc(echoHandler))
					n.s.Follow(n.b.target(2, n.s))
					n.a.Follow(n.b.target(2, n.a))
					rec := <-ch
					if rec.Header().Get("X-Stale") != "" || strings.Contains(rec.Body.String(), "stale") {
						t.Fatal("stale:", rec.Code, rec.Header(), rec.Body)
					}
					if method == "POST" {
						isRefusal(t, rec, "unknown")
						return
					}
					if rec.Code != 200 || rec.Header().Get("X-Locum-Node") != "b" {
						t.Error(rec.Code, rec.Header(), rec.Body)
					}
				})
			}
		}
	}
}

// A request that meets a node without a lease does not run there.
func TestNothingRunsWithoutALease(t *testing.T) {
	checkLeaks(t)
	n := newTrio(t)
	l := newLease()
	n.a.Lead(1, l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("ran") }))
	n.s.Follow(n.a.target(1, n.s))
	n.s.waitUp()
	l.invalid.Store(true)
	local := ask(n.a, httptest.NewRequest("POST", "/", strings.NewReader("x")))
	forwarded := ask(n.s, httptest.NewRequest("POST", "/", strings.NewReader("x")))
	eventually(t, func() bool { return n.a.held.count.Load() == 1 && n.s.held.count.Load() == 1 })
	n.b.Lead(2, newLease(), http.HandlerFunc(echoHandler))
	n.a.Follow(n.b.target(2, n.a))
	n.s.Follow(n.b.target(2, n.s))
	for _, ch := range []chan *httptest.ResponseRecorder{local, forwarded} {
		if rec := <-ch; rec.Code != 200 || rec.Body.String() != "POST:x" {
			t.Error(rec.Code, rec.Body)
		}
	}
}

// The rest of an answer that had begun is not sent either, and the client sees that it is broken.
func TestStreamIsCutAfterTheLease(t *testing.T) {
	checkLeaks(t)
	for _, via := range []string{"local", "forwarded"} {
		n := newTrio(t)
		n.a.serve()
		l := newLease()
		goOn := make(chan struct{})
		failed := make(chan error, 1)
		n.a.Lead(1, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "begun")
			w.(http.Flusher).Flush()
			<-goOn
			_, err := w.Write(make([]byte, 100_000))
			failed <- err
		}))
		n.s.Follow(n.a.target(1, n.s))
		from := n.s
		if via == "local" {
			from = n.a
		}
		res, err := client.Do(mustRequest(t, "GET", from.http.URL, nil))
		if err != nil {
			t.Fatal(err)
		}
		l.invalid.Store(true)
		close(goOn)
		if b, err := io.ReadAll(res.Body); err == nil || len(b) > 5 {
			t.Errorf("%s: %d bytes, %v", via, len(b), err)
		}
		res.Body.Close()
		if err := <-failed; !errors.Is(err, ErrDeposed) {
			t.Errorf("%s: the handler got %v", via, err)
		}
	}
}

// The lease's end cancels what runs, with a cause.
func TestLeaseEndCancels(t *testing.T) {
	checkLeaks(t)
	n := newTrio(t)
	l := newLease()
	causes := make(chan error, 2)
	running := make(chan struct{}, 2)
	n.a.Lead(1, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		running <- struct{}{}
		<-r.Context().Done()
		causes <- contextCause(r)
	}))
	n.s.Follow(n.a.target(1, n.s))
	n.s.waitUp()
	a := ask(n.a, httptest.NewRequest("POST", "/", nil))
	b := ask(n.s, httptest.NewRequest("POST", "/", nil))
	<-running
	<-running
	why := errors.New("not renewed")
	l.end(why)
	for range 2 {
		if err := <-causes; !errors.Is(err, ErrDeposed) {
			t.Error(err)
		}
	}
	isRefusal(t, <-a, "unknown")
	isRefusal(t, <-b, "unknown")
}
