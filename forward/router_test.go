package forward

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

func echoHandler(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), 500)
		return
	}
	w.Header().Set("X-Method", r.Method)
	w.Header().Set("X-Uri", r.RequestURI)
	w.Header().Set("X-Host", r.Host)
	w.Header().Set("X-Remote", r.RemoteAddr)
	fmt.Fprintf(w, "%s:%s", r.Method, b)
}

func TestForwardPlain(t *testing.T) {
	checkLeaks(t)
	active, standby, _ := pair(t, http.HandlerFunc(echoHandler))
	for _, n := range []*node{active, standby} {
		for _, size := range []int{0, 1, 1000, 20000, 1 << 20} {
			body := strings.Repeat("x", size)
			req := mustRequest(t, "POST", n.http.URL+"/a%2Fb?x=1&y=%20", strings.NewReader(body))
			req.Host = "shop.example"
			res, got := do(t, req)
			if res.StatusCode != 200 || got != "POST:"+body {
				t.Fatalf("%s, %d bytes: %d, %d bytes", n.name, size, res.StatusCode, len(got))
			}
			for k, want := range map[string]string{
				"X-Method": "POST", "X-Uri": "/a%2Fb?x=1&y=%20", "X-Host": "shop.example",
				"X-Locum-Node": "a", "X-Locum-Term": "1",
			} {
				if got := res.Header.Get(k); got != want {
					t.Errorf("%s: %s = %q, want %q", n.name, k, got, want)
				}
			}
			if by := res.Header.Get("X-Locum-Forwarded-By"); n == standby && by != "b" || n == active && by != "" {
				t.Errorf("%s: forwarded by %q", n.name, by)
			}
			if res.Header.Get("X-Request-Id") == "" {
				t.Error("no request id")
			}
		}
	}
}
