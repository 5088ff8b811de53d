package upstream_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locum-ha/locum/forward/upstream"
)

// secureApp is an application with TLS, which says how it was asked. It speaks HTTP/2 only once it was upgraded.
type secureApp struct {
	*httptest.Server
	upgraded    atomic.Bool
	open, ended atomic.Int32
}

func newSecureApp(t *testing.T, idle time.Duration) (*secureApp, upstream.Config) {
	a := &secureApp{}
	a.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }))
	a.EnableHTTP2 = true
	a.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			a.open.Add(1)
		case http.StateClosed:
			a.ended.Add(1)
		}
	}
	a.Config.IdleTimeout = idle
	a.TLS = &tls.Config{}
	a.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := a.TLS.Clone()
		c.GetConfigForClient = nil
		if !a.upgraded.Load() {
			c.NextProtos = []string{"http/1.1"}
		}
		return c, nil
	}
	a.StartTLS()
	t.Cleanup(a.Close)
	roots := x509.NewCertPool()
	roots.AddCert(a.Certificate())
	return a, upstream.Config{URL: a.URL, TLS: &tls.Config{RootCAs: roots}}
}

// A connection that the application has closed meanwhile is not used, with TLS, where the end is announced in a record: a POST would be
// answered "unknown" that nobody has seen.
func TestIdleTLSConnectionClosed(t *testing.T) {
	app, cfg := newSecureApp(t, 20*time.Millisecond)
	p := protect(t, cfg)
	c := client(t, http1)
	for range 5 {
		if resp, got := do(t, c, "POST", "http://"+p.at["active"]+"/", "body"); resp.StatusCode != 200 || got != "HTTP/1.1" {
			t.Fatalf("%d %s", resp.StatusCode, got)
		}
		wait(t, "the application closes", func() bool { return app.ended.Load() == app.open.Load() })
	}
}

// An application that was replaced by one that speaks HTTP/2 is spoken to in HTTP/2.
func TestUpgradedToHTTP2(t *testing.T) {
	app, cfg := newSecureApp(t, time.Minute)
	p := protect(t, cfg)
	c := client(t, http1)
	for _, want := range []string{"HTTP/1.1", "HTTP/2.0", "HTTP/2.0"} {
		if resp, got := do(t, c, "POST", "http://"+p.at["active"]+"/", "body"); resp.StatusCode != 200 || got != want {
			t.Fatalf("%d %s, want %s", resp.StatusCode, got, want)
		}
		if !app.upgraded.Swap(true) {
			app.CloseClientConnections()
			wait(t, "the application closes", func() bool { return app.ended.Load() == app.open.Load() })
		}
	}
}
