package upstream_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locum-ha/locum/forward/upstream"
)

// P6: what an application that breaks off means for a request. A safe one is delivered again, and held while the application
// restarts; any other is answered "unknown", and delivered once.
func TestApplicationBreaksOff(t *testing.T) {
	for _, when := range []string{"before the answer", "in its head"} {
		t.Run(when, func(t *testing.T) {
			var gets, posts atomic.Int32
			url := script(t, func(_ int, nc net.Conn, br *bufio.Reader) {
				for {
					r, _, err := readRequest(br)
					if err != nil {
						return
					}
					n := &gets
					if r.Method == "POST" {
						n = &posts
					}
					if n.Add(1) == 1 {
						if when == "in its head" {
							fmt.Fprint(nc, "HTTP/1.1 200 OK\r\nContent-Le")
						}
						return
					}
					answer(nc, "second")
				}
			})
			p := protect(t, upstream.Config{URL: url})
			p.each(func(t *testing.T, addr string) {
				gets.Store(0)
				posts.Store(0)
				c := client(t, http1)
				if resp, body := do(t, c, "GET", "http://"+addr+"/", ""); resp.StatusCode != 200 || body != "second" || gets.Load() != 2 {
					t.Errorf("GET: %d %q after %d deliveries", resp.StatusCode, body, gets.Load())
				}
				resp, body := do(t, c, "POST", "http://"+addr+"/", "x")
				if resp.StatusCode != 503 || !strings.Contains(body, `"processed":"unknown"`) || !strings.Contains(body, "the application broke off") || posts.Load() != 1 {
					t.Errorf("POST: %d %q after %d deliveries", resp.StatusCode, body, posts.Load())
				}
				if resp.Header.Get("X-Request-Id") == "" || resp.Header.Get("Retry-After") == "" {
					t.Errorf("header %v", resp.Header)
				}
			})
		})
	}
}

// A request that ends the application each time is not sent to it for ever.
func TestPoison(t *testing.T) {
	var n atomic.Int32
	url := script(t, func(_ int, _ net.Conn, br *bufio.Reader) {
		if _, _, err := readRequest(br); err == nil {
			n.Add(1)
		}
	})
	p := protect(t, upstream.Config{URL: url})
	p.each(func(t *testing.T, addr string) {
		n.Store(0)
		if resp, body := do(t, client(t, http1), "GET", "http://"+addr+"/", ""); resp.StatusCode != 503 || !strings.Contains(body, "unknown") || n.Load() > 3 {
			t.Errorf("%d %q after %d deliveries", resp.StatusCode, body, n.Load())
		}
	})
}

// "safe ones held and retried when the application restarts": so is everything while nobody listens, since it is not delivered.
func TestApplicationRestarts(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	ln.Close()
	for _, scheme := range []string{"http", "h2c"} {
		t.Run(scheme, func(t *testing.T) {
			p := protect(t, upstream.Config{URL: scheme + "://" + address})
			p.each(func(t *testing.T, addr string) {
				answered := make(chan string, 1)
				go func() {
					resp, body := do(t, client(t, http1), "POST", "http://"+addr+"/", strings.Repeat("x", 100_000))
					answered <- fmt.Sprint(resp.StatusCode, " ", body)
				}()
				select {
				case a := <-answered:
					t.Fatal("answered while the application is down: " + a)
				case <-time.After(100 * time.Millisecond):
				}
				ln, err := net.Listen("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				protocols := new(http.Protocols)
				protocols.SetHTTP1(true)
				protocols.SetUnencryptedHTTP2(true)
				s := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					n, _ := io.Copy(io.Discard, r.Body)
					fmt.Fprint(w, n)
				})}
				go func() { _ = s.Serve(ln) }()
				if a := <-answered; a != "200 100000" {
					t.Error(a)
				}
				s.Close()
			})
		})
	}
}

// What is no answer is said to be none, and costs the client nothing of what is not.
func TestAnswersThatAreNone(t *testing.T) {
	for name, raw := range map[string]string{
		"no HTTP":             "SSH-2.0-OpenSSH\r\n\r\n",
		"two lengths":         "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
		"a negative length":   "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"an unknown encoding": "HTTP/1.1 200 OK\r\nTransfer-Encoding: snail\r\n\r\n",
		"a long head":         "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 300<<10) + "\r\n\r\n",
		"an upgrade":          "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"only informs":        strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 20),
	} {
		t.Run(name, func(t *testing.T) {
			url := script(t, func(_ int, nc net.Conn, br *bufio.Reader) {
				if _, _, err := readRequest(br); err == nil {
					_, _ = io.WriteString(nc, raw)
				}
				_, _ = io.Copy(io.Discard, br)
			})
			p := protect(t, upstream.Config{URL: url})
			p.each(func(t *testing.T, addr string) {
				resp, body := do(t, client(t, http1), "GET", "http://"+addr+"/", "")
				if resp.StatusCode != http.StatusBadGateway || !strings.Contains(body, `"processed":"unknown"`) {
					t.Errorf("%d %q", resp.StatusCode, body)
				}
			})
		})
	}
}

// An answer that breaks off looks broken to the client, too.
func TestHalfAnAnswer(t *testing.T) {
	for name, head := range map[string]string{"length": "Content-Length: 100000", "chunks": "Transfer-Encoding: chunked"} {
		t.Run(name, func(t *testing.T) {
			url := script(t, func(_ int, nc net.Conn, br *bufio.Reader) {
				if _, _, err := readRequest(br); err == nil {
					fmt.Fprintf(nc, "HTTP/1.1 200 OK\r\n%s\r\n\r\n5000\r\n%s\r\n", head, strings.Repeat("x", 0x5000))
				}
			})
			p := protect(t, upstream.Config{URL: url})
			p.each(func(t *testing.T, addr string) {
				resp, err := client(t, http1).Get("http://" + addr + "/")
				if err != nil {
					return // nothing of it was sent yet
				}
				defer resp.Body.Close()
				if b, err := io.ReadAll(resp.Body); err == nil {
					t.Errorf("%d bytes look whole", len(b))
				}
			})
		})
	}
}

// Requests beyond what the application may have at a time wait; none fails.
func TestConnectionsAreBounded(t *testing.T) {
	var now, most atomic.Int32
	url := application(t, func(http.ResponseWriter, *http.Request) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-time.After(20 * time.Millisecond)
		now.Add(-1)
	})
	p := protect(t, upstream.Config{URL: url, MaxConns: 3})
	codes := make(chan int, 20)
	for range cap(codes) {
		go func() {
			resp, _ := do(t, client(t, http1), "GET", "http://"+p.at["standby"]+"/", "")
			codes <- resp.StatusCode
		}()
	}
	for range cap(codes) {
		if code := <-codes; code != 200 {
			t.Error(code)
		}
	}
	if most.Load() > 3 {
		t.Errorf("%d at a time", most.Load())
	}
}

func TestURLs(t *testing.T) {
	for url, ok := range map[string]bool{
		"http://127.0.0.1:9000": true, "http://app": true, "https://app.example.com": true, "h2c://[::1]:9000": true, "unix:///run/app.sock": true,
		"tcp://127.0.0.1:1883": true, "127.0.0.1:9000": false, "http://": false, "http://a/b": false, "tcp://a": false, "unix://run/app.sock": false,
		"ftp://a:1": false, "http://u:p@a": false, "http://a?b": false,
	} {
		if _, err := upstream.New(upstream.Config{URL: url}); (err == nil) != ok {
			t.Errorf("%s: %v", url, err)
		}
	}
	if _, err := upstream.New(upstream.Config{URL: "http://a:1", ProxyProtocol: true}); err == nil {
		t.Error("PROXY protocol for HTTP")
	}
}

// Over a Unix socket, and after the client's connection has been idle for long.
func TestUnixSocket(t *testing.T) {
	path := t.TempDir() + "/app.sock"
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host) })}
	go func() { _ = s.Serve(ln) }()
	defer s.Close()
	p := protect(t, upstream.Config{URL: "unix://" + path})
	p.each(func(t *testing.T, addr string) {
		if resp, body := do(t, client(t, http1), "GET", "http://"+addr+"/", ""); resp.StatusCode != 200 || body != addr {
			t.Errorf("%d %q", resp.StatusCode, body)
		}
	})
}

// When the lease is lost nothing more of an answer leaves (P4), and a request in flight is decided anew.
func TestLeadershipIsLost(t *testing.T) {
	began := make(chan struct{}, 10)
	url := application(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		began <- struct{}{}
		<-r.Context().Done()
	})
	p := protect(t, upstream.Config{URL: url})
	answered := make(chan string, 2)
	for _, name := range []string{"active", "standby"} {
		go func() {
			resp, body := do(t, client(t, http1), "POST", "http://"+p.at[name]+"/", "x")
			answered <- fmt.Sprint(resp.StatusCode, " ", body)
		}()
		<-began
	}
	p.lose()
	p.standby.Lead(2, lease{context.Background()}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("delivered twice") }))
	for range 2 {
		if a := <-answered; !strings.HasPrefix(a, "503") || !strings.Contains(a, `"processed":"unknown"`) {
			t.Error(a)
		}
	}
}
