package cacheclients

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// visitor is a browser: it keeps its cookies, whichever server it asks, as behind a load balancer.
type visitor struct {
	t      *testing.T
	client *http.Client
}

func newVisitor(t *testing.T) visitor {
	jar, err := cookiejar.New(nil) // cookies are per host, not per port
	if err != nil {
		t.Fatal(err)
	}
	return visitor{t, &http.Client{Jar: jar, Timeout: 20 * time.Second}}
}

func (v visitor) get(url string) string {
	v.t.Helper()
	text, err := v.try(url)
	if err != nil {
		v.t.Fatal(err)
	}
	return text
}

func (v visitor) try(url string) (string, error) {
	resp, err := v.client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %d %.200s", url, resp.StatusCode, body)
	}
	return string(body), err
}

// TestSessions: a session that one server began is known to another, on another node, also after the cache's leader was killed (issue
// 6, 8: the session stores of two web frameworks, unchanged).
func TestSessions(t *testing.T) {
	c := cluster.NewCache(t, 3)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	leader, err := c.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	first, second := c.Nodes[(leader+1)%3], c.Nodes[(leader+2)%3]
	type site struct{ name, a, b string }
	var sites []site
	for _, framework := range []string{"express.js", "koa.js"} {
		sites = append(sites, site{framework, serve(t, framework, port(first.RESP)), serve(t, framework, port(second.RESP))})
	}
	visitors := map[string]visitor{}
	for _, s := range sites {
		v := newVisitor(t)
		visitors[s.name] = v
		if got := v.get(s.a + "/who"); got != "nobody" {
			t.Errorf("%s: before the login: %q", s.name, got)
		}
		if got := v.get(s.a + "/login/ada"); got != "in" {
			t.Errorf("%s: login: %q", s.name, got)
		}
		if got := v.get(s.b + "/who"); got != "ada" {
			t.Errorf("%s: at the other server: %q", s.name, got)
		}
	}
	c.Nodes[leader].Kill()
	for _, s := range sites {
		v := visitors[s.name]
		err := cluster.Poll(ctx, "the session is there after the leader was killed", func() error {
			got, err := v.try(s.b + "/who")
			if err == nil && got != "ada" {
				t.Fatalf("%s: the session is lost: %q", s.name, got)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := v.get(s.a + "/logout"); got != "out" {
			t.Errorf("%s: logout: %q", s.name, got)
		}
		if got := v.get(s.b + "/who"); got != "nobody" {
			t.Errorf("%s: after the logout: %q", s.name, got)
		}
	}
}
