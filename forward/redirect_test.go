package forward

import (
	"net/http"
	"strings"
	"testing"
)

func TestRedirectKeepsPathAndQuery(t *testing.T) {
	checkLeaks(t)
	for _, tt := range []struct{ api, uri, want string }{
		{"https://a.example:8400", "/v1/x%2Fy?a=%20&b=c+d&", "https://a.example:8400/v1/x%2Fy?a=%20&b=c+d&"},
		{"https://a.example", "/", "https://a.example/"},
		{"https://a.example/prefix", "/v1/x", "https://a.example/prefix/v1/x"},
		{"https://a.example/prefix/", "/v1/x?y", "https://a.example/prefix/v1/x?y"},
		{"https://[::1]:8400", "//evil.example/..%2f", "https://[::1]:8400//evil.example/..%2f"},
		{"https://a.example", "/a?", "https://a.example/a?"},
	} {
		active := newNode(t, "a", func(c *Config) { c.APIAddr = tt.api }).serve()
		standby := newNode(t, "b").serve()
		active.Lead(1, newLease(), http.HandlerFunc(echoHandler))
		standby.Follow(active.target(1, standby)) // known is enough: a redirect waits for no connection
		for _, h := range []string{"X-Locum-No-Request-Forwarding", "X-Vault-No-Request-Forwarding"} {
			req := mustRequest(t, "POST", standby.http.URL, strings.NewReader("body"))
			req.URL.Opaque = "//" + req.URL.Host + tt.uri
			req.Header.Set(h, "1")
			res, _ := do(t, req)
			if res.StatusCode != 307 || res.Header.Get("Location") != tt.want {
				t.Errorf("%s %s: %d %q, want %q", tt.api, tt.uri, res.StatusCode, res.Header.Get("Location"), tt.want)
			}
			// An empty value does not count, and the active node has nowhere to send anybody.
			req = mustRequest(t, "GET", active.http.URL, nil)
			req.Header.Set(h, "1")
			if res, _ := do(t, req); res.StatusCode != 200 {
				t.Errorf("active: %d", res.StatusCode)
			}
			req = mustRequest(t, "GET", standby.http.URL, nil)
			req.Header[h] = []string{""}
			if res, _ := do(t, req); res.StatusCode != 200 {
				t.Errorf("empty value: %d", res.StatusCode)
			}
		}
	}
}

func TestModeRedirect(t *testing.T) {
	checkLeaks(t)
	_, standby, _ := pair(t, http.HandlerFunc(echoHandler), func(c *Config) { c.Mode = ModeRedirect })
	res, _ := get(t, standby.http.URL+"/p")
	if res.StatusCode != 307 || res.Header.Get("Location") != "http://a.example:8400/p" {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
}

// Nodes behind one address: a client is sent round once, and told on the second lap.
func TestRedirectLoopIsNoticed(t *testing.T) {
	checkLeaks(t)
	same := func(c *Config) { c.APIAddr, c.Mode = "http://LB.example:80/x", ModeRedirect }
	active := newNode(t, "a", same, func(c *Config) { c.APIAddr = "http://lb.example/x/" }).serve()
	standby := newNode(t, "b", same).serve()
	active.Lead(1, newLease(), http.HandlerFunc(echoHandler))
	standby.Follow(active.target(1, standby))
	standby.waitUp()

	for uri, lap := range map[string]string{"/p?q=1": "/p?q=1&_locum_lap=1", "/p": "/p?_locum_lap=1", "/p?": "/p?&_locum_lap=1"} {
		res, _ := get(t, standby.http.URL+uri)
		if want := "http://lb.example/x" + lap; res.StatusCode != 307 || res.Header.Get("Location") != want {
			t.Fatalf("first lap: %d %q, want %q", res.StatusCode, res.Header.Get("Location"), want)
		}
		res, body := get(t, standby.http.URL+lap)
		if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || !strings.Contains(body, `"processed":"no"`) {
			t.Errorf("second lap: %d %s", res.StatusCode, body)
		}
		res, _ = get(t, active.http.URL+lap)
		if got := res.Header.Get("X-Uri"); res.StatusCode != 200 || got != uri && got+"?" != uri {
			t.Errorf("at the active node: %d %q", res.StatusCode, got)
		}
	}
}

func TestSameAddr(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"http://x", "http://x:80/", true}, {"https://X.y/p/", "https://x.Y:443/p", true},
		{"http://x", "https://x", false}, {"http://x/p", "http://x/q", false}, {"", "", false}, {"http://x:1", "http://x:2", false},
	} {
		if sameAddr(tt.a, tt.b) != tt.want {
			t.Errorf("%q %q: not %v", tt.a, tt.b, tt.want)
		}
	}
}
