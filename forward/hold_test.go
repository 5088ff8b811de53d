package forward

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// inBubble makes a running Router whose end the caller's bubble waits for.
func inBubble(t *testing.T, change ...func(*Config)) (*Router, func()) {
	t.Helper()
	cfg := Config{Node: "b", NodeID: "id-b", APIAddr: "http://b.example:8400"}
	for _, f := range change {
		f(&cfg)
	}
	r, err := NewRouter(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		_ = r.Run(ctx)
		close(done)
	}()
	return r, func() {
		cancel()
		<-done
	}
}

// ask sends a request to the handler and returns the answer when there is one.
func ask(h http.Handler, req *http.Request) chan *httptest.ResponseRecorder {
	ch := make(chan *httptest.ResponseRecorder, 1)
	go func() {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		ch <- rec
	}()
	return ch
}

type failure struct {
	Errors    []string `json:"errors"`
	Processed string   `json:"processed"`
}

func isRefusal(t *testing.T, rec *httptest.ResponseRecorder, processed string) {
	t.Helper()
	var f failure
	if err := json.Unmarshal(rec.Body.Bytes(), &f); err != nil {
		t.Fatalf("%v in %q", err, rec.Body)
	}
	if rec.Code != 503 || f.Processed != processed || len(f.Errors) != 1 || f.Errors[0] == "" ||
		rec.Header().Get("Retry-After") == "" || rec.Header().Get("X-Request-Id") == "" ||
		rec.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%d %v %s", rec.Code, rec.Header(), rec.Body)
	}
}

// P12: a wait ends after its time, with an answer that says that nothing was processed.
func TestHoldTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var held []time.Duration
		now := 0
		r, stop := inBubble(t, func(c *Config) {
			c.HoldTimeout = 7 * time.Second
			c.Observer.Held = func(d time.Duration, _ bool) { held = append(held, d) }
			c.Observer.HeldNow = func(d int) { now += d }
		})
		defer stop()
		start := time.Now()
		rec := <-ask(r, httptest.NewRequest("POST", "/", strings.NewReader("x")))
		if d := time.Since(start); d != 7*time.Second {
			t.Error(d)
		}
		isRefusal(t, rec, "no")
		if len(held) != 1 || held[0] != 7*time.Second || now != 0 {
			t.Error(held, now)
		}
	})
}

// All that wait are served when this node leads.
func TestHoldWakesOnLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, stop := inBubble(t)
		defer stop()
		var answers []chan *httptest.ResponseRecorder
		for i := range 100 {
			answers = append(answers, ask(r, httptest.NewRequest("POST", "/", strings.NewReader(fmt.Sprint(i)))))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		start := time.Now()
		r.Lead(1, newLease(), http.HandlerFunc(echoHandler))
		for i, ch := range answers {
			if rec := <-ch; rec.Code != 200 || rec.Body.String() != fmt.Sprint("POST:", i) {
				t.Errorf("%d %s", rec.Code, rec.Body)
			}
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("took %v", d)
		}
	})
}

// P12: past their number or their bytes, further requests are refused at once.
func TestHoldIsBounded(t *testing.T) {
	for name, limit := range map[string]func(*Config){
		"number": func(c *Config) { c.HoldMaxRequests = 3 },
		"bytes":  func(c *Config) { c.HoldMaxBytes = 3 * 2500 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, stop := inBubble(t, limit)
				defer stop()
				request := func() *http.Request {
					req := httptest.NewRequest("GET", "/", nil)
					req.Header.Set("X-Pad", strings.Repeat("x", 1200))
					return req
				}
				var waiting []chan *httptest.ResponseRecorder
				for range 3 {
					waiting = append(waiting, ask(r, request()))
				}
				synctest.Wait()
				start := time.Now()
				isRefusal(t, <-ask(r, request()), "no")
				if time.Since(start) != 0 {
					t.Error("waited")
				}
				r.Lead(1, newLease(), http.HandlerFunc(echoHandler))
				for _, ch := range waiting {
					if rec := <-ch; rec.Code != 200 {
						t.Error(rec.Code)
					}
				}
				if r.held.count.Load() != 0 || r.held.bytes.Load() != 0 {
					t.Error("count", r.held.count.Load(), "bytes", r.held.bytes.Load())
				}
			})
		})
	}
}

// With no limit there is the default; with None nothing waits, and no body is kept.
func TestHoldNone(t *testing.T) {
	for name, limit := range map[string]func(*Config){
		"number": func(c *Config) { c.HoldMaxRequests = None },
		"bytes":  func(c *Config) { c.HoldMaxBytes, c.RetryBuffer = None, None },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, stop := inBubble(t, limit)
				defer stop()
				start := time.Now()
				isRefusal(t, <-ask(r, httptest.NewRequest("GET", "/", nil)), "no")
				isRefusal(t, <-ask(r, httptest.NewRequest("POST", "/", strings.NewReader("body"))), "no")
				if time.Since(start) != 0 {
					t.Error("waited")
				}
				r.Lead(1, newLease(), http.HandlerFunc(echoHandler))
				if rec := <-ask(r, httptest.NewRequest("POST", "/", strings.NewReader("body"))); rec.Code != 200 || !strings.HasSuffix(rec.Body.String(), "body") {
					t.Errorf("%d %s", rec.Code, rec.Body)
				}
			})
		})
	}
	if _, err := NewRouter(Config{Node: "b", NodeID: "id-b", HoldMaxRequests: -2}); err == nil {
		t.Error("a negative limit is taken")
	}
}

// A client that goes away while it waits frees its place.
func TestHoldEndsWithTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, stop := inBubble(t)
		defer stop()
		ctx, cancel := context.WithCancel(t.Context())
		ch := ask(r, httptest.NewRequest("GET", "/", nil).WithContext(ctx))
		synctest.Wait()
		if r.held.count.Load() != 1 {
			t.Error("not held")
		}
		cancel()
		<-ch
		if r.held.count.Load() != 0 {
			t.Error("still held")
		}
	})
}

// A request that cannot be passed on is redirected when its time is over, if somebody is active.
func TestHoldTimeoutRedirectsToAKnownNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, stop := inBubble(t)
		defer stop()
		r.Follow(Target{Term: 1, NodeID: "id-a", Name: "a", APIAddr: "https://a.example/p", Dial: func(ctx context.Context) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		start := time.Now()
		rec := <-ask(r, httptest.NewRequest("POST", "/v1/x?y", strings.NewReader("x")))
		if rec.Code != 307 || rec.Header().Get("Location") != "https://a.example/p/v1/x?y" || time.Since(start) != 40*time.Second {
			t.Error(rec.Code, rec.Header(), time.Since(start))
		}
	})
}

// A standby that is told of a newer active node goes there at once, though the dial to the older one hangs.
func TestFollowIsNotDelayedByAHangingDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, stop := inBubble(t)
		defer stop()
		release := make(chan struct{})
		r.Follow(Target{Term: 1, NodeID: "id-a", Name: "a", Dial: func(context.Context) (net.Conn, error) {
			<-release // not even its context makes it return
			return nil, net.ErrClosed
		}})
		ch := ask(r, httptest.NewRequest("GET", "/", nil))
		synctest.Wait()
		c, stopC := inBubble(t, func(c *Config) { c.Node, c.NodeID = "c", "id-c" })
		defer stopC()
		c.Lead(2, newLease(), http.HandlerFunc(echoHandler))
		start := time.Now()
		r.Follow(pipeTarget(t.Context(), c, r, 2))
		if rec := <-ch; rec.Code != 200 || rec.Header().Get("X-Locum-Node") != "c" {
			t.Error(rec.Code, rec.Header())
		}
		if d := time.Since(start); d != 0 {
			t.Error(d)
		}
		close(release)
	})
}

// pipeTarget reaches a Router over net.Pipe.
func pipeTarget(ctx context.Context, to, from *Router, term uint64) Target {
	return Target{
		Term: term, NodeID: to.cfg.NodeID, Name: to.cfg.Node, APIAddr: to.cfg.APIAddr,
		Dial: func(context.Context) (net.Conn, error) {
			a, b := net.Pipe()
			go func() { _ = to.ServeConn(ctx, b, from.cfg.NodeID, from.cfg.Node) }()
			return a, nil
		},
	}
}

// After Run has ended, nobody waits.
func TestAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, stop := inBubble(t)
		ch := ask(r, httptest.NewRequest("GET", "/", nil))
		synctest.Wait()
		stop()
		isRefusal(t, <-ch, "no")
		isRefusal(t, <-ask(r, httptest.NewRequest("GET", "/", nil)), "no")
		r.Lead(1, newLease(), http.HandlerFunc(echoHandler))
		isRefusal(t, <-ask(r, httptest.NewRequest("GET", "/", nil)), "no")
	})
}

// The connection is tried again and again while the target stands, and is given up when it is silent.
func TestConnectionIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, stop := inBubble(t)
		defer stop()
		a, stopA := inBubble(t, func(c *Config) { c.Node, c.NodeID = "a", "id-a" })
		defer stopA()
		a.Lead(1, newLease(), http.HandlerFunc(echoHandler))
		var dials atomic.Int32
		var mu sync.Mutex
		var last *stallConn
		target := pipeTarget(t.Context(), a, r, 1)
		dial := target.Dial
		target.Dial = func(ctx context.Context) (net.Conn, error) {
			if dials.Add(1) <= 3 {
				return nil, net.ErrClosed
			}
			c, err := dial(ctx)
			mu.Lock()
			defer mu.Unlock()
			last = &stallConn{Conn: c, stalled: make(chan struct{})}
			return last, err
		}
		r.Follow(target)
		if rec := <-ask(r, httptest.NewRequest("GET", "/", nil)); rec.Code != 200 || dials.Load() != 4 {
			t.Error(rec.Code, dials.Load())
		}
		time.Sleep(time.Minute) // echoes keep it
		if c, ok := r.Connected(); !ok || !c.Up || time.Since(c.LastEcho) > 2*time.Second || dials.Load() != 4 {
			t.Errorf("%+v %d", c, dials.Load())
		}
		if p := a.Peers(); len(p) != 1 || p[0].Name != "b" || p[0].ID != "id-b" || p[0].LastEcho.IsZero() {
			t.Errorf("%+v", p)
		}
		mu.Lock()
		last.stall()
		mu.Unlock()
		start := time.Now()
		ch := ask(r, httptest.NewRequest("GET", "/", nil))
		if rec := <-ch; rec.Code != 200 || dials.Load() != 5 {
			t.Error(rec.Code, dials.Load())
		}
		if d := time.Since(start); d > (silentEchoes+2)*echoInterval {
			t.Error("silent for", d)
		}
	})
}

// stallConn is a connection whose other end stands still: nothing is read or written any more.
type stallConn struct {
	net.Conn
	stalled chan struct{}
	once    sync.Once
	closed  chan struct{}
	mu      sync.Mutex
}

func (c *stallConn) stall() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = make(chan struct{})
	close(c.stalled)
}

func (c *stallConn) wait() bool {
	select {
	case <-c.stalled:
		<-c.closed
		return true
	default:
		return false
	}
}

func (c *stallConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.wait() {
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *stallConn) Write(p []byte) (int, error) {
	if c.wait() {
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

func (c *stallConn) Close() error {
	c.mu.Lock()
	if c.closed != nil {
		c.once.Do(func() { close(c.closed) })
	}
	c.mu.Unlock()
	return c.Conn.Close()
}
