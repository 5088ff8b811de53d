package forward

import (
	"context"
	"encoding/json"
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

	"github.com/locum-ha/locum/internal/quickio"
)

// P6, all of it.
func TestDecide(t *testing.T) {
	bools := []bool{false, true}
	for _, begun := range bools {
		for _, delivered := range bools {
			for _, replayable := range bools {
				for _, may := range bools {
					for i := range 4 {
						now, repeats := i&1 != 0 && delivered, (i>>1)*maxRepeats
						f := fate{begun: begun, delivered: delivered, now: now, replayable: replayable, mayRepeat: may, repeats: repeats}
						got := decide(f)
						var want verdict
						switch {
						case begun:
							want = abort // never a second answer behind half a first one
						case !delivered && !replayable:
							want = refuse
						case !delivered:
							want = again // whatever the method: it certainly was not processed
						case may && replayable && repeats < maxRepeats:
							want = repeat
						case may && replayable && !now:
							want = repeat // this time nobody has seen it
						default:
							want = unknown
						}
						if got != want {
							t.Errorf("%+v: %v, want %v", f, got, want)
						}
					}
				}
			}
		}
	}
	for m, safe := range map[string]bool{"GET": true, "HEAD": true, "OPTIONS": true, "TRACE": true, "PUT": false, "DELETE": false, "POST": false, "PATCH": false, "get": false} {
		if isSafe(m) != safe {
			t.Error(m)
		}
	}
}

// trio is a standby and two nodes that can be active one after the other.
type trio struct {
	a, b, s *node
}

func newTrio(t *testing.T, change ...func(*Config)) trio {
	return trio{a: newNode(t, "a", change...), b: newNode(t, "b", change...), s: newNode(t, "s", change...).serve()}
}

// crash closes every connection that n serves, as the end of its process does.
func (n *node) crash() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.pipes {
		if t, ok := c.(interface{ NetConn() net.Conn }); ok {
			_ = t.NetConn().Close()
		}
	}
	n.pipes = nil
}

func keyed(c *Config) {
	c.Repeatable = func(r *http.Request) bool { return r.Header.Get("X-Keyed") != "" }
	c.RepeatMethods = []string{"PUT"}
}

// A crash of the active node after delivery: what may be repeated is answered by the next one, the rest
// gets one distinguishable answer.
func TestCrashAfterDelivery(t *testing.T) {
	for _, tt := range []struct {
		method, keyed string
		body          int
		want          int
	}{
		{"GET", "", 0, 200},
		{"HEAD", "", 0, 200},
		{"GET", "", 100, 200},
		{"POST", "", 100, 503},
		{"DELETE", "", 0, 503},
		{"PUT", "", 100, 200},
		{"PUT", "", 500_000, 200},
		{"PUT", "", 2 << 20, 503}, // longer than the retry buffer
		{"POST", "1", 1000, 200},
		{"POST", "1", 500_000, 200},
	} {
		t.Run(fmt.Sprintf("%s keyed=%s %d", tt.method, tt.keyed, tt.body), func(t *testing.T) {
			checkLeaks(t)
			var repeated, unknowns atomic.Int32
			n := newTrio(t, keyed, func(c *Config) {
				c.Observer.Repeated = func() { repeated.Add(1) }
				c.Observer.Unknown = func() { unknowns.Add(1) }
			})
			arrived := make(chan Info, 1)
			n.a.Lead(1, newLease(), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				arrived <- InfoFrom(r.Context())
				<-r.Context().Done()
			}))
			n.s.Follow(n.a.target(1, n.s))
			n.s.waitUp()
			first := make(chan Info, 1)
			go func() {
				first <- <-arrived
				n.a.crash()
				var got Info
				n.b.Lead(2, newLease(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					got = InfoFrom(r.Context())
					b, _ := io.ReadAll(r.Body)
					w.Header().Set("X-Info", fmt.Sprintf("%v %q %q", got.Repeat, got.Slot, got.Key))
					fmt.Fprintf(w, "%s %d", r.Method, len(b))
				}))
				n.s.Follow(n.b.target(2, n.s))
			}()
			var body io.Reader
			if tt.body > 0 {
				body = strings.NewReader(strings.Repeat("x", tt.body))
			}
			req := mustRequest(t, tt.method, n.s.http.URL, body)
			req.Header.Set("X-Keyed", tt.keyed)
			req.Header.Set("X-Request-Id", "the-id")
			res, got := do(t, req)
			if res.StatusCode != tt.want {
				t.Fatalf("%d %s", res.StatusCode, got)
			}
			before := <-first
			if before.Repeat || before.ID != "the-id" {
				t.Errorf("%+v", before)
			}
			if tt.want == 503 {
				var f failure
				if err := json.Unmarshal([]byte(got), &f); err != nil || f.Processed != "unknown" ||
					res.Header.Get("Retry-After") == "" || res.Header.Get("X-Request-Id") != "the-id" {
					t.Errorf("%v %v %s", err, res.Header, got)
				}
				if repeated.Load() != 0 || unknowns.Load() != 1 {
					t.Error(repeated.Load(), unknowns.Load())
				}
				return
			}
			if want := fmt.Sprintf("%s %d", tt.method, tt.body); got != want && tt.method != "HEAD" {
				t.Errorf("%q, want %q", got, want)
			}
			if want := fmt.Sprintf("true %q %q", before.Slot, before.Key); res.Header.Get("X-Info") != want {
				t.Errorf("%q, want %q", res.Header.Get("X-Info"), want)
			}
			if repeated.Load() != 1 || unknowns.Load() != 0 || res.Header.Get("X-Locum-Term") != "2" {
				t.Error(repeated.Load(), unknowns.Load(), res.Header)
			}
		})
	}
}

// A crash after the answer began: the client sees a broken answer, never a second one behind it.
func TestCrashWithinTheAnswer(t *testing.T) {
	checkLeaks(t)
	n := newTrio(t)
	sent := make(chan struct{})
	n.a.Lead(1, newLease(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		<-sent
		n.a.crash()
	}))
	n.s.Follow(n.a.target(1, n.s))
	res, err := client.Do(mustRequest(t, "GET", n.s.http.URL, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	close(sent)
	if b, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("whole answer %q", b)
	}
}

// P5: what a draining node has not accepted, and what it refuses, is not lost, whatever its method.
func TestNotProcessedGoesOn(t *testing.T) {
	checkLeaks(t)
	for _, method := range []string{"GET", "POST"} {
		n := newTrio(t)
		declined := make(chan struct{})
		n.a.Lead(1, newLease(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			Decline(r.Context())
			http.Error(w, "storage says: fenced", 500)
			n.a.Hold("fenced") // from here on it refuses
			close(declined)
		}))
		n.s.Follow(n.a.target(1, n.s))
		go func() {
			<-declined
			eventually(t, func() bool { return n.s.held.count.Load() == 1 })
			n.b.Lead(2, newLease(), http.HandlerFunc(echoHandler))
			n.s.Follow(n.b.target(2, n.s))
		}()
		res, body := do(t, mustRequest(t, method, n.s.http.URL, strings.NewReader("hello")))
		if res.StatusCode != 200 || body != method+":hello" || res.Header.Get("X-Locum-Node") != "b" {
			t.Errorf("%d %s %v", res.StatusCode, body, res.Header)
		}
	}
}

// A node that does not lead refuses what is forwarded to it, and never passes it on.
func TestNoChains(t *testing.T) {
	checkLeaks(t)
	n := newTrio(t)
	n.b.Lead(2, newLease(), http.HandlerFunc(echoHandler))
	n.a.Follow(n.b.target(2, n.a))
	n.a.waitUp()
	n.s.Follow(n.a.target(1, n.s)) // wrong: a only follows
	ch := ask(n.s, httptest.NewRequest("GET", "/", nil))
	eventually(t, func() bool { return n.s.held.count.Load() == 1 })
	if c, _ := n.s.Connected(); c.Up {
		t.Error("a node that does not lead counts as active")
	}
	n.s.Follow(n.b.target(2, n.s))
	if rec := <-ch; rec.Code != 200 || rec.Header().Get("X-Locum-Node") != "b" || rec.Header().Get("X-Locum-Forwarded-By") != "s" {
		t.Error(rec.Code, rec.Header())
	}
}

// A frozen active node does not delay the change to the next one, with requests in flight and its
// socket full.
func TestFrozenPeerDoesNotDelayFollow(t *testing.T) {
	checkLeaks(t)
	n := newTrio(t)
	n.a.Lead(1, newLease(), http.HandlerFunc(echoHandler))
	target := n.a.target(1, n.s)
	var frozen net.Conn
	var silent atomic.Bool
	target.Dial = func(context.Context) (net.Conn, error) {
		// The peer answers the handshake, says that it leads, and is then stopped.
		x, y := tcpPair(t)
		frozen = y
		err := errors.Join(x.(*quickio.Polled).Conn.(*net.TCPConn).SetWriteBuffer(64<<10), y.(*quickio.Polled).Conn.(*net.TCPConn).SetReadBuffer(64<<10))
		if err != nil {
			return nil, err
		}
		go func() {
			c := &serverConn{r: n.a.Router, peerID: "id-s", peerName: []string{"s"}}
			c.conn = newConn(y, hello{minVersion: 1, maxVersion: 1, window: bodyWindow, streams: 1000, nodeID: "id-a", nodeName: "a"}, defaultBudget)
			c.role, c.info = c, func() []byte { return nil }
			if err := c.handshake(context.Background()); err != nil {
				t.Error(err)
			}
			_ = c.w.frame(frameState, 0, 0, appendState(nil, true, 1), flushInline)
			silent.Store(true)
		}()
		return x, nil
	}
	n.s.Follow(target)
	n.s.waitUp()
	eventually(t, silent.Load)

	var wg sync.WaitGroup
	codes := map[int]int{}
	var mu sync.Mutex
	big := strings.Repeat("x", 16<<10)
	const requests = 120
	for i := range requests { // 2 MB: more than the socket takes
		method := "GET"
		if i%2 == 0 {
			method = "POST"
		}
		wg.Go(func() {
			rec := httptest.NewRecorder()
			n.s.ServeHTTP(rec, httptest.NewRequest(method, "/", strings.NewReader(big)))
			mu.Lock()
			codes[rec.Code]++
			mu.Unlock()
			if method == "GET" && rec.Code != 200 {
				t.Errorf("GET: %d %s", rec.Code, rec.Body)
			}
		})
	}
	eventually(t, func() bool {
		n.s.mu.Lock()
		defer n.s.mu.Unlock()
		w := n.s.session.w
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.flushing && len(w.buf) > queueLimit
	})
	n.b.Lead(2, newLease(), http.HandlerFunc(echoHandler))
	start := time.Now()
	n.s.Follow(n.b.target(2, n.s))
	wg.Wait()
	if d := time.Since(start); d > (silentEchoes-1)*echoInterval { // then a silent peer is given up anyway
		t.Errorf("took %v", d)
	}
	// Those that never left this node are served too, whatever their method.
	if codes[200] <= requests/2 || codes[200]+codes[503] != requests {
		t.Error(codes)
	}
	_ = frozen.Close()
}

// A request that ends each node that runs it does not end them all.
func TestRepeatsAreBounded(t *testing.T) {
	checkLeaks(t)
	n := newTrio(t)
	var runs atomic.Int32
	n.a.Lead(1, newLease(), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		runs.Add(1)
		n.a.crash()
		<-r.Context().Done()
	}))
	n.s.Follow(n.a.target(1, n.s))
	res, body := get(t, n.s.http.URL)
	if res.StatusCode != 503 || !strings.Contains(body, "unknown") || runs.Load() != maxRepeats+1 {
		t.Error(res.StatusCode, body, runs.Load())
	}
}

// Terms: what is older than what is known changes nothing.
func TestOldTermsAreIgnored(t *testing.T) {
	checkLeaks(t)
	n := newTrio(t)
	n.b.Lead(5, newLease(), http.HandlerFunc(echoHandler))
	n.s.Follow(n.b.target(5, n.s))
	n.s.waitUp()
	n.s.Follow(n.a.target(4, n.s))
	n.s.Lead(3, newLease(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }))
	if res, _ := get(t, n.s.http.URL); res.StatusCode != 200 || res.Header.Get("X-Locum-Node") != "b" {
		t.Error(res.StatusCode, res.Header)
	}
	// Hold and the same target again: the connection is the same one.
	before, _ := n.s.Connected()
	n.s.Hold("test")
	ch := ask(n.s, httptest.NewRequest("GET", "/", nil))
	eventually(t, func() bool { return n.s.held.count.Load() == 1 })
	n.s.Follow(n.b.target(5, n.s))
	if rec := <-ch; rec.Code != 200 {
		t.Error(rec.Code)
	}
	if after, _ := n.s.Connected(); !after.Since.Equal(before.Since) {
		t.Error("connected anew")
	}
}
