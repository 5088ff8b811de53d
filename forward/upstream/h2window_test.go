package upstream_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	wire "golang.org/x/net/http2"

	"github.com/locum-ha/locum/forward/upstream"
)

// P12: clients that do not read hold up their own answers, and nobody else's, however many of them share a connection.
func TestClientsThatDoNotRead(t *testing.T) {
	const stuck, size = 20, 1 << 20
	app := application(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/fits" {
			_, _ = w.Write(make([]byte, size))
			return
		}
		for p := make([]byte, 64<<10); ; {
			if _, err := w.Write(p); err != nil {
				return
			}
		}
	})
	p := protect(t, upstream.Config{URL: strings.Replace(app, "http", "h2c", 1)})
	for range stuck {
		nc, err := net.Dial("tcp", p.at["active"])
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_ = nc.(*net.TCPConn).SetReadBuffer(4 << 10)
		fmt.Fprint(nc, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		_ = nc.SetReadDeadline(time.Now().Add(limit))
		if _, err := io.ReadFull(nc, make([]byte, 2<<10)); err != nil { // and then no more
			t.Fatal(err)
		}
	}
	c := client(t, http1)
	for range 4 { // while the others' answers go on filling what they can
		if resp, body := do(t, c, "GET", "http://"+p.at["active"]+"/fits", ""); resp.StatusCode != 200 || len(body) != size {
			t.Fatalf("%d with %d bytes", resp.StatusCode, len(body))
		}
	}
}

// A client that reads lets the application send further and further ahead; what it may is never more than was granted.
func TestWindowsGrow(t *testing.T) {
	const total = 8 << 20
	most := make(chan int64, 1)
	url := frameScript(t, nil, func(_ int, fr frames) {
		id, _, _ := fr.request()
		fr.head(id, false, ":status", "200")
		window, widest := int64(64<<10), int64(0)
		for left := int64(total); left > 0; {
			for window > 0 && left > 0 {
				n := min(left, window, 16<<10)
				_ = fr.WriteData(id, n == left, make([]byte, n))
				left, window = left-n, window-n
			}
			if left == 0 {
				break
			}
			f, err := fr.ReadFrame()
			if err != nil {
				t.Error(err)
				return
			}
			if u, ok := f.(*wire.WindowUpdateFrame); ok && u.StreamID == id {
				window += int64(u.Increment)
				widest = max(widest, window)
			}
		}
		most <- widest
		fr.rest()
	})
	p := protect(t, upstream.Config{URL: url})
	if resp, body := do(t, client(t, http1), "GET", "http://"+p.at["active"]+"/", ""); resp.StatusCode != 200 || len(body) != total {
		t.Fatalf("%d with %d bytes", resp.StatusCode, len(body))
	}
	if widest := <-most; widest <= 64<<10 || widest > 1<<20 {
		t.Errorf("a window of %d", widest)
	}
}

// RFC 9113 §4.3: a head that was encoded is sent, however long: what is left out of it would be missing in all that follow.
func TestLongRequestTrailers(t *testing.T) {
	long := strings.Repeat("x", 40<<10)
	url := frameScript(t, nil, func(_ int, fr frames) {
		fr.MaxHeaderListSize = 1 << 20
		for {
			id, trailers := uint32(0), 0
			for ended := false; !ended; {
				f, err := fr.ReadFrame()
				if err != nil {
					return
				}
				id = max(id, f.Header().StreamID)
				ended = f.Header().StreamID != 0 && f.Header().Flags.Has(wire.FlagDataEndStream)
				if h, ok := f.(*wire.MetaHeadersFrame); ok && ended {
					for _, field := range h.Fields {
						trailers += len(field.Value)
					}
				}
			}
			fr.head(id, false, ":status", "200")
			_ = fr.WriteData(id, true, fmt.Append(nil, trailers))
		}
	})
	p := protect(t, upstream.Config{URL: url})
	for range 3 {
		req, err := http.NewRequest("POST", "http://"+p.at["active"]+"/", io.MultiReader(bytes.NewReader([]byte("body"))))
		if err != nil {
			t.Fatal(err)
		}
		req.Trailer = http.Header{"One": {long}, "Two": {"short"}}
		resp, err := client(t, h2c).Do(req) // net/http takes no long trailers over HTTP/1.1
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if want := fmt.Sprint(len(long) + len("short")); err != nil || string(body) != want {
			t.Fatalf("%d %q %v, want %s", resp.StatusCode, body, err, want)
		}
	}
}

// P12: a frame that is longer than this side allows is not read.
func TestFramesTooLong(t *testing.T) {
	url := frameScript(t, nil, func(_ int, fr frames) {
		id, _, _ := fr.request()
		fr.head(id, false, ":status", "200")
		fr.AllowIllegalWrites = true
		_ = fr.WriteData(id, true, make([]byte, 17<<10))
		fr.rest()
	})
	p := protect(t, upstream.Config{URL: url})
	resp, err := client(t, http1).Get("http://" + p.at["active"] + "/")
	if err != nil {
		return
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err == nil && resp.StatusCode == 200 {
		t.Errorf("%d bytes look whole", len(b))
	}
}
