package forward

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// P6: a slot is used by one request at a time, again after a definite answer, never after an unknown one.
func TestSlots(t *testing.T) {
	checkLeaks(t)
	n := newTrio(t, keyed)
	type use struct{ slot, key string }
	uses := make(chan use, 100)
	block := make(chan struct{})
	handler := func(w http.ResponseWriter, r *http.Request) {
		i := InfoFrom(r.Context())
		uses <- use{i.Slot, i.Key}
		if r.URL.Path == "/block" {
			select {
			case <-block:
			case <-r.Context().Done():
			}
		}
	}
	n.a.Lead(1, newLease(), http.HandlerFunc(handler))
	n.s.Follow(n.a.target(1, n.s))
	n.s.waitUp()
	write := func(from *node, path string) chan *httptest.ResponseRecorder {
		req := httptest.NewRequest("POST", path, strings.NewReader("x"))
		req.Header.Set("X-Keyed", "1")
		return ask(from, req)
	}
	for _, from := range []*node{n.a, n.s} {
		<-write(from, "/")
		first := <-uses
		<-write(from, "/")
		second := <-uses
		if first.slot != from.Incarnation()+"0" || second.slot != first.slot || second.key == first.key || first.key == "" {
			t.Error(first, second)
		}
	}
	// Not keyed: no slot.
	<-ask(n.s, httptest.NewRequest("POST", "/", nil))
	if u := <-uses; u != (use{}) {
		t.Error(u)
	}
	// At the same time: different slots.
	a, b := write(n.s, "/block"), write(n.s, "/block")
	ua, ub := <-uses, <-uses
	if ua.slot == ub.slot {
		t.Error(ua, ub)
	}
	close(block)
	<-a
	<-b
	block = make(chan struct{})

	// The client leaves: nobody knows whether the request is still at work. Its slot is burnt.
	ctx, cancel := context.WithCancel(t.Context())
	req := httptest.NewRequest("POST", "/block", strings.NewReader("x")).WithContext(ctx)
	req.Header.Set("X-Keyed", "1")
	gone := ask(n.s, req)
	burnt := <-uses
	cancel()
	<-gone
	for range 5 {
		c := write(n.s, "/")
		if u := <-uses; u.slot == burnt.slot {
			t.Error("a burnt slot came back", u)
		}
		<-c
	}
}

// A repeat on the node that still works at the first delivery waits for that, so that no write runs
// twice at a time.
func TestRepeatWaitsForTheFirst(t *testing.T) {
	checkLeaks(t)
	n := newTrio(t, keyed)
	var mu sync.Mutex
	running, total := 0, 0
	first := make(chan struct{}, 1)
	release := make(chan struct{})
	n.a.Lead(1, newLease(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		running++
		total++
		if running > 1 {
			t.Error("two deliveries at a time")
		}
		n := total
		mu.Unlock()
		if n == 1 {
			first <- struct{}{}
			<-release // deaf to its context, as a commit is
		}
		mu.Lock()
		running--
		mu.Unlock()
		fmt.Fprint(w, InfoFrom(r.Context()).Repeat)
	}))
	n.s.Follow(n.a.target(1, n.s))
	n.s.waitUp()
	req := httptest.NewRequest("POST", "/", strings.NewReader("x"))
	req.Header.Set("X-Keyed", "1")
	ch := ask(n.s, req)
	<-first
	n.a.crash() // only the connection: the same node, the same term
	eventually(t, func() bool { return n.a.inFlight() == 2 })
	close(release)
	if rec := <-ch; rec.Code != 200 || rec.Body.String() != "true" {
		t.Error(rec.Code, rec.Body)
	}
}

// A first delivery that has arrived but not begun to run when its connection is lost does not run behind
// its repeat.
func TestFirstDeliveryNeverRunsAfterItsRepeat(t *testing.T) {
	checkLeaks(t)
	n := newTrio(t, keyed)
	var runs atomic.Int32
	l := &slowLease{lease: newLease(), asked: make(chan struct{}), goOn: make(chan struct{})}
	n.a.Lead(1, l, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { runs.Add(1) }))
	n.s.Follow(n.a.target(1, n.s))
	n.s.waitUp()
	req := httptest.NewRequest("POST", "/", strings.NewReader("x"))
	req.Header.Set("X-Keyed", "1")
	ch := ask(n.s, req)
	<-l.asked // the first stands before its handler
	n.a.crash()
	if rec := <-ch; rec.Code != 200 || runs.Load() != 1 {
		t.Error(rec.Code, rec.Body, runs.Load())
	}
	close(l.goOn)
	eventually(t, func() bool { return n.a.inFlight() == 0 })
	if runs.Load() != 1 {
		t.Error("run", runs.Load(), "times")
	}
}

// slowLease stops the first who asks.
type slowLease struct {
	*lease
	first       atomic.Bool
	asked, goOn chan struct{}
}

func (l *slowLease) Valid() bool {
	if l.first.CompareAndSwap(false, true) {
		close(l.asked)
		<-l.goOn
	}
	return l.lease.Valid()
}

// A body that an earlier attempt has read is read again by a handler here.
func TestBodyIsReplayedLocally(t *testing.T) {
	checkLeaks(t)
	for _, size := range []int{0, 1, 5000, 100_000} {
		n := newTrio(t, keyed)
		ready := make(chan struct{})
		n.a.Lead(1, newLease(), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if size > 0 {
				_, _ = io.CopyN(io.Discard, r.Body, int64(size/2+1))
			}
			close(ready)
			<-r.Context().Done()
		}))
		n.s.Follow(n.a.target(1, n.s))
		req := httptest.NewRequest("POST", "/", io.MultiReader(strings.NewReader(strings.Repeat("x", size))))
		req.Header.Set("X-Keyed", "1")
		ch := ask(n.s, req)
		<-ready
		n.a.crash()
		n.s.Lead(2, newLease(), http.HandlerFunc(echoHandler))
		if rec := <-ch; rec.Code != 200 || rec.Body.Len() != size+5 || rec.Header().Get("X-Locum-Node") != "s" {
			t.Error(size, rec.Code, rec.Body.Len(), rec.Header())
		}
	}
}
