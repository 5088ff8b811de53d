package upstream_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/locum-ha/locum/forward/upstream"
	"github.com/locum-ha/locum/forward/websocket"
)

// socketApp switches protocols and hands the connection to f.
func socketApp(t *testing.T, protocol string, f func(nc net.Conn, br *bufio.Reader)) string {
	return script(t, func(_ int, nc net.Conn, br *bufio.Reader) {
		if _, err := http.ReadRequest(br); err != nil {
			return
		}
		fmt.Fprintf(nc, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", protocol)
		f(nc, br)
	})
}

func dialUpgrade(t *testing.T, addr, protocol string) (net.Conn, *bufio.Reader) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(limit))
	fmt.Fprintf(nc, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", protocol)
	br := bufio.NewReader(nc)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	return nc, br
}

// A close frame stands between two frames, never within one: what has begun is passed on to its end first, and nothing after it.
func TestCloseFrameAtABoundary(t *testing.T) {
	half := make(chan struct{})
	goodbye := websocket.CloseFrame(websocket.ServiceRestart, "another node takes over", true)
	toApp := make(chan []byte, 2)
	url := socketApp(t, "websocket", func(nc net.Conn, br *bufio.Reader) {
		_, _ = nc.Write([]byte{0x82, 10, 'h', 'a', 'l', 'f'})
		<-half
		told := make([]byte, len(goodbye))
		_, _ = io.ReadFull(br, told)               // both ways are planned before either end is told, so the client's has to wait
		_, _ = nc.Write([]byte("anewer\x82\x01x")) // the rest of it, and another frame
		b, _ := io.ReadAll(br)
		toApp <- append(told, b...)
	})
	p := protect(t, upstream.Config{URL: url})
	_, br := dialUpgrade(t, p.at["standby"], "websocket")
	first := make([]byte, 6)
	if _, err := io.ReadFull(br, first); err != nil {
		t.Fatal(err)
	}
	close(half)
	drained := make(chan error, 1)
	go func() { drained <- p.active.Drain(t.Context()) }()
	got, err := io.ReadAll(br)
	want := append([]byte("anewer"), websocket.CloseFrame(websocket.ServiceRestart, "another node takes over", false)...)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if got := <-toApp; !bytes.Equal(got, goodbye) {
		t.Errorf("the application got %q, want %q", got, goodbye)
	}
}

// Half-close goes through, each way, for upgrades that are no WebSockets and for byte streams.
func TestHalfClose(t *testing.T) {
	url := socketApp(t, "tunnel", func(nc net.Conn, br *bufio.Reader) {
		b, _ := io.ReadAll(br)
		_, _ = nc.Write(bytes.ToUpper(b))
	})
	p := protect(t, upstream.Config{URL: url})
	p.each(func(t *testing.T, addr string) {
		nc, br := dialUpgrade(t, addr, "tunnel")
		fmt.Fprint(nc, "all of it")
		_ = nc.(*net.TCPConn).CloseWrite()
		if b, err := io.ReadAll(br); string(b) != "ALL OF IT" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	})
}

// A byte stream: what is large arrives whole, what breaks is reset, so that nobody takes it for whole.
func TestStream(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				n, _ := io.Copy(nc, nc)
				fmt.Fprint(nc, n)
			}()
		}
	}()
	p := protect(t, upstream.Config{URL: "tcp://" + ln.Addr().String()})
	p.each(func(t *testing.T, addr string) {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_ = nc.SetDeadline(time.Now().Add(limit))
		data := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
		go func() {
			_, _ = nc.Write(data)
			_ = nc.(*net.TCPConn).CloseWrite()
		}()
		got, err := io.ReadAll(nc)
		if want := append(data, fmt.Sprint(len(data))...); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
	var open []net.Conn
	for _, name := range []string{"active", "standby"} {
		nc, err := net.Dial("tcp", p.at[name])
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_ = nc.SetDeadline(time.Now().Add(limit))
		fmt.Fprint(nc, "x")
		if _, err := io.ReadFull(nc, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		open = append(open, nc)
	}
	p.lose()
	for i, nc := range open {
		if b, err := io.ReadAll(nc); i == 1 && err == nil {
			t.Errorf("a stream that broke looks whole: %q", b)
		}
	}
}

// Over TLS with the application, by HTTP/1.1 or HTTP/2 as that chooses; its certificate is verified.
func TestTLS(t *testing.T) {
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }))
			s.EnableHTTP2 = h2
			s.StartTLS()
			t.Cleanup(s.Close)
			roots := x509.NewCertPool()
			roots.AddCert(s.Certificate())
			up, err := upstream.New(upstream.Config{URL: s.URL, TLS: &tls.Config{RootCAs: roots}})
			if err != nil {
				t.Fatal(err)
			}
			defer up.Close()
			for range 3 {
				rec := httptest.NewRecorder()
				up.ServeHTTP(rec, httptest.NewRequestWithContext(context.Background(), "GET", "/", nil))
				if rec.Code != 200 || rec.Body.String() != name {
					t.Errorf("%d %q", rec.Code, rec.Body)
				}
			}
			strange, err := upstream.New(upstream.Config{URL: s.URL})
			if err != nil {
				t.Fatal(err)
			}
			rec := httptest.NewRecorder()
			strange.ServeHTTP(rec, httptest.NewRequest("GET", "/", nil))
			if rec.Code != http.StatusServiceUnavailable {
				t.Errorf("a certificate that nobody vouches for: %d %q", rec.Code, rec.Body)
			}
		})
	}
}
