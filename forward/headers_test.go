package forward

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// seen is what a handler saw, sent back as JSON.
type seen struct {
	Header     http.Header
	RemoteAddr string
	Host       string
	Proto      string
	URI        string
	Info       Info
	CN         string
	Verified   bool
	ServerName string
}

func seenHandler(w http.ResponseWriter, r *http.Request) {
	s := seen{
		Header: r.Header, RemoteAddr: r.RemoteAddr, Host: r.Host, Proto: r.Proto, URI: r.RequestURI,
		Info: InfoFrom(r.Context()),
	}
	if r.TLS != nil {
		s.ServerName = r.TLS.ServerName
		s.Verified = len(r.TLS.VerifiedChains) > 0
		if len(r.TLS.PeerCertificates) > 0 {
			s.CN = r.TLS.PeerCertificates[0].Subject.CommonName
		}
	}
	w.Header().Set("Connection", "close") // hop by hop: the standby's client must not see it
	w.Header().Set("X-Locum-Node", "somebody else")
	_ = json.NewEncoder(w).Encode(s)
}

func decodeSeen(t *testing.T, body string) (s seen) {
	t.Helper()
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatalf("%v in %q", err, body)
	}
	return s
}

func TestHeadersOfARequest(t *testing.T) {
	checkLeaks(t)
	trust := func(c *Config) {
		c.SetForwarded = true
		c.TrustForwarded = func(r *http.Request) bool { return r.Header.Get("X-Trust") != "" }
	}
	active, standby, _ := pair(t, http.HandlerFunc(seenHandler), trust)
	for _, n := range []*node{active, standby} {
		for _, trusted := range []bool{false, true} {
			req := mustRequest(t, "GET", n.http.URL+"/x?q=%2F", nil)
			req.Host = "shop.example"
			for k, v := range map[string]string{
				"X-Locum-Node": "liar", "X-Locum-Anything": "1", "X-Locum-Forwarded-By": "liar",
				"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "gopher", "X-Forwarded-Port": "1", "Forwarded": "for=6.6.6.6",
				"Client-Cert": ":bGlhcg==:", "Client-Cert-Chain": ":bGlhcg==:",
				"Connection": "keep-alive, X-Hop", "X-Hop": "1", "Te": "trailers, deflate", "Proxy-Authorization": "secret",
				"Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "X-Request-Id": "my-id-1",
				"X-Two": "a",
			} {
				req.Header.Set(k, v)
			}
			req.Header.Add("X-Two", "b")
			if trusted {
				req.Header.Set("X-Trust", "1")
			}
			res, body := do(t, req)
			s := decodeSeen(t, body)
			name := fmt.Sprintf("%s trusted=%v", n.name, trusted)
			want := map[string]string{
				"X-Request-Id": "my-id-1", "Traceparent": req.Header.Get("Traceparent"), "X-Two": "a,b",
				"X-Locum-Node": "", "X-Locum-Anything": "", "X-Locum-Forwarded-By": "",
				"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "shop.example",
				"X-Forwarded-Port": "", "Forwarded": "", "Client-Cert": "", "Client-Cert-Chain": "",
			}
			if n == standby {
				want["X-Locum-Forwarded-By"] = "b"
				want["X-Hop"], want["Proxy-Authorization"], want["Te"] = "", "", "trailers"
			}
			if trusted {
				want["X-Forwarded-For"], want["X-Forwarded-Proto"] = "6.6.6.6, 127.0.0.1", "gopher"
				want["X-Forwarded-Port"], want["Forwarded"] = "1", "for=6.6.6.6"
				want["Client-Cert"], want["Client-Cert-Chain"] = ":bGlhcg==:", ":bGlhcg==:"
			}
			for k, v := range want {
				if got := strings.Join(s.Header[k], ","); got != v {
					t.Errorf("%s: request %s = %q, want %q", name, k, got, v)
				}
			}
			if s.Host != "shop.example" || s.URI != "/x?q=%2F" || s.Proto != "HTTP/1.1" || !strings.HasPrefix(s.RemoteAddr, "127.0.0.1:") {
				t.Errorf("%s: %+v", name, s)
			}
			if s.Info.ID != "my-id-1" || s.Info.Term != 1 || s.Info.Slot != "" || (s.Info.ForwardedBy == "b") != (n == standby) {
				t.Errorf("%s: info %+v", name, s.Info)
			}
			if res.Header.Get("X-Locum-Node") != "a" || res.Header.Get("X-Request-Id") != "my-id-1" {
				t.Errorf("%s: answer %v", name, res.Header)
			}
			if n == standby && res.Header.Get("Connection") != "" && res.Header.Get("Connection") != "close" {
				t.Errorf("%s: answer's Connection %q", name, res.Header.Get("Connection"))
			}
		}
	}
}

func TestRequestIDIsMadeWhenUnfit(t *testing.T) {
	for _, v := range [][]string{nil, {""}, {"a b"}, {"a\nb"}, {strings.Repeat("x", 129)}, {"a", "b"}, {`a"b`}} {
		id := requestID(http.Header{"X-Request-Id": v})
		if len(id) != 32 {
			t.Errorf("%q gave %q", v, id)
		}
	}
	if id := requestID(http.Header{"X-Request-Id": {"ok-1:2/3"}}); id != "ok-1:2/3" {
		t.Error(id)
	}
}

// The client's certificate and TLS names reach the handler as the standby saw them.
func TestClientCertificateTravels(t *testing.T) {
	checkLeaks(t)
	_, standby, _ := pair(t, http.HandlerFunc(seenHandler), func(c *Config) { c.SetForwarded = true })
	for range 2 { // the second time from the cache
		req := httptest.NewRequest("GET", "https://shop.example/", nil)
		cert := testCert()
		req.TLS = &tls.ConnectionState{
			Version: tls.VersionTLS13, ServerName: "shop.example", HandshakeComplete: true,
			PeerCertificates: []*x509.Certificate{cert.Leaf}, VerifiedChains: [][]*x509.Certificate{{cert.Leaf}},
		}
		rec := httptest.NewRecorder()
		standby.ServeHTTP(rec, req)
		s := decodeSeen(t, rec.Body.String())
		if s.CN != "test" || !s.Verified || s.ServerName != "shop.example" {
			t.Errorf("%+v", s)
		}
		// RFC 9440: for a handler that is an application behind a node.
		if want := ":" + base64.StdEncoding.EncodeToString(cert.Leaf.Raw) + ":"; s.Header.Get("Client-Cert") != want {
			t.Errorf("Client-Cert is %q", s.Header.Get("Client-Cert"))
		}
	}
}

func TestUpgradeToH2CIsNotPassedOn(t *testing.T) {
	h := http.Header{"Connection": {"Upgrade, HTTP2-Settings"}, "Upgrade": {"h2c"}, "Http2-Settings": {"x"}}
	b, _ := appendRequestHeader(nil, h)
	got := http.Header{}
	d := decoder{s: string(b)}
	d.header(got)
	if d.bad || len(got) != 0 {
		t.Errorf("%v", got)
	}
	h = http.Header{"Connection": {"keep-alive, upgrade"}, "Upgrade": {"websocket"}}
	got = http.Header{}
	b, _ = appendRequestHeader(nil, h)
	d = decoder{s: string(b)}
	d.header(got)
	if got.Get("Upgrade") != "websocket" || got.Get("Connection") != "Upgrade" {
		t.Errorf("%v", got)
	}
}

// What an answer's head says arrives as it would from the handler itself.
func TestAnswersAsFromTheHandlerItself(t *testing.T) {
	checkLeaks(t)
	handlers := map[string]http.HandlerFunc{
		"nothing":      func(http.ResponseWriter, *http.Request) {},
		"no content":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) },
		"not modified": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Etag", `"x"`); w.WriteHeader(304) },
		"small":        func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>hello") },
		"typed": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "x/y")
			io.WriteString(w, "<html>")
		},
		"untyped": func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = nil
			io.WriteString(w, "<html>")
		},
		"encoded": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			io.WriteString(w, "zz")
		},
		"length": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5")
			io.WriteString(w, "12345")
		},
		"big":       func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Repeat("big", 100_000)) },
		"flushed":   func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush(); io.WriteString(w, "later") },
		"error":     func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "nope", http.StatusTeapot) },
		"late":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201); w.Header().Set("X-Late", "1") },
		"cookies":   func(w http.ResponseWriter, _ *http.Request) { w.Header()["Set-Cookie"] = []string{"a=1", "b=2"} },
		"two heads": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(202); w.WriteHeader(500) },
	}
	for name, h := range handlers {
		t.Run(name, func(t *testing.T) {
			direct := httptest.NewServer(h)
			defer direct.Close()
			active, standby, _ := pair(t, h)
			for _, method := range []string{"GET", "HEAD", "POST"} {
				want, wantBody := do(t, mustRequest(t, method, direct.URL, nil))
				for _, n := range []*node{active, standby} {
					got, body := do(t, mustRequest(t, method, n.http.URL, nil))
					if got.StatusCode != want.StatusCode || body != wantBody {
						t.Errorf("%s at %s: %d %q, want %d %q", method, n.name, got.StatusCode, body, want.StatusCode, wantBody)
					}
					for _, k := range []string{"Content-Type", "Content-Length", "Etag", "X-Late", "Content-Encoding", "Set-Cookie"} {
						g, w := got.Header.Values(k), want.Header.Values(k)
						if strings.Join(g, "|") != strings.Join(w, "|") && !(name == "big" || name == "small") {
							t.Errorf("%s at %s: %s = %q, want %q", method, n.name, k, g, w)
						}
					}
				}
			}
		})
	}
}

// What is more than the other node takes ends its own request, never the connection that all share.
func TestTooLong(t *testing.T) {
	checkLeaks(t)
	many := make([]string, maxFields)
	_, standby, _ := pair(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/bytes":
			w.Header().Set("X-Long", strings.Repeat("x", maxHead))
		case "/fields":
			w.Header()["X-Many"] = many
		case "/nameless":
			w.Header()[""] = []string{"x"}
		case "/trailers":
			w.Header().Set(http.TrailerPrefix+"X-Long", strings.Repeat("x", maxHead))
		case "/infos":
			w.Header()["X-Many"] = many
			w.WriteHeader(103)
			w.Header().Del("X-Many")
			for range 1000 {
				w.WriteHeader(103)
			}
		}
	}))
	before, _ := standby.Connected()
	for _, h := range []http.Header{{"X-Long": {strings.Repeat("x", maxHead)}}, {"X-Many": many}} {
		req := httptest.NewRequest("GET", "/", nil)
		req.Header = h
		rec := httptest.NewRecorder()
		standby.ServeHTTP(rec, req)
		if rec.Code != http.StatusRequestHeaderFieldsTooLarge {
			t.Error(rec.Code)
		}
	}
	for path, ok := range map[string]bool{"/bytes": false, "/fields": false, "/trailers": false, "/nameless": true, "/infos": true} {
		res, err := client.Do(mustRequest(t, "GET", standby.http.URL+path, nil))
		if err == nil {
			_, err = io.ReadAll(res.Body)
			res.Body.Close()
		}
		if (err == nil) != ok {
			t.Errorf("%s: %v", path, err)
		}
	}
	if after, _ := standby.Connected(); !after.Up || !after.Since.Equal(before.Since) {
		t.Error("the connection was lost")
	}
}

func TestMaxBody(t *testing.T) {
	checkLeaks(t)
	active, standby, _ := pair(t, http.HandlerFunc(echoHandler), func(c *Config) { c.MaxBody = 1000 })
	for _, n := range []*node{active, standby} {
		for _, known := range []bool{true, false} {
			var body io.Reader = strings.NewReader(strings.Repeat("x", 5000))
			if !known {
				body = io.MultiReader(body)
			}
			// With keep-alive: net/http closes a connection that is not kept without waiting for the client.
			tr := &http.Transport{}
			res, err := tr.RoundTrip(mustRequest(t, "POST", n.http.URL, body))
			if err != nil {
				t.Fatalf("%s known=%v: %v", n.name, known, err)
			}
			// The handler here reads a stream itself and says what it makes of the error.
			if res.StatusCode != 413 && !(n == active && !known && res.StatusCode == 500) {
				t.Errorf("%s known=%v: %d", n.name, known, res.StatusCode)
			}
			res.Body.Close()
			tr.CloseIdleConnections()
		}
		if _, got := do(t, mustRequest(t, "POST", n.http.URL, strings.NewReader("ok"))); got != "POST:ok" {
			t.Error(got)
		}
	}
}
