package test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"github.com/locum-ha/locum/test/cluster"
	"github.com/locum-ha/locum/test/front"
)

// cancelled is told the name of each request to /wait whose context ended.
var cancelled = make(chan string, 16)

// seen is told of each of the events that the client has read.
var seen = make(chan struct{})

// streamHandler is an application with everything that a forwarded request can be.
func streamHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 5 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			select { // the next one is sent when this one has been read
			case <-seen:
			case <-r.Context().Done():
			}
		}
	})
	mux.HandleFunc("/duplex", func(w http.ResponseWriter, r *http.Request) { // answers each line as it comes
		_ = http.NewResponseController(w).EnableFullDuplex()
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			fmt.Fprintf(w, "%s!\n", lines.Text())
			_ = http.NewResponseController(w).Flush()
		}
	})
	mux.HandleFunc("/trailers", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%d", len(body))
		w.Header().Set("X-Sum", r.Trailer.Get("X-Sum"))
		w.Header().Set(http.TrailerPrefix+"X-Late", "yes")
	})
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		fmt.Fprintf(w, "%d %s %v", n, hex.EncodeToString(sum.Sum(nil)), err)
	})
	mux.HandleFunc("/download", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.ParseInt(r.FormValue("n"), 10, 64)
		_, _ = io.CopyN(w, zeroes{}, n)
	})
	mux.HandleFunc("/wait", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		cancelled <- r.FormValue("name")
	})
	mux.HandleFunc("/who", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "host=%s from=%s uri=%s connection=%q te=%q forwarded=%q locum=%q", r.Host, r.RemoteAddr, r.RequestURI,
			r.Header.Get("X-Hop"), r.Header.Get("Keep-Alive"), r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Locum-Term"))
	})
	mux.HandleFunc("/early", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		fmt.Fprint(w, "later")
	})
	mux.Handle("/socket", websocket.Handler(func(ws *websocket.Conn) {
		var message string
		for websocket.Message.Receive(ws, &message) == nil && websocket.Message.Send(ws, message) == nil {
		}
	}))
	return mux
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// startFront starts an active node around the handler and a standby, in this process, and returns where they listen.
func startFront(t *testing.T, handler http.Handler) (standby, active string) {
	t.Helper()
	ip := front.RandomIP()
	address := front.Address{HTTP: ip + ":8400", Cluster: ip + ":8401", Dir: t.TempDir()}
	second := front.Address{HTTP: ip + ":8500", Dir: address.Dir}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	wg.Go(func() {
		if err := front.Active(ctx, address, handler); err != nil {
			t.Errorf("active node: %v", err)
		}
	})
	wg.Go(func() {
		if err := front.Standby(ctx, second); err != nil && ctx.Err() == nil {
			t.Errorf("standby: %v", err)
		}
	})
	for _, a := range []string{address.HTTP, second.HTTP} {
		err := cluster.Poll(within(t, 10*time.Second), a+" listens", func() error {
			conn, err := net.DialTimeout("tcp", a, time.Second)
			if err == nil {
				conn.Close()
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return second.HTTP, address.HTTP
}

// Design, "Forwarding": everything streams both ways through a standby.
func TestStreamsThroughStandby(t *testing.T) {
	standby, _ := startFront(t, streamHandler())
	t.Run("events come one by one", func(t *testing.T) { eventsOneByOne(t, standby) })
	t.Run("a request is answered while it is sent", func(t *testing.T) { duplex(t, standby) })
	t.Run("trailers both ways", func(t *testing.T) { trailers(t, standby) })
	t.Run("early hints", func(t *testing.T) { earlyHints(t, standby) })
	t.Run("a body of unknown length", func(t *testing.T) { upload(t, standby) })
	t.Run("websocket", func(t *testing.T) { webSocket(t, standby) })
	t.Run("the client's cancellation arrives", func(t *testing.T) { cancellation(t, standby) })
	t.Run("identity, hop-by-hop and forged headers", func(t *testing.T) { headers(t, standby) })
}

func eventsOneByOne(t *testing.T, standby string) {
	ctx := within(t, 10*time.Second) // events that are not passed on one by one never come
	request, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+standby+"/events", nil)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	r := bufio.NewReader(response.Body)
	for i := range 5 {
		line, err := r.ReadString('\n')
		if err != nil || line != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("event %d: %q %v", i, line, err)
		}
		_, _ = r.ReadString('\n')
		select {
		case seen <- struct{}{}:
		case <-ctx.Done():
			t.Fatal("the handler does not wait for its events to be read")
		}
	}
}

func duplex(t *testing.T, standby string) {
	conn, err := net.Dial("tcp", standby)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "POST /duplex HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(response.Body)
	if line, err := r.ReadString('\n'); line != "first!\n" {
		t.Fatalf("%q %v", line, err)
	}
	fmt.Fprintf(conn, "7\r\nsecond\n\r\n0\r\n\r\n")
	if line, err := r.ReadString('\n'); line != "second!\n" {
		t.Fatalf("%q %v", line, err)
	}
}

func trailers(t *testing.T, standby string) {
	request, _ := http.NewRequest(http.MethodPost, "http://"+standby+"/trailers", io.MultiReader(strings.NewReader("hello")))
	request.Trailer = http.Header{"X-Sum": {"42"}}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if string(body) != "5" || err != nil || response.Trailer.Get("X-Sum") != "42" || response.Trailer.Get("X-Late") != "yes" {
		t.Errorf("%q %v, trailers %v", body, err, response.Trailer)
	}
}

func earlyHints(t *testing.T, standby string) {
	conn, err := net.Dial("tcp", standby)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "GET /early HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	all, err := io.ReadAll(conn)
	if err != nil || !bytes.HasPrefix(all, []byte("HTTP/1.1 103 ")) || !bytes.Contains(all, []byte("HTTP/1.1 200 ")) || !bytes.HasSuffix(all, []byte("later")) {
		t.Errorf("%q %v", all, err)
	}
}

func upload(t *testing.T, standby string) {
	const size = 9<<20 + 17
	random := rand.NewChaCha8([32]byte{1})
	sum := sha256.New()
	body := io.TeeReader(io.LimitReader(random, size), sum)
	response, err := http.Post("http://"+standby+"/upload", "", io.MultiReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	got, _ := io.ReadAll(response.Body)
	if want := fmt.Sprintf("%d %s <nil>", size, hex.EncodeToString(sum.Sum(nil))); string(got) != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func webSocket(t *testing.T, standby string) {
	ws, err := websocket.Dial("ws://"+standby+"/socket", "", "http://"+standby)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	_ = ws.SetDeadline(time.Now().Add(10 * time.Second))
	for i := range 3 {
		text := strings.Repeat(fmt.Sprint("message ", i), 1000)
		if err := websocket.Message.Send(ws, text); err != nil {
			t.Fatal(err)
		}
		var back string
		if err := websocket.Message.Receive(ws, &back); err != nil || back != text {
			t.Fatalf("%.40q %v", back, err)
		}
	}
}

func cancellation(t *testing.T, standby string) {
	ctx, cancel := context.WithCancel(t.Context())
	request, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+standby+"/wait?name=it", nil)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	cancel()
	select {
	case name := <-cancelled:
		if name != "it" {
			t.Errorf("%q", name)
		}
	case <-within(t, 5*time.Second).Done():
		t.Error("the handler never learnt of it")
	}
}

func headers(t *testing.T, standby string) {
	conn, err := net.Dial("tcp", standby)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "GET /who?a=%%2F&b HTTP/1.1\r\nHost: shop.example\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 9\r\n"+
		"X-Forwarded-For: 6.6.6.6\r\nX-Locum-Term: 666\r\n\r\n")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := io.ReadAll(response.Body)
	want := fmt.Sprintf(`host=shop.example from=%s uri=/who?a=%%2F&b connection="" te="" forwarded="" locum=""`, conn.LocalAddr())
	if string(got) != want {
		t.Errorf("\n%s, want\n%s", got, want)
	}
	if response.Header.Get("X-Locum-Node") != "active" || response.Header.Get("X-Locum-Forwarded-By") != "standby" || response.Header.Get("X-Request-Id") == "" {
		t.Errorf("headers of the answer: %v", response.Header)
	}
}
