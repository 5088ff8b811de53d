package forward

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A WebSocket's bytes pass both ways, with half-close, whatever their sizes.
func TestTunnel(t *testing.T) {
	checkLeaks(t)
	active, standby, _ := pair(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "x" || r.Header.Get("Connection") != "Upgrade" {
			t.Error(r.Header)
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
		rw.Flush()
		_, _ = io.Copy(c, rw) // until the client's half-close
		_, _ = io.WriteString(c, "bye")
	}))
	for _, n := range []*node{active, standby} {
		c, br := upgrade(t, n, "/")
		var sent bytes.Buffer
		done := make(chan struct{})
		var got []byte
		go func() {
			defer close(done)
			got, _ = io.ReadAll(br)
		}()
		for i := range 200 {
			p := bytes.Repeat([]byte{byte(i)}, i*i)
			sent.Write(p)
			if _, err := c.Write(p); err != nil {
				t.Fatal(err)
			}
		}
		_ = c.(*net.TCPConn).CloseWrite()
		<-done
		if want := append(sent.Bytes(), "bye"...); !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes came back of %d", n.name, len(got), len(want))
		}
		c.Close()
	}
	// A client that goes away ends the handler's side, and a closed handler the client's.
	eventually(t, func() bool { return active.inFlight() == 0 && standby.openStreams() == 0 })
}

func TestTunnelEndsWithTheClient(t *testing.T) {
	checkLeaks(t)
	ended := make(chan error, 1)
	_, standby, _ := pair(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
		rw.Flush()
		_, err = io.Copy(c, &zeros{1 << 40}) // never reads: learns of it by writing
		ended <- err
	}))
	c, _ := upgrade(t, standby, "/")
	c.Close()
	if err := <-ended; err == nil {
		t.Error("no error")
	}
}

// Hijack where it cannot be: over HTTP/2, and with a body.
func TestHijackRefused(t *testing.T) {
	checkLeaks(t)
	_, standby, _ := pair(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _, err := http.NewResponseController(w).Hijack()
		fmt.Fprint(w, errors.Is(err, http.ErrNotSupported))
	}))
	res, err := h2c(t).Get(standby.http.URL)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if string(b) != "true" {
		t.Error(string(b))
	}
	if _, b := do(t, mustRequest(t, "POST", standby.http.URL, strings.NewReader("x"))); b != "true" {
		t.Error(b)
	}
}

// Deadlines of a handler's http.ResponseController hold for a forwarded request too.
func TestHandlerDeadlines(t *testing.T) {
	checkLeaks(t)
	pr, pw := io.Pipe()
	_, standby, _ := pair(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer pw.CloseWithError(io.ErrClosedPipe) // the client waits for its own body
		rc := http.NewResponseController(w)
		if err := rc.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Error(err)
		}
		if _, err := r.Body.Read(make([]byte, 1)); !isTimeout(err) {
			t.Error(err)
		}
		if err := rc.SetWriteDeadline(time.Now().Add(-time.Second)); err != nil {
			t.Error(err)
		}
		if _, err := io.Copy(w, &zeros{100 << 20}); !isTimeout(err) {
			t.Error(err)
		}
	}))
	res, err := client.Do(mustRequest(t, "POST", standby.http.URL, pr))
	if err == nil {
		res.Body.Close()
	}
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
