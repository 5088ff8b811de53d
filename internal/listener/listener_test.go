package listener

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// once is a dialler that gives one connection, and no other.
func once(c net.Conn) func(context.Context, string, string) (net.Conn, error) {
	given := make(chan net.Conn, 1)
	given <- c
	return func(context.Context, string, string) (net.Conn, error) {
		select {
		case c := <-given:
			return c, nil
		default:
			return nil, errors.New("a second connection")
		}
	}
}

// client speaks one version of HTTP to a listener.
func client(t testing.TB, conf *tls.Config, choose func(*http.Protocols)) *http.Client {
	protocols := new(http.Protocols)
	choose(protocols)
	tr := &http.Transport{TLSClientConfig: conf.Clone(), Protocols: protocols}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func http1(p *http.Protocols) { p.SetHTTP1(true) }
func http2(p *http.Protocols) { p.SetHTTP2(true) }
func h2c(p *http.Protocols)   { p.SetUnencryptedHTTP2(true) }
func both(p *http.Protocols)  { p.SetHTTP1(true); p.SetHTTP2(true) }

func TestNewChecks(t *testing.T) {
	good := Config{Network: "tcp", Handler: http.NotFoundHandler(), ReadHeaderTimeout: 1, IdleTimeout: 1, MaxHeaderBytes: 1}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Config){
		"network": func(c *Config) { c.Network = "udp" },
		"handler": func(c *Config) { c.Handler = nil },
		"head":    func(c *Config) { c.ReadHeaderTimeout = 0 },
		"idle":    func(c *Config) { c.IdleTimeout = 0 },
		"size":    func(c *Config) { c.MaxHeaderBytes = 0 },
		"TLS 1.1": func(c *Config) { c.TLS = &TLS{MinVersion: tls.VersionTLS11} },
	} {
		c := good
		spoil(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// With TLS, HTTP/2 is negotiated where the client offers it; without, HTTP/2 with prior knowledge.
func TestProtocols(t *testing.T) {
	ca, f := newAuthority(t, "ca"), newFiles(t)
	f.identity(ca.leaf(t, "node"))
	proto := func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }
	secure, plain := started(t, proto, f.use), started(t, proto)
	conf := &tls.Config{RootCAs: ca.pool()}
	for _, tc := range []struct {
		l      *Listener
		scheme string
		choose func(*http.Protocols)
		want   string
	}{
		{secure, "https", both, "HTTP/2.0"},
		{secure, "https", http2, "HTTP/2.0"},
		{secure, "https", http1, "HTTP/1.1"},
		{plain, "http", http1, "HTTP/1.1"},
		{plain, "http", h2c, "HTTP/2.0"},
	} {
		resp, err := client(t, conf, tc.choose).Get(tc.scheme + "://" + tc.l.Addr().String())
		if err != nil {
			t.Fatal(tc.want, err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != tc.want || resp.Proto != tc.want {
			t.Errorf("%s: %s, %q", tc.scheme, resp.Proto, body)
		}
	}
}

func TestMinimumVersion(t *testing.T) {
	ca := newAuthority(t, "ca")
	for _, least := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		f := newFiles(t)
		f.identity(ca.leaf(t, "node"))
		f.conf.MinVersion = least
		l := started(t, whoami, f.use)
		for _, offered := range []uint16{tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
			c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: ca.pool(), MinVersion: tls.VersionTLS10, MaxVersion: offered})
			if (err == nil) != (offered >= least) {
				t.Errorf("at least %s, offered %s: %v", tls.VersionName(least), tls.VersionName(offered), err)
			}
			if err == nil {
				c.Close()
			}
		}
	}
}

// Reload: connections that stream go on, new ones get the new certificate and the new authorities of clients.
func TestLoadWhileAConnectionStreams(t *testing.T) {
	ca, old, next := newAuthority(t, "ca"), newAuthority(t, "old clients"), newAuthority(t, "new clients")
	f := newFiles(t)
	f.identity(ca.leaf(t, "first"))
	f.clients(old)
	more := make(chan struct{})
	l := started(t, func(w http.ResponseWriter, r *http.Request) {
		for range 3 {
			fmt.Fprintln(w, r.TLS.PeerCertificates[0].Subject.CommonName)
			_ = http.NewResponseController(w).Flush()
			<-more
		}
	}, f.use)
	sessions := map[*authority]tls.ClientSessionCache{old: tls.NewLRUClientSessionCache(8), next: tls.NewLRUClientSessionCache(8)}
	conf := func(a *authority) *tls.Config {
		return &tls.Config{RootCAs: ca.pool(), Certificates: []tls.Certificate{a.leaf(t, "alice")}, ClientSessionCache: sessions[a]}
	}
	for _, choose := range []func(*http.Protocols){http1, http2} {
		resp, err := client(t, conf(old), choose).Get("https://" + l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		line := make([]byte, len("alice\n"))
		read := func() {
			t.Helper()
			if _, err := io.ReadFull(resp.Body, line); err != nil || string(line) != "alice\n" {
				t.Fatalf("the stream: %q, %v", line, err)
			}
		}
		read()
		if cert := resp.TLS.PeerCertificates[0].Subject.CommonName; cert != "first" {
			t.Fatalf("served as %q", cert)
		}

		// Files that cannot be used change nothing.
		f.write(f.conf.KeyFile, "PRIVATE KEY", []byte("half written"))
		if _, err := l.Load(); err == nil {
			t.Fatal("a bad key was loaded")
		}
		if name, err := handshake(l, conf(old)); name != "first" || err != nil {
			t.Fatalf("after a bad reload: %q, %v", name, err)
		}

		f.identity(ca.leaf(t, "second"))
		f.clients(next)
		use, err := l.Load()
		if err != nil {
			t.Fatal(err)
		}
		use()
		more <- struct{}{}
		read()
		if name, err := handshake(l, conf(next)); name != "second" || err != nil {
			t.Errorf("a new client: %q, %v", name, err)
		}
		// Not even by resuming its session.
		if _, err := handshake(l, conf(old)); err == nil {
			t.Error("a client of the old authority is still let in")
		}
		if _, err := handshake(l, &tls.Config{RootCAs: ca.pool()}); err == nil {
			t.Error("a client without a certificate is let in")
		}
		more <- struct{}{}
		read()
		more <- struct{}{}

		f.identity(ca.leaf(t, "first")) // for the other protocol
		f.clients(old)
		if use, err = l.Load(); err != nil {
			t.Fatal(err)
		}
		use()
	}
}

// handshake connects, and waits until the server has accepted the client's certificate, too.
func handshake(l *Listener, conf *tls.Config) (server string, err error) {
	c, err := tls.Dial("tcp", l.Addr().String(), conf)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, "X\r\n\r\n"); err != nil { // answered 400
		return "", err
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		return "", err
	}
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName, nil
}

func TestClientAuthoritiesThatAreNone(t *testing.T) {
	f := newFiles(t)
	f.identity(newAuthority(t, "ca").leaf(t, "node"))
	f.clients(newAuthority(t, "clients"))
	if err := os.WriteFile(f.conf.ClientCAFile, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := New(Config{Network: "tcp", Address: "127.0.0.1:0", TLS: &f.conf, Handler: http.NotFoundHandler(), ReadHeaderTimeout: 1, IdleTimeout: 1, MaxHeaderBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Open(); err == nil || !strings.Contains(err.Error(), "tls_client_ca_file") {
		t.Errorf("%v", err)
	}
}

// Slow with the handshake, slow with the head, silent between two requests: each ends (P12).
func TestSlowHeads(t *testing.T) {
	quick := func(c *Config) { c.ReadHeaderTimeout = 200 * time.Millisecond } // and a minute between requests
	f := newFiles(t)
	f.identity(newAuthority(t, "ca").leaf(t, "node"))
	plain, secure := started(t, whoami, quick), started(t, whoami, quick, f.use)
	for name, tc := range map[string]struct {
		l    *Listener
		text string
	}{
		"silent": {plain, ""}, "half a head": {plain, "GET / HTTP/1.1\r\nHost: x\r\nX-"},
		"no handshake": {secure, ""}, "half a handshake": {secure, "\x16\x03\x01\x02\x00\x01"},
		"half an HTTP/2 preface": {plain, "PRI * HTTP/2.0\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := tc.l.dial(t)
			send(t, c, tc.text)
			if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("still open after ten seconds")
			}
		})
	}
	t.Run("drop by drop", func(t *testing.T) {
		t.Parallel()
		c := plain.dial(t)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		send(t, c, "GET / HTTP/1.1\r\nHost: x\r\nX-Long: ")
		for range 800 { // four seconds
			if _, err := io.WriteString(c, "G"); err != nil {
				return
			}
			<-tick.C
		}
		t.Error("still open")
	})
	t.Run("idle", func(t *testing.T) {
		t.Parallel()
		c := started(t, whoami, func(c *Config) { c.IdleTimeout = 200 * time.Millisecond }).dial(t)
		send(t, c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := io.ReadAll(c); err != nil {
			t.Error(err)
		}
	})
}

func TestLongHeads(t *testing.T) {
	ca, f := newAuthority(t, "ca"), newFiles(t)
	f.identity(ca.leaf(t, "node"))
	l := started(t, whoami, f.use, func(c *Config) { c.MaxHeaderBytes = 8 << 10 })
	for _, choose := range []func(*http.Protocols){http1, http2} {
		for size, want := range map[int]int{4 << 10: 200, 32 << 10: 431} {
			req, err := http.NewRequest("GET", "https://"+l.Addr().String(), nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-Long", strings.Repeat("x", size))
			resp, err := client(t, &tls.Config{RootCAs: ca.pool()}, choose).Do(req)
			if err != nil {
				if want == 431 && (strings.Contains(err.Error(), "header list") || strings.Contains(err.Error(), "GOAWAY")) {
					continue // HTTP/2 tells the limit beforehand, and ends a connection that passes it by much
				}
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s, %d bytes: %d", resp.Proto, size, resp.StatusCode)
			}
		}
	}
}

func TestShutdown(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	l := opened(t, func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-finish
		_, _ = io.WriteString(w, "whole")
	})
	served := make(chan error, 1)
	go func() { served <- l.Serve() }()
	c := l.dial(t)
	send(t, c, get)
	<-begun
	down := make(chan error, 1)
	go func() { down <- l.Shutdown(context.Background()) }()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		c.Close()
		t.Error("a connection after the end")
	}
	close(finish)
	if _, body := answer(t, c); body != "whole" {
		t.Errorf("%q", body)
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
}

func TestShutdownCuts(t *testing.T) {
	begun := make(chan struct{})
	l := started(t, func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
	})
	c := l.dial(t)
	send(t, c, get)
	<-begun
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if data, err := io.ReadAll(c); len(bytes.TrimSpace(data)) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%q, %v", data, err)
	}
}
