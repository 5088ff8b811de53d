package upstream_test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locum-ha/locum/forward/upstream"
)

// Issue 5, point 5 with design.md "Forwarding": what an application sees of a request, and a client of its answer.
func TestRequestAndAnswer(t *testing.T) {
	url := application(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Seen", fmt.Sprint(r.Method, " ", r.RequestURI, " ", r.Host, " ", len(body), " ", r.TransferEncoding))
		for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Locum-Forwarded-By", "Connection", "X-Hop", "X-Own", "X-Locum-Evil"} {
			w.Header().Set("Got-"+name, strings.Join(r.Header[name], "|"))
		}
		if r.ProtoMajor == 1 {
			w.Header().Set("Connection", "X-Secret")
			w.Header().Set("X-Secret", "hop by hop")
		}
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write(body)
	})
	for _, scheme := range []string{"http", "h2c"} {
		t.Run(scheme, func(t *testing.T) {
			p := protect(t, upstream.Config{URL: strings.Replace(url, "http", scheme, 1)})
			p.each(func(t *testing.T, addr string) {
				for name, choose := range map[string]func(*http.Protocols){"HTTP/1.1": http1, "h2c": h2c} {
					c := client(t, choose)
					header := []string{"X-Own", "mine", "X-Forwarded-For", "1.2.3.4", "X-Locum-Evil", "x"}
					if name == "HTTP/1.1" {
						header = append(header, "Connection", "X-Hop", "X-Hop", "gone")
					}
					resp, body := do(t, c, "POST", "http://"+addr+"/a%2Fb/c?x=%20y", "hello", header...)
					h := resp.Header
					if resp.StatusCode != http.StatusTeapot || body != "hello" {
						t.Fatalf("%s: %d %q", name, resp.StatusCode, body)
					}
					if want := "POST /a%2Fb/c?x=%20y " + addr + " 5 []"; h.Get("X-Seen") != want {
						t.Errorf("%s: %q, want %q", name, h.Get("X-Seen"), want)
					}
					if h.Get("Got-X-Forwarded-For") != "127.0.0.1" || h.Get("Got-X-Forwarded-Proto") != "http" || h.Get("Got-X-Forwarded-Host") != addr {
						t.Errorf("%s: forwarded: %v", name, h)
					}
					if h.Get("Got-X-Hop") != "" || h.Get("Got-X-Own") != "mine" || h.Get("Got-X-Locum-Evil") != "" || h.Get("X-Secret") != "" {
						t.Errorf("%s: fields that must or must not travel: %v", name, h)
					}
					by := ""
					if addr == p.at["standby"] {
						by = "standby"
					}
					if h.Get("Got-X-Locum-Forwarded-By") != by || h.Get("X-Locum-Node") != "active" || h.Get("X-Locum-Term") != "1" || h.Get("X-Request-Id") == "" {
						t.Errorf("%s: %v", name, h)
					}
				}
			})
		})
	}
}

// Bodies of any length and kind, both ways, whole.
func TestBodies(t *testing.T) {
	url := application(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Trailer", "X-Sum")
		sum := sha256.New()
		_, _ = io.Copy(io.MultiWriter(w, sum), r.Body)
		w.Header().Set("X-Sum", hex.EncodeToString(sum.Sum(nil)))
		w.Header().Set(http.TrailerPrefix+"X-Late", r.Trailer.Get("X-From-Client"))
	})
	for _, scheme := range []string{"http", "h2c"} {
		t.Run(scheme, func(t *testing.T) {
			p := protect(t, upstream.Config{URL: strings.Replace(url, "http", scheme, 1)})
			p.each(func(t *testing.T, addr string) {
				for _, choose := range []func(*http.Protocols){http1, h2c} {
					c := client(t, choose)
					for _, size := range []int{1, 100, 32 << 10, 32<<10 + 1, 200_000, 5 << 20} {
						for _, chunked := range []bool{false, true} {
							data := make([]byte, size)
							_, _ = rand.Read(data)
							var body io.Reader = bytes.NewReader(data)
							if chunked {
								body = io.MultiReader(body)
							}
							req, err := http.NewRequest("PUT", "http://"+addr+"/", body)
							if err != nil {
								t.Fatal(err)
							}
							if chunked {
								req.Trailer = http.Header{"X-From-Client": {"tail"}}
							}
							resp, err := c.Do(req)
							if err != nil {
								t.Fatal(err)
							}
							got, err := io.ReadAll(resp.Body)
							resp.Body.Close()
							sum := sha256.Sum256(data)
							if err != nil || !bytes.Equal(got, data) || resp.Trailer.Get("X-Sum") != hex.EncodeToString(sum[:]) {
								t.Fatalf("%d bytes, chunked %v: %d back, %v, trailers %v", size, chunked, len(got), err, resp.Trailer)
							}
							if chunked && resp.Trailer.Get("X-Late") != "tail" {
								t.Errorf("%d bytes: the client's trailer came back as %q", size, resp.Trailer.Get("X-Late"))
							}
						}
					}
				}
			})
		})
	}
}

// An answer that streams arrives part by part, its head first.
func TestStreamedAnswer(t *testing.T) {
	next := make(chan string)
	url := application(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		for {
			select {
			case s := <-next:
				if s == "" {
					return
				}
				fmt.Fprint(w, s)
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	})
	for _, scheme := range []string{"http", "h2c"} {
		t.Run(scheme, func(t *testing.T) {
			p := protect(t, upstream.Config{URL: strings.Replace(url, "http", scheme, 1)})
			p.each(func(t *testing.T, addr string) {
				for _, choose := range []func(*http.Protocols){http1, h2c} {
					resp, err := client(t, choose).Get("http://" + addr + "/") // returns although there is no body yet
					if err != nil {
						t.Fatal(err)
					}
					buf := make([]byte, 100)
					for _, s := range []string{"data: 1\n\n", "data: two\n\n"} {
						select {
						case next <- s:
						case <-time.After(limit):
							t.Fatal("the application does not answer any more")
						}
						if n, err := io.ReadFull(resp.Body, buf[:len(s)]); err != nil || string(buf[:n]) != s {
							t.Fatalf("%q, %v", buf[:n], err)
						}
					}
					next <- ""
					if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
						t.Fatalf("%q, %v", rest, err)
					}
					resp.Body.Close()
				}
			})
		})
	}
}

// The client's leaving reaches the application.
func TestClientLeaves(t *testing.T) {
	left := make(chan struct{}, 10)
	began := make(chan struct{}, 10)
	url := application(t, func(_ http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		<-r.Context().Done()
		left <- struct{}{}
	})
	for _, scheme := range []string{"http", "h2c"} {
		t.Run(scheme, func(t *testing.T) {
			p := protect(t, upstream.Config{URL: strings.Replace(url, "http", scheme, 1)})
			p.each(func(t *testing.T, addr string) {
				c := client(t, http1)
				nc, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(nc, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
				<-began
				nc.Close()
				select {
				case <-left:
				case <-time.After(limit):
					t.Fatal("the application was not told")
				}
				c.CloseIdleConnections()
			})
		})
	}
}

func TestInformationalAnswers(t *testing.T) {
	url := application(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("X-End", "1")
		w.WriteHeader(http.StatusNoContent)
	})
	p := protect(t, upstream.Config{URL: url})
	p.each(func(t *testing.T, addr string) {
		var hints atomic.Int32
		req, _ := http.NewRequest("GET", "http://"+addr+"/", nil)
		req = req.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				if code == http.StatusEarlyHints && h.Get("Link") != "" {
					hints.Add(1)
				}
				return nil
			},
		}))
		resp, err := client(t, http1).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNoContent || hints.Load() != 1 || resp.Header.Get("X-End") != "1" {
			t.Errorf("%d, %d hints, %v", resp.StatusCode, hints.Load(), resp.Header)
		}
	})
}

func TestNoBodies(t *testing.T) {
	url := application(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"x"`)
		if r.URL.Path == "/304" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("Content-Length", "12345")
		w.WriteHeader(http.StatusOK)
	})
	p := protect(t, upstream.Config{URL: url})
	p.each(func(t *testing.T, addr string) {
		c := client(t, http1)
		for range 3 { // over one connection each: nothing is left over
			if resp, body := do(t, c, "HEAD", "http://"+addr+"/", ""); resp.StatusCode != 200 || body != "" || resp.ContentLength != 12345 {
				t.Errorf("HEAD: %d, %q, length %d", resp.StatusCode, body, resp.ContentLength)
			}
			if resp, body := do(t, c, "GET", "http://"+addr+"/304", ""); resp.StatusCode != 304 || body != "" || resp.Header.Get("Etag") == "" {
				t.Errorf("304: %d, %q", resp.StatusCode, body)
			}
		}
	})
}

// A large upload that is refused at once gets its answer.
func TestEarlyAnswer(t *testing.T) {
	url := application(t, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
	})
	for _, scheme := range []string{"http", "h2c"} {
		p := protect(t, upstream.Config{URL: strings.Replace(url, "http", scheme, 1)})
		p.each(func(t *testing.T, addr string) {
			nc, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			_ = nc.SetDeadline(time.Now().Add(limit))
			fmt.Fprintf(nc, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nbegun")
			resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
			if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge {
				t.Fatalf("%s: %v, %v", scheme, resp, err)
			}
		})
	}
}

// A connection that the application closes between requests costs none of them.
func TestConnectionsAreUsedAgain(t *testing.T) {
	var conns atomic.Int32
	closed := make(chan struct{}, 20)
	url := script(t, func(n int, nc net.Conn, br *bufio.Reader) {
		conns.Store(int32(n))
		for i := range 5 {
			if _, _, err := readRequest(br); err != nil {
				return
			}
			if i == 4 {
				break // closes without a word, after the answer
			}
			answer(nc, "x")
		}
		answer(nc, "y")
		_ = nc.Close()
		closed <- struct{}{}
	})
	p := protect(t, upstream.Config{URL: url})
	c := client(t, http1)
	for i := range 100 {
		resp, _ := do(t, c, "POST", "http://"+p.at["active"]+"/", "body")
		if resp.StatusCode != 200 {
			t.Fatalf("request %d: %d", i, resp.StatusCode)
		}
		if i%5 == 4 {
			<-closed
		}
	}
	if n := conns.Load(); n != 20 {
		t.Errorf("%d connections for 100 requests in fives", n)
	}
}
