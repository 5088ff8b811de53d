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
	"runtime"
	"strings"
	"testing"
	"time"
)

// zeros reads as n bytes without holding them.
type zeros struct{ n int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.n == 0 {
		return 0, io.EOF
	}
	k := min(int64(len(p)), z.n)
	z.n -= k
	return int(k), nil
}

// heapPeak samples the memory that Go holds, until stop.
func heapPeak() (stop func() int64) {
	var base, m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&base)
	done, end := make(chan struct{}), make(chan int64)
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		peak := int64(0)
		for {
			runtime.ReadMemStats(&m)
			peak = max(peak, int64(m.HeapInuse+m.StackInuse)-int64(base.HeapInuse+base.StackInuse))
			select {
			case <-tick.C:
			case <-done:
				end <- peak
				return
			}
		}
	}()
	return func() int64 { close(done); return <-end }
}

// Issue 2: less than 32 MiB more memory during 1 GiB up and 1 GiB down through a standby. Here both
// nodes and the client share one heap.
func TestMemoryStaysFlat(t *testing.T) {
	checkLeaks(t)
	size := int64(1 << 30)
	if testing.Short() {
		size = 256 << 20
	}
	_, standby, _ := pair(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" {
			w.Header().Set("Content-Length", fmt.Sprint(size))
			_, _ = io.Copy(w, &zeros{size})
			return
		}
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err)
	}))
	stop := heapPeak()
	start := time.Now()
	res, body := do(t, mustRequest(t, "POST", standby.http.URL, io.MultiReader(&zeros{size})))
	if body != fmt.Sprint(size, nil) {
		t.Error(res.StatusCode, body)
	}
	up := time.Since(start)
	if peak := stop(); peak > 32<<20 {
		t.Errorf("upload took %d MiB", peak>>20)
	} else {
		t.Logf("up: %d MiB/s, %d KiB of memory", int64(float64(size>>20)/up.Seconds()), peak>>10)
	}

	stop = heapPeak()
	start = time.Now()
	res, err := client.Do(mustRequest(t, "GET", standby.http.URL, nil))
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, res.Body)
	if n != size || err != nil {
		t.Error(n, err)
	}
	down := time.Since(start)
	if peak := stop(); peak > 32<<20 {
		t.Errorf("download took %d MiB", peak>>20)
	} else {
		t.Logf("down: %d MiB/s, %d KiB of memory", int64(float64(size>>20)/down.Seconds()), peak>>10)
	}
	if b := standby.held.bytes.Load(); b != 0 {
		t.Errorf("%d bytes of retry buffers left", b)
	}
}

// P12: a client that does not read stops its handler, and nobody else.
func TestSlowReaderStopsOnlyItself(t *testing.T) {
	checkLeaks(t)
	written := make(chan int64, 1)
	_, standby, _ := pair(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/fast" {
			_, _ = io.WriteString(w, "fast")
			return
		}
		n, _ := io.Copy(w, &zeros{1 << 30})
		written <- n
	}))
	c, err := net.Dial("tcp", standby.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(c, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
	stop := heapPeak()
	for range 200 {
		if _, body := get(t, standby.http.URL+"/fast"); body != "fast" {
			t.Fatal(body)
		}
	}
	if peak := stop(); peak > 32<<20 {
		t.Errorf("%d MiB", peak>>20)
	}
	c.Close()
	if n := <-written; n >= 1<<30 {
		t.Error("not stopped")
	}
}

// Each event of a stream arrives when it is flushed, and its end is seen.
func TestServerSentEvents(t *testing.T) {
	checkLeaks(t)
	feeds := map[string]chan string{"/a": make(chan string), "/b": make(chan string)}
	active, standby, _ := pair(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		next := feeds[r.URL.Path]
		for {
			select {
			case s, ok := <-next:
				if !ok {
					return
				}
				fmt.Fprintf(w, "data: %s\n\n", s)
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}))
	for _, n := range []*node{standby, active} {
		res, err := client.Do(mustRequest(t, "GET", n.http.URL+"/"+n.name, nil))
		if err != nil {
			t.Fatal(err)
		}
		br := bufio.NewReader(res.Body)
		for i := range 10 {
			feeds["/"+n.name] <- fmt.Sprint(i)
			if got := readLine(t, br); got != fmt.Sprint("data: ", i) {
				t.Error(got)
			}
			readLine(t, br)
		}
		res.Body.Close()
	}
}

// The client's leaving reaches the handler; the handler's breaking off reaches the client.
func TestCancellation(t *testing.T) {
	checkLeaks(t)
	entered, left := make(chan struct{}), make(chan error, 1)
	active, standby, _ := pair(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/wait":
			entered <- struct{}{}
			<-r.Context().Done()
			left <- r.Context().Err()
		case "/begun":
			w.(http.Flusher).Flush()
			entered <- struct{}{}
			<-r.Context().Done()
			left <- r.Context().Err()
		case "/upload":
			entered <- struct{}{}
			_, err := io.Copy(io.Discard, r.Body)
			left <- err
		case "/abort":
			_, _ = io.WriteString(w, "half")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case "/abort-at-once":
			panic(http.ErrAbortHandler)
		case "/panic":
			panic("boom")
		case "/short":
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "12345")
		}
	}))
	for _, path := range []string{"/wait", "/begun", "/upload"} {
		ctx, cancel := context.WithCancel(t.Context())
		body := io.Reader(nil)
		pr, pw := io.Pipe()
		if path == "/upload" {
			body = pr
		}
		req := mustRequest(t, "POST", standby.http.URL+path, body).WithContext(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			if res, err := client.Do(req); err == nil {
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		}()
		<-entered
		cancel()
		pw.CloseWithError(errors.New("gone"))
		if err := <-left; err == nil {
			t.Error(path, "not cancelled")
		}
		<-done
	}
	for _, path := range []string{"/abort", "/abort-at-once", "/short"} {
		res, err := client.Do(mustRequest(t, "GET", standby.http.URL+path, nil))
		if err == nil {
			var b []byte
			b, err = io.ReadAll(res.Body)
			res.Body.Close()
			if err == nil {
				t.Errorf("%s: %d %q looks whole", path, res.StatusCode, b)
			}
		}
	}
	if res, body := get(t, standby.http.URL+"/panic"); res.StatusCode != 500 || !strings.Contains(body, "errors") {
		t.Error(res.StatusCode, body)
	}
	// Nothing is left of any of them.
	eventually(t, func() bool {
		return active.inFlight() == 0 && standby.openStreams() == 0
	})
}

func (n *node) inFlight() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := n.Router.place.Load().local
	if t == nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.waited
}

func (n *node) openStreams() int {
	s := n.Router.place.Load().session
	if s == nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams) + int(s.budget.used.Load())
}

func TestTrailers(t *testing.T) {
	checkLeaks(t)
	active, standby, _ := pair(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Error(err)
		}
		w.Header().Set("Trailer", "X-Declared, X-Unused")
		if r.URL.Path == "/flush" {
			w.(http.Flusher).Flush()
		}
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-Declared", r.Trailer.Get("X-Sum"))
		w.Header().Set(http.TrailerPrefix+"X-Undeclared", "u")
	}))
	for _, n := range []*node{active, standby} {
		for _, path := range []string{"/", "/flush"} {
			for _, size := range []int{0, 10, 100_000} {
				req := mustRequest(t, "POST", n.http.URL+path, nil)
				req.Trailer = http.Header{"X-Sum": nil}
				req.Body = io.NopCloser(&trailerBody{r: strings.NewReader(strings.Repeat("x", size)), req: req})
				req.ContentLength = -1
				res, body := do(t, req)
				if body != "body" || res.Trailer.Get("X-Declared") != "sum" || res.Trailer.Get("X-Undeclared") != "u" || len(res.Trailer["X-Unused"]) != 0 {
					t.Errorf("%s%s: %q %v", n.name, path, body, res.Trailer)
				}
			}
		}
	}
}

// trailerBody sets the trailer when the body ends.
type trailerBody struct {
	r   io.Reader
	req *http.Request
}

func (b *trailerBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err == io.EOF {
		b.req.Trailer.Set("X-Sum", "sum")
	}
	return n, err
}

// The four kinds of call of gRPC, by what they need of HTTP/2: full duplex, early heads, trailers.
func TestHTTP2FullDuplex(t *testing.T) {
	checkLeaks(t)
	_, standby, _ := pair(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" {
			t.Error(r.Proto, r.Header)
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		w.WriteHeader(200)
		rc := http.NewResponseController(w)
		_ = rc.Flush()
		br := bufio.NewReader(r.Body)
		for {
			line, err := br.ReadString('\n')
			if err != nil {
				break
			}
			_, _ = io.WriteString(w, "echo "+line)
			_ = rc.Flush()
		}
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", "fine")
	}))
	h2 := h2c(t)
	pr, pw := io.Pipe()
	req := mustRequest(t, "POST", standby.http.URL+"/svc/Bidi", pr)
	req.Header.Set("Te", "trailers")
	req.Header.Set("Content-Type", "application/grpc")
	res, err := h2.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	br := bufio.NewReader(res.Body)
	for i := range 50 {
		fmt.Fprintf(pw, "%d\n", i)
		if got := readLine(t, br); got != fmt.Sprintf("echo %d", i) {
			t.Fatal(got)
		}
	}
	pw.Close()
	if _, err := io.ReadAll(br); err != nil {
		t.Fatal(err)
	}
	if res.ProtoMajor != 2 || res.Trailer.Get("Grpc-Status") != "0" || res.Trailer.Get("Grpc-Message") != "fine" {
		t.Error(res.Proto, res.Trailer)
	}
}

func h2c(t *testing.T) *http.Client {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: &p}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// Full duplex over HTTP/1, for a handler that asks for it.
func TestHTTP1FullDuplex(t *testing.T) {
	checkLeaks(t)
	active, standby, _ := pair(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		if err := rc.EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		_ = rc.Flush()
		buf := make([]byte, 10)
		for {
			n, err := r.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			_ = rc.Flush()
			if err != nil {
				return
			}
		}
	}))
	for _, n := range []*node{active, standby} {
		c, err := net.Dial("tcp", n.http.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		br := bufio.NewReader(c)
		fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
		for readLine(t, br) != "" {
		}
		for range 20 {
			fmt.Fprint(c, "2\r\nab\r\n")
			if l, b := readLine(t, br), readLine(t, br); l != "2" || b != "ab" {
				t.Error(l, b)
			}
		}
		fmt.Fprint(c, "0\r\n\r\n")
		if l := readLine(t, br); l != "0" {
			t.Error(l)
		}
		c.Close()
	}
}

// P12: an answer and a tunnel whose last bytes and whose failure arrive together end. The reader of the connection tells of
// both with one signal; here that was taken before the bytes are.
func TestLastBytesAndFailureAtOnce(t *testing.T) {
	checkLeaks(t)
	arrived := func() *stream {
		st := newStream(nil, 1, 1<<10, 0)
		if err := st.receiveData([]byte("last"), 0); err != nil {
			t.Error(err)
		}
		st.fail(ErrConnectionLost)
		<-st.readable
		return st
	}
	n := newNode(t, "b")
	for _, path := range []string{"/answer", "/tunnel"} {
		results := make(chan result, 1)
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			x := &exchange{r: n.Router, w: w, req: r}
			if r.URL.Path == "/tunnel" {
				results <- x.tunnel(arrived())
				return
			}
			results <- x.relayBody(arrived(), http.Header{})
		}))
		c, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
		select {
		case res := <-results:
			if path == "/answer" && !errors.Is(res.err, ErrConnectionLost) {
				t.Errorf("%s: %+v", path, res)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: waits for ever", path)
		}
		c.Close()
		srv.Close()
	}
}
