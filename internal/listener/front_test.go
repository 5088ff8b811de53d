package listener

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sort"
	"strings"
	"testing"
	"time"
)

// answering does what the path says, in all the ways in which an answer can be made.
func answering(w http.ResponseWriter, r *http.Request) {
	h, ctl := w.Header(), http.NewResponseController(w)
	switch r.URL.Path {
	case "/empty":
	case "/length":
		h.Set("Content-Length", "5")
		_, _ = io.WriteString(w, "hello")
	case "/too-long":
		h.Set("Content-Length", "3")
		_, err := io.WriteString(w, "hello")
		_, _ = io.WriteString(w, fmt.Sprint(err)[:3])
	case "/none":
		w.WriteHeader(http.StatusNoContent)
		_, err := io.WriteString(w, "x")
		h.Set("X-Late", fmt.Sprint(err))
	case "/unchanged":
		h.Set("Content-Type", "text/plain")
		h.Set("Content-Length", "7")
		w.WriteHeader(http.StatusNotModified)
	case "/flush":
		for range 3 {
			_, _ = io.WriteString(w, "piece\n")
			_ = ctl.Flush()
		}
	case "/large":
		for i := range 40 {
			_, _ = w.Write([]byte(strings.Repeat(string(rune('a'+i%26)), 3000)))
		}
	case "/huge":
		_, _ = w.Write([]byte(strings.Repeat("h", 300_000)))
	case "/trailers":
		h.Set("Trailer", "X-One")
		_, _ = io.WriteString(w, "body")
		h.Set("X-One", "1")
		h.Set(http.TrailerPrefix+"X-Two", "2")
	case "/early":
		h.Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		h.Set("X-More", "yes")
		_, _ = io.WriteString(w, "<html>")
	case "/close":
		h.Set("Connection", "close")
		_, _ = io.WriteString(w, "bye")
	case "/odd":
		h["Bad Name"] = []string{"x"}
		h.Set("X-Split", "a\r\nX-Injected: b")
		h["Content-Type"] = nil
		w.WriteHeader(599)
		_, _ = io.WriteString(w, "\x00\x01")
		w.WriteHeader(200)
	default:
		b, err := io.ReadAll(r.Body)
		keys := make([]string, 0, len(r.Header))
		for k, v := range r.Header {
			keys = append(keys, fmt.Sprintf("%s=%q", k, v))
		}
		sort.Strings(keys)
		fmt.Fprintf(w, "%s %s %q %q %s %d %q %v %v\n%s", r.Method, r.RequestURI, r.URL.Path, r.URL.RawQuery, r.Host, r.ContentLength, b, err, r.Close, strings.Join(keys, "\n"))
	}
}

// A short request gets the answer that net/http gives, and the handler sees the request that net/http makes.
func TestFrontAsNetHTTP(t *testing.T) {
	reference := httptest.NewServer(http.HandlerFunc(answering))
	defer reference.Close()
	l := started(t, answering)
	var requests []string
	for _, path := range []string{"/empty", "/length", "/too-long", "/none", "/unchanged", "/flush", "/large", "/huge", "/trailers", "/early", "/close", "/odd"} {
		for _, method := range []string{"GET", "HEAD"} {
			requests = append(requests, method+" "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
		}
	}
	requests = append(requests,
		"POST /a%20b/c?d=e%20f&g HTTP/1.1\r\nHost: h:80\r\nContent-Length: 5\r\nx-low: 1\r\nX-Low:  2 \r\n\r\nhello",
		"GET //double? HTTP/1.1\r\nHost: [::1]:9\r\nPragma: no-cache\r\n\r\n",
		"GET /a:b/;c@d HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: a=b; c=d\r\nX-Text: \xc3\xa4\t.\r\n\r\n",
		"GET /bad%zz HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET / HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\nBad Name: y\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\nFolded: a\r\n b\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\nX: a\x01b\r\n\r\n",
		"GET / HTTP/1.0\r\nHost: x\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n"+strings.Repeat("b", 9000),
		"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
	)
	for _, text := range requests {
		want, got := spoken(t, reference.Listener.Addr().String(), text), spoken(t, l.Addr().String(), text)
		if want != got {
			t.Errorf("%.200q:\n got %.500q\nwant %.500q", text, got, want)
		}
	}
}

// spoken is what a server says to a request and one behind it, fields sorted and without the date.
func spoken(t *testing.T, addr, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	send(t, c, text)
	br, all := bufio.NewReader(c), ""
	for n := range 2 {
		req := &http.Request{Method: text[:strings.IndexByte(text, ' ')]}
		for {
			resp, err := http.ReadResponse(br, req)
			if err != nil {
				return all + " then the end"
			}
			body, err := io.ReadAll(resp.Body)
			var fields []string
			for k, v := range resp.Header {
				if k != "Date" {
					fields = append(fields, fmt.Sprintf("%s=%q", k, v))
				}
			}
			sort.Strings(fields)
			all += fmt.Sprintf("%s %v %d %v %v %v %q %v;", resp.Status, fields, resp.ContentLength, resp.TransferEncoding, resp.Close, resp.Trailer, body, err)
			if err != nil {
				return all
			}
			if resp.StatusCode >= 200 {
				break
			}
		}
		if n == 0 {
			text = "GET /length HTTP/1.1\r\nHost: x\r\n\r\n"
			if _, err := io.WriteString(c, text); err != nil {
				return all + " closed"
			}
		}
	}
	return all
}

// Requests that arrive together are answered in order, and the first that is not a short one is net/http's with all that follows.
func TestFrontHandsOver(t *testing.T) {
	l := started(t, answering)
	c := l.dial(t)
	short := "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"
	send(t, c, short+short+"POST /y HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"+short)
	br := bufio.NewReader(c)
	for i, want := range []string{`POST /x "/x" "" x 2 "ab"`, `POST /x "/x" "" x 2 "ab"`, `POST /y "/y" "" x -1 "abc"`, `POST /x "/x" "" x 2 "ab"`} {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(i, err)
		}
		if b, _ := io.ReadAll(resp.Body); !strings.HasPrefix(string(b), want) {
			t.Errorf("%d: %q", i, b)
		}
	}
	// One that comes in pieces.
	c = l.dial(t)
	for _, part := range []string{"GET /le", "ngth HTTP/1.1\r\nHo", "st: x\r\n\r", "\n"} {
		send(t, c, part)
		<-time.After(frontWait / 3)
	}
	if code, body := answer(t, c); code != 200 || body != "hello" {
		t.Errorf("in pieces: %d %q", code, body)
	}
}

// A client that goes away ends the context of a request that takes long; what it sends meanwhile is its next request.
func TestFrontWatchesClient(t *testing.T) {
	begun, ended, finish := make(chan struct{}), make(chan error, 1), make(chan struct{})
	l := started(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/next" {
			_, _ = io.WriteString(w, "next")
			return
		}
		begun <- struct{}{}
		select {
		case <-r.Context().Done():
			ended <- context.Cause(r.Context())
		case <-finish:
			_, _ = io.WriteString(w, "done")
		}
	})
	gone := l.dial(t)
	send(t, gone, get)
	<-begun
	gone.Close()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the request goes on")
	}
	c := l.dial(t)
	send(t, c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-begun
	<-time.After(2 * patience)
	send(t, c, "GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
	<-time.After(patience)
	close(finish)
	br := bufio.NewReader(c)
	for _, want := range []string{"done", "next"} {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(resp.Body); string(b) != want {
			t.Errorf("%q, want %q", b, want)
		}
	}
}

// A handler that gives up breaks the connection, before anything of the answer and in the midst of it, and nothing is taken for whole.
func TestFrontPanic(t *testing.T) {
	l := started(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/begun" {
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
		}
		panic(http.ErrAbortHandler)
	})
	c := l.dial(t)
	send(t, c, get)
	closed(t, c)
	c = l.dial(t)
	send(t, c, strings.Replace(get, "/", "/begun", 1))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("whole: %q", b)
	}
}

// At the end a connection that waits is closed, and a request that is carried out is answered, with the connection's end (P5).
func TestFrontShutdown(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	l := opened(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			begun <- struct{}{}
			<-finish
		}
		_, _ = io.WriteString(w, "done")
	})
	served := make(chan error, 1)
	go func() { served <- l.Serve() }()
	idle, busy := l.dial(t), l.dial(t)
	send(t, idle, get)
	if code, _ := answer(t, idle); code != 200 {
		t.Fatal(code)
	}
	send(t, busy, strings.Replace(get, "/", "/slow", 1))
	<-begun
	down := make(chan error, 1)
	go func() { down <- l.Shutdown(context.Background()) }()
	closed(t, idle)
	close(finish)
	resp, err := http.ReadResponse(bufio.NewReader(busy), nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(resp.Body); string(b) != "done" || !resp.Close {
		t.Errorf("%q, close %v", b, resp.Close)
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
