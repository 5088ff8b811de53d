package forward

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// A handler that answers without reading a large body: the client gets that answer.
func TestEarlyAnswer(t *testing.T) {
	checkLeaks(t)
	active, standby, _ := pair(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "too much", http.StatusRequestEntityTooLarge)
	}))
	for _, n := range []*node{active, standby} {
		for _, size := range []int64{1, 100_000, 200 << 20} {
			req := mustRequest(t, "POST", n.http.URL, &zeros{size})
			req.ContentLength = size
			// With keep-alive: net/http closes a connection that is not kept without waiting for the client.
			tr := &http.Transport{}
			res, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(n.name, size, err)
			}
			body, err := io.ReadAll(res.Body)
			if res.StatusCode != 413 || string(body) != "too much\n" || err != nil {
				t.Error(n.name, size, res.StatusCode, body, err)
			}
			res.Body.Close()
			tr.CloseIdleConnections()
		}
	}
}

// Expect: 100-continue is the handler's: the client is asked for its body only when the handler reads.
func TestExpectContinue(t *testing.T) {
	checkLeaks(t)
	active, standby, _ := pair(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refuse" {
			w.WriteHeader(417)
			return
		}
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err)
	}))
	for _, n := range []*node{active, standby} {
		for path, want := range map[string]string{"/refuse": "HTTP/1.1 417 Expectation Failed", "/take": "HTTP/1.1 100 Continue"} {
			c, err := net.Dial("tcp", n.http.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", path)
			br := bufio.NewReader(c)
			if got := readLine(t, br); got != want {
				t.Errorf("%s%s: %q", n.name, path, got)
			}
			if path == "/take" {
				readLine(t, br)
				fmt.Fprint(c, "12345")
				if got := readLine(t, br); got != "HTTP/1.1 200 OK" {
					t.Error(got)
				}
			}
			c.Close()
		}
	}
}

func TestInformationalAnswers(t *testing.T) {
	checkLeaks(t)
	active, standby, _ := pair(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(103)
		w.Header().Set("Link", "</b.css>; rel=preload")
		w.WriteHeader(103)
		w.Header().Del("Link")
		_, _ = io.WriteString(w, "final")
	}))
	for _, n := range []*node{active, standby} {
		var hints []string
		req := mustRequest(t, "GET", n.http.URL, nil)
		req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				hints = append(hints, fmt.Sprint(code, h.Get("Link")))
				return nil
			},
		}))
		res, body := do(t, req)
		if fmt.Sprint(hints) != "[103</a.css>; rel=preload 103</b.css>; rel=preload]" || body != "final" || res.Header.Get("Link") != "" {
			t.Error(n.name, hints, body, res.Header)
		}
	}
}

// More requests at a time than the active node takes: the others wait for room.
func TestStreamLimit(t *testing.T) {
	checkLeaks(t)
	var mu sync.Mutex
	now, most := 0, 0
	_, standby, _ := pair(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		runtime.Gosched()
		mu.Lock()
		now--
		mu.Unlock()
	}), func(c *Config) { c.MaxStreams = 3 })
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 20 {
				rec := httptest.NewRecorder()
				standby.ServeHTTP(rec, httptest.NewRequest("POST", "/", nil))
				if rec.Code != 200 {
					t.Error(rec.Code, rec.Body)
				}
			}
		})
	}
	wg.Wait()
	if most > 3 {
		t.Error(most)
	}
}

// A stock reverse proxy as the active node's handler: what an application behind it does arrives.
func TestReverseProxyAsHandler(t *testing.T) {
	checkLeaks(t)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ws":
			c, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
			rw.Flush()
			line, _ := rw.ReadString('\n')
			_, _ = io.WriteString(c, "echo "+line)
		case "/cut":
			w.Header().Set("Content-Length", "100000")
			_, _ = w.Write(make([]byte, 50_000))
			panic(http.ErrAbortHandler)
		case "/trailer":
			w.Header().Set("Trailer", "X-T")
			b, _ := io.ReadAll(r.Body)
			_, _ = w.Write(b)
			w.Header().Set("X-T", "t")
		}
	}))
	defer app.Close()
	u, _ := url.Parse(app.URL)
	proxy := &httputil.ReverseProxy{
		Rewrite:  func(r *httputil.ProxyRequest) { r.SetURL(u) },
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	tr := &http.Transport{}
	proxy.Transport = tr
	defer tr.CloseIdleConnections()
	active, standby, _ := pair(t, proxy)
	for _, n := range []*node{active, standby} {
		c, br := upgrade(t, n, "/ws")
		fmt.Fprint(c, "hello\n")
		if got := readLine(t, br); got != "echo hello" {
			t.Error(got)
		}
		if _, err := br.ReadByte(); err != io.EOF {
			t.Error(err)
		}
		c.Close()

		res, err := client.Do(mustRequest(t, "GET", n.http.URL+"/cut", nil))
		if err == nil {
			_, err = io.ReadAll(res.Body)
			res.Body.Close()
		}
		if err == nil {
			t.Errorf("%s: a cut answer looks whole", n.name)
		}
		body := strings.Repeat("b", 300_000)
		res, got := do(t, mustRequest(t, "POST", n.http.URL+"/trailer", io.MultiReader(strings.NewReader(body))))
		if got != body || res.Trailer.Get("X-T") != "t" {
			t.Errorf("%s: %d bytes, %v", n.name, len(got), res.Trailer)
		}
	}
}

// A client that goes away while its request is held with a short body is noticed.
func TestHeldClientWithABodyIsNoticed(t *testing.T) {
	checkLeaks(t)
	n := newNode(t, "a").serve()
	c, err := net.Dial("tcp", n.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345")
	eventually(t, func() bool { return n.held.count.Load() == 1 })
	c.Close()
	eventually(t, func() bool { return n.held.count.Load() == 0 && n.held.bytes.Load() == 0 })
}
