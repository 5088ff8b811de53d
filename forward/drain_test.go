package forward

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// P5: a planned switchover under load at every node loses nothing, executes nothing twice, and what was
// in flight is finished by the node that it had reached.
func TestSwitchoverLosesNothing(t *testing.T) {
	checkLeaks(t)
	n := newTrio(t)
	var mu sync.Mutex
	executed := map[string]int{}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		executed[string(b)]++
		mu.Unlock()
		fmt.Fprint(w, "ok")
	})
	nodes := []*node{n.a, n.b, n.s}
	leader := 0
	term := uint64(1)
	nodes[0].Lead(term, newLease(), handler)
	nodes[1].Follow(nodes[0].target(term, nodes[1]))
	nodes[2].Follow(nodes[0].target(term, nodes[2]))

	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var sent atomic.Int64
	for i, from := range nodes {
		for range 4 {
			wg.Go(func() {
				for ctx.Err() == nil {
					id := fmt.Sprint(i, " ", sent.Add(1))
					rec := httptest.NewRecorder()
					from.ServeHTTP(rec, httptest.NewRequest("POST", "/", strings.NewReader(id)))
					if rec.Code != 200 {
						t.Errorf("at %s: %d %s", from.name, rec.Code, rec.Body)
					}
				}
			})
		}
	}
	for range 20 {
		eventually(t, func() bool { return sent.Load()%7 == 0 })
		if err := nodes[leader].Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		leader = (leader + 1) % 3
		term++
		nodes[leader].Lead(term, newLease(), handler)
		for i, f := range nodes {
			if i != leader {
				f.Follow(nodes[leader].target(term, f))
			}
		}
	}
	cancel()
	wg.Wait()
	if int64(len(executed)) != sent.Load() {
		t.Errorf("%d executed, %d sent", len(executed), sent.Load())
	}
	for id, times := range executed {
		if times != 1 {
			t.Errorf("%s executed %d times", id, times)
		}
	}
}

// A drain waits for what is in flight, here and from standbys, and holds the rest.
func TestDrainWaitsForInFlight(t *testing.T) {
	checkLeaks(t)
	n := newTrio(t)
	running, finish := make(chan struct{}, 2), make(chan struct{})
	n.a.Lead(1, newLease(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		running <- struct{}{}
		<-finish
		fmt.Fprint(w, "done by a")
	}))
	n.s.Follow(n.a.target(1, n.s))
	n.s.waitUp()
	slow := []chan *httptest.ResponseRecorder{ask(n.a, httptest.NewRequest("POST", "/", nil)), ask(n.s, httptest.NewRequest("POST", "/", nil))}
	<-running
	<-running
	drained := make(chan error, 1)
	go func() { drained <- n.a.Drain(t.Context()) }()
	eventually(t, func() bool { return n.a.place.Load().local == nil && n.s.place.Load().session == nil })
	later := []chan *httptest.ResponseRecorder{ask(n.a, httptest.NewRequest("POST", "/", nil)), ask(n.s, httptest.NewRequest("POST", "/", nil))}
	eventually(t, func() bool { return n.a.held.count.Load() == 1 && n.s.held.count.Load() == 1 })
	select {
	case err := <-drained:
		t.Fatal("drained with requests in flight", err)
	default:
	}
	close(finish)
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
	for _, ch := range slow {
		if rec := <-ch; rec.Code != 200 || rec.Body.String() != "done by a" {
			t.Error(rec.Code, rec.Body)
		}
	}
	n.b.Lead(2, newLease(), http.HandlerFunc(echoHandler))
	n.a.Follow(n.b.target(2, n.a))
	n.s.Follow(n.b.target(2, n.s))
	for _, ch := range later {
		if rec := <-ch; rec.Code != 200 || rec.Header().Get("X-Locum-Node") != "b" {
			t.Error(rec.Code, rec.Body)
		}
	}
}

// The drain limit: what is not done by then is cancelled, with its cause.
func TestDrainLimit(t *testing.T) {
	checkLeaks(t)
	n := newTrio(t)
	cause := make(chan error, 1)
	running := make(chan struct{})
	n.a.Lead(1, newLease(), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(running)
		<-r.Context().Done()
		cause <- contextCause(r)
	}))
	ch := ask(n.a, httptest.NewRequest("GET", "/", nil))
	<-running
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := n.a.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := <-cause; !errors.Is(err, ErrDrainLimit) {
		t.Error(err)
	}
	<-ch
}

// Endless requests are told at once, end cleanly, and are not waited for until the limit.
func TestDrainEndsTheEndless(t *testing.T) {
	checkLeaks(t)
	for _, via := range []string{"local", "forwarded"} {
		n := newTrio(t)
		n.a.serve()
		causes := make(chan error, 3)
		mux := http.NewServeMux()
		mux.HandleFunc("/sse", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			fmt.Fprint(w, "data: 1\n\n")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			causes <- contextCause(r)
			panic(http.ErrAbortHandler) // as a reverse proxy does
		})
		mux.HandleFunc("/watch", func(w http.ResponseWriter, r *http.Request) {
			Endless(r.Context())
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			causes <- contextCause(r)
		})
		mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
			c, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
			_ = rw.Flush()
			<-r.Context().Done()
			causes <- contextCause(r)
			_, _ = io.WriteString(c, "1012\n")
		})
		n.a.Lead(1, newLease(), mux)
		n.s.Follow(n.a.target(1, n.s))
		n.s.waitUp()
		from := n.s
		if via == "local" {
			from = n.a
		}
		sse, err := client.Do(mustRequest(t, "GET", from.http.URL+"/sse", nil))
		if err != nil {
			t.Fatal(err)
		}
		watch, err := client.Do(mustRequest(t, "GET", from.http.URL+"/watch", nil))
		if err != nil {
			t.Fatal(err)
		}
		ws, br := upgrade(t, from, "/ws")
		start := time.Now()
		if err := n.a.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d > endlessGrace/2 {
			t.Errorf("%s: drain took %v", via, d)
		}
		for range 3 {
			if err := <-causes; !errors.Is(err, ErrDraining) {
				t.Errorf("%s: %v", via, err)
			}
		}
		if b, err := io.ReadAll(sse.Body); string(b) != "data: 1\n\n" || err != nil && via == "forwarded" {
			t.Errorf("%s: SSE ended with %q, %v", via, b, err)
		}
		if _, err := io.ReadAll(watch.Body); err != nil {
			t.Errorf("%s: %v", via, err)
		}
		if b, err := io.ReadAll(br); string(b) != "1012\n" || err != nil {
			t.Errorf("%s: WebSocket ended with %q, %v", via, b, err)
		}
		ws.Close()
		sse.Body.Close()
		watch.Body.Close()
	}
}

// A taken-over connection whose handler does not listen is closed after a grace.
func TestDrainCutsTheDeaf(t *testing.T) {
	checkLeaks(t)
	n := newTrio(t)
	n.a.serve()
	release := make(chan struct{})
	n.a.Lead(1, newLease(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
		<-release
		c.Close()
	}))
	n.s.Follow(n.a.target(1, n.s))
	n.s.waitUp()
	a, _ := upgrade(t, n.a, "/")
	b, _ := upgrade(t, n.s, "/")
	if err := n.a.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{a, b} {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("still open")
		}
		c.Close()
	}
	close(release)
}

// The step-down request itself is not waited for, and its answer leaves although the lease is over.
func TestDetachedRequestOutlivesTheLease(t *testing.T) {
	checkLeaks(t)
	n := newTrio(t)
	l := newLease()
	n.a.Lead(1, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		Detach(r.Context())
		if err := n.a.Drain(r.Context()); err != nil {
			t.Error(err)
		}
		l.end(errors.New("released"))
		n.b.Lead(2, newLease(), http.HandlerFunc(echoHandler))
		n.a.Follow(n.b.target(2, n.a))
		if err := r.Context().Err(); err != nil {
			t.Error(err)
		}
		w.WriteHeader(204)
	}))
	if rec := <-ask(n.a, httptest.NewRequest("POST", "/v1/sys/step-down", nil)); rec.Code != 204 {
		t.Error(rec.Code, rec.Body)
	}
}

// upgrade makes a client's raw connection after the answer's head was read.
func upgrade(t *testing.T, n *node, path string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", n.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", path)
	br := bufio.NewReader(c)
	if line := readLine(t, br); !strings.HasPrefix(line, "HTTP/1.1 101") {
		t.Fatal(line)
	}
	for readLine(t, br) != "" {
	}
	return c, br
}
