package forward

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The numbers of the forwarding hop, each beside a stock httputil.ReverseProxy over mutual-TLS HTTP/2
// with the same handler, and beside no hop at all. All nodes and the load share this process: the CPU
// time of a hop is the difference to direct, in which the load's share cancels out.
//
//	go test -run - -bench Hop ./forward

var kib = bytes.Repeat([]byte("x"), 1024)

func kibHandler(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(kib)
}

func BenchmarkHop(b *testing.B) {
	kinds := []struct {
		name  string
		setup func(testing.TB) string
	}{
		{"direct", setupDirect},
		{"stock", setupStock},
		{"locum", setupLocum},
		{"locum-active", setupActive},
	}
	for _, conns := range []int{1, 16, 64} {
		for _, k := range kinds {
			b.Run(fmt.Sprintf("%s/c=%d", k.name, conns), func(b *testing.B) {
				load(b, k.setup(b), conns)
			})
		}
	}
}

func setupDirect(t testing.TB) string { return listen(t, http.HandlerFunc(kibHandler)) }

func setupStock(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	origin := &http.Server{Handler: http.HandlerFunc(kibHandler), TLSConfig: testTLS("h2")}
	go func() { _ = origin.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = origin.Close() })
	u, _ := url.Parse("https://" + l.Addr().String())
	tr := &http.Transport{TLSClientConfig: testTLS("h2"), ForceAttemptHTTP2: true, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return listen(t, &httputil.ReverseProxy{
		Transport: tr,
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(u) },
	})
}

func setupLocum(t testing.TB) string {
	active, standby := newNode(t, "a"), newNode(t, "b")
	active.Lead(1, newLease(), http.HandlerFunc(kibHandler))
	standby.Follow(active.target(1, standby))
	standby.waitUp()
	return listen(t, standby)
}

func setupActive(t testing.TB) string {
	active := newNode(t, "a")
	active.Lead(1, newLease(), http.HandlerFunc(kibHandler))
	return listen(t, active)
}

func listen(t testing.TB, h http.Handler) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return l.Addr().String()
}

// load sends b.N requests over conns connections with a client that does next to nothing. The CPU time
// reported is that of the nodes, or if none are given, of this process.
func load(b *testing.B, addr string, conns int, nodes ...*process) {
	var left atomic.Int64
	left.Store(int64(b.N))
	clients := make([]*rawClient, conns)
	for i := range clients {
		clients[i] = dialRaw(b, addr)
		defer clients[i].c.Close()
		for range 20 {
			clients[i].get(b)
		}
	}
	lat := make([][]time.Duration, conns)
	used := func() (d time.Duration) {
		if len(nodes) == 0 {
			return cpuTime()
		}
		for _, n := range nodes {
			d += n.cpu(b)
		}
		return d
	}
	cpu := used()
	b.ResetTimer()
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				start := time.Now()
				c.get(b)
				lat[i] = append(lat[i], time.Since(start))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64((used()-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
	all := slices.Concat(lat...)
	slices.Sort(all)
	if len(all) > 0 {
		b.ReportMetric(float64(all[len(all)/2].Nanoseconds())/1e3, "p50-µs")
		b.ReportMetric(float64(all[len(all)*99/100].Nanoseconds())/1e3, "p99-µs")
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

type rawClient struct {
	c net.Conn
	r *bufio.Reader
}

func dialRaw(t testing.TB, addr string) *rawClient {
	c, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return &rawClient{c: c, r: bufio.NewReaderSize(c, 8<<10)}
}

var rawGet = []byte("GET /v1/thing?x=1 HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bench\r\nAccept: */*\r\nX-Vault-Token: abcdefghijklmnop\r\n\r\n")

// get sends one request and reads its answer.
func (c *rawClient) get(t testing.TB) {
	if _, err := c.c.Write(rawGet); err != nil {
		t.Fatal(err)
	}
	length := -1
	for first := true; ; first = false {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			t.Fatal(err)
		}
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
			t.Fatalf("answer %q", line)
		}
		if len(line) == 2 {
			break
		}
		if v, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			length, _ = strconv.Atoi(string(bytes.TrimSpace(v)))
		}
	}
	if length != len(kib) {
		t.Fatalf("Content-Length %d", length)
	}
	if _, err := io.CopyN(io.Discard, c.r, int64(length)); err != nil {
		t.Fatal(err)
	}
}

type nullWriter struct{ h http.Header }

func (w *nullWriter) Header() http.Header         { return w.h }
func (w *nullWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w *nullWriter) WriteHeader(int)             {}

// BenchmarkLocal is what the Router adds to a request that runs on the node that it has reached.
func BenchmarkLocal(b *testing.B) {
	active := newNode(b, "a")
	active.Lead(1, newLease(), http.HandlerFunc(kibHandler))
	req, _ := http.NewRequestWithContext(b.Context(), "GET", "/v1/thing", nil)
	req.RequestURI = "/v1/thing"
	req.Header.Set("User-Agent", "bench")
	req.Header.Set("X-Vault-Token", "abcdefghijklmnop")
	w := &nullWriter{h: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.h)
		delete(req.Header, "X-Request-Id")
		active.ServeHTTP(w, req)
	}
}
