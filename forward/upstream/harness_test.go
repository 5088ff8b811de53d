package upstream_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/forward"
	"github.com/locum-ha/locum/forward/upstream"
)

const limit = 10 * time.Second

type lease struct{ ctx context.Context }

func (l lease) Valid() bool              { return l.ctx.Err() == nil }
func (l lease) Context() context.Context { return l.ctx }

// pair is an active node and a standby, each with its clients' listener, in front of one application.
type pair struct {
	t               testing.TB
	active, standby *forward.Router
	lose            context.CancelFunc // the active node's lease
	at              map[string]string  // "active" and "standby": host:port
	up              *upstream.Upstream
}

// protect puts the two nodes in front of the application at url.
func protect(t testing.TB, cfg upstream.Config) *pair {
	t.Helper()
	up, err := upstream.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{t: t, up: up, at: map[string]string{}}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	router := func(name string) *forward.Router {
		r, err := forward.NewRouter(forward.Config{Node: name, NodeID: name, SetForwarded: true, HoldTimeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			if err := r.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		p.at[name] = p.listen(name, r)
		return r
	}
	p.active, p.standby = router("active"), router("standby")
	term, lose := context.WithCancel(ctx)
	p.lose = lose
	p.active.Lead(1, lease{term}, up)
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	running.Go(func() {
		for {
			nc, err := port.Accept()
			if err != nil {
				return
			}
			running.Go(func() { _ = p.active.ServeConn(ctx, nc, "standby", "standby") })
		}
	})
	p.standby.Follow(forward.Target{Term: 1, NodeID: "active", Name: "active", Dial: func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", port.Addr().String())
	}})
	t.Cleanup(func() {
		cancel()
		port.Close()
		up.Close()
		running.Wait()
	})
	return p
}

func (p *pair) listen(name string, r *forward.Router) string {
	if p.up.Stream() {
		return p.listenStream(r)
	}
	s := httptest.NewUnstartedServer(r)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	p.t.Cleanup(s.CloseClientConnections)
	p.t.Cleanup(func() { go s.Close() })
	return s.Listener.Addr().String()
}

// listenStream takes connections as byte streams.
func (p *pair) listenStream(r *forward.Router) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				upstream.ServeStream(context.Background(), r, nc)
			}()
		}
	}()
	return ln.Addr().String()
}

// each runs a test at the active node and at the standby.
func (p *pair) each(f func(t *testing.T, addr string)) {
	p.t.Helper()
	for _, name := range []string{"active", "standby"} {
		p.t.(*testing.T).Run(name, func(t *testing.T) { f(t, p.at[name]) })
	}
}

func client(t *testing.T, choose func(*http.Protocols)) *http.Client {
	protocols := new(http.Protocols)
	choose(protocols)
	tr := &http.Transport{Protocols: protocols, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: limit, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func http1(p *http.Protocols) { p.SetHTTP1(true) }
func h2c(p *http.Protocols)   { p.SetUnencryptedHTTP2(true) }

// application serves a handler, over HTTP/1.1 and h2c.
func application(t *testing.T, h http.HandlerFunc) string {
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return "http://" + s.Listener.Addr().String()
}

// script is an application that is a function on each connection.
func script(t *testing.T, f func(n int, nc net.Conn, br *bufio.Reader)) (url string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() {
		ln.Close()
		all.Wait()
	})
	all.Go(func() {
		for n := 1; ; n++ {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer nc.Close()
				_ = nc.SetDeadline(time.Now().Add(limit))
				f(n, nc, bufio.NewReader(nc))
			})
		}
	})
	return "http://" + ln.Addr().String()
}

// readRequest reads one request with its body.
func readRequest(br *bufio.Reader) (*http.Request, string, error) {
	r, err := http.ReadRequest(br)
	if err != nil {
		return nil, "", err
	}
	body, err := io.ReadAll(r.Body)
	return r, string(body), err
}

func do(t *testing.T, c *http.Client, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	var rd io.Reader
	if body != "" {
		rd = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, url, rd)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: body: %v", method, url, err)
	}
	return resp, string(b)
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("not within the limit: " + what)
		}
	}
}

func answer(nc net.Conn, body string) {
	fmt.Fprintf(nc, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}
