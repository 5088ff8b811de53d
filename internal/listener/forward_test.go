package listener

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/locum-ha/locum/forward"
)

// lease is good for ever.
type lease struct{ ctx context.Context }

func (l lease) Valid() bool              { return true }
func (l lease) Context() context.Context { return l.ctx }

// router runs one until the test ends. It is wired to its listener as internal/server does it, and tells the application
// about its clients.
func router(t *testing.T, name string) *forward.Router {
	t.Helper()
	r, err := forward.NewRouter(forward.Config{Node: name, NodeID: "id-" + name, SetForwarded: true, TrustForwarded: Authorized})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return r
}

// twoNodes returns a node that is active and a standby that forwards to it.
func twoNodes(t *testing.T, h http.Handler) (active, standby *forward.Router) {
	t.Helper()
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait) // last: what it waits for ends with the routers
	active, standby = router(t, "a"), router(t, "b")
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	active.Lead(1, lease{ctx}, h)
	standby.Follow(forward.Target{Term: 1, NodeID: "id-a", Name: "a", Dial: func(context.Context) (net.Conn, error) {
		here, there := net.Pipe()
		wg.Go(func() { _ = active.ServeConn(ctx, there, "id-b", "b") })
		return here, nil
	}})
	return active, standby
}

// seen is what reaches a handler on the active node.
type seen struct {
	Addr, For, Proto, Forwarded string
	CN                          string
	Verified                    bool
}

func tell(w http.ResponseWriter, r *http.Request) {
	s := seen{Addr: forward.InfoFrom(r.Context()).RemoteAddr, For: r.Header.Get("X-Forwarded-For"),
		Proto: r.Header.Get("X-Forwarded-Proto"), Forwarded: r.Header.Get("Forwarded")}
	if r.RemoteAddr != s.Addr {
		s.Addr += " and " + r.RemoteAddr
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		s.CN, s.Verified = r.TLS.PeerCertificates[0].Subject.CommonName, len(r.TLS.VerifiedChains) > 0
	}
	_ = json.NewEncoder(w).Encode(s)
}

// The client's address is the same to the handler on the active node, in its request and in its headers, wherever the
// request came in and however the address became known; what is not authorised is dropped.
func TestClientAddressOnTheActiveNode(t *testing.T) {
	active, standby := twoNodes(t, http.HandlerFunc(tell))
	for name, r := range map[string]*forward.Router{"active": active, "standby": standby} {
		t.Run(name, func(t *testing.T) {
			plain := started(t, r.ServeHTTP)
			believing := started(t, r.ServeHTTP, forwardedFrom("127.0.0.0/8"))
			proxied := started(t, r.ServeHTTP, proxyFrom("127.0.0.0/8"))
			socket := started(t, r.ServeHTTP, socketAt(sockets(t)+"/s", 0o600))
			const claims = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nForwarded: for=127.0.0.1\r\n" +
				"X-Forwarded-For: 198.51.100.1, 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\r\n"
			for _, tc := range []struct {
				l      *Listener
				prefix string
				want   seen
			}{
				{plain, "", seen{Addr: "own", For: "127.0.0.1", Proto: "http"}},
				{believing, "", seen{Addr: "192.0.2.7:0", For: "192.0.2.7", Proto: "https"}},
				{proxied, "PROXY TCP4 203.0.113.9 10.0.0.1 77 80\r\n", seen{Addr: "203.0.113.9:77", For: "203.0.113.9", Proto: "http"}},
				{socket, "", seen{Addr: "@", Proto: "http"}},
			} {
				c := tc.l.dial(t)
				if tc.want.Addr == "own" {
					tc.want.Addr = c.LocalAddr().String()
				}
				send(t, c, tc.prefix+claims)
				code, body := answer(t, c)
				var got seen
				if err := json.Unmarshal([]byte(body), &got); err != nil || got != tc.want {
					t.Errorf("%d %+v, want %+v (%v)", code, got, tc.want, err)
				}
			}
		})
	}
}

// A client's certificate is required at each node, and known to the handler on the active one.
func TestClientCertificateOnTheActiveNode(t *testing.T) {
	active, standby := twoNodes(t, http.HandlerFunc(tell))
	ca, clients := newAuthority(t, "ca"), newAuthority(t, "clients")
	f := newFiles(t)
	f.identity(ca.leaf(t, "node"))
	f.clients(clients)
	for name, r := range map[string]*forward.Router{"active": active, "standby": standby} {
		l := started(t, r.ServeHTTP, f.use)
		for _, choose := range []func(*http.Protocols){http1, http2} {
			conf := &tls.Config{RootCAs: ca.pool(), Certificates: []tls.Certificate{clients.leaf(t, "alice")}}
			resp, err := client(t, conf, choose).Get("https://" + l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			var got seen
			err = json.NewDecoder(resp.Body).Decode(&got)
			resp.Body.Close()
			if err != nil || got.CN != "alice" || !got.Verified || got.Proto != "https" {
				t.Errorf("%s, %s: %+v, %v", name, resp.Proto, got, err)
			}
			for what, conf := range map[string]*tls.Config{
				"none":             {RootCAs: ca.pool()},
				"somebody's":       {RootCAs: ca.pool(), Certificates: []tls.Certificate{newAuthority(t, "other").leaf(t, "mallory")}},
				"the node's issue": {RootCAs: ca.pool(), Certificates: []tls.Certificate{ca.leaf(t, "mallory")}},
			} {
				if resp, err := client(t, conf, choose).Get("https://" + l.Addr().String()); err == nil {
					resp.Body.Close()
					t.Errorf("%s: let in with a certificate: %s", name, what)
				}
			}
		}
	}
}

// A slow body is answered 408 at both nodes.
func TestSlowBodyThroughTheRouter(t *testing.T) {
	active, standby := twoNodes(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			w.WriteHeader(http.StatusRequestTimeout)
		}
	}))
	for name, r := range map[string]*forward.Router{"active": active, "standby": standby} {
		l := opened(t, r.ServeHTTP, func(c *Config) { c.MinBodyRate = 1000 })
		l.bodyPeriod = 100 * 1e6
		l.run(t)
		for _, length := range []string{"Content-Length: 1000", "Content-Length: 1000000", "Transfer-Encoding: chunked"} {
			c := l.dial(t)
			send(t, c, "POST / HTTP/1.1\r\nHost: x\r\n"+length+"\r\n\r\n1\r\nx")
			code, body := answer(t, c)
			if code != http.StatusRequestTimeout {
				t.Errorf("%s, %s: %d %s", name, length, code, strings.TrimSpace(body))
			}
			if name == "standby" && !strings.Contains(body, `{"errors":["the request body came too slowly`) {
				t.Errorf("%s, %s: the 408 does not say why: %q", name, length, body)
			}
		}
	}
}
