package clients

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// stage is a cluster in one mode, and where clients enter it.
type stage struct {
	*cluster.Cluster
	redirect bool
}

func TestForwarding(t *testing.T) {
	play(t, &stage{cluster.New(t, cluster.Options{Performance: "3"}), false})
}

func TestRedirection(t *testing.T) {
	redirect := func(*cluster.Node) string { return "forwarding {\n  mode = \"redirect\"\n}\n" }
	play(t, &stage{cluster.New(t, cluster.Options{Extra: redirect}), true})
}

// play runs everything on one cluster. What disturbs it comes last.
func play(t *testing.T, s *stage) {
	t.Run("mode", s.mode)
	active, standbys := s.roles(t)
	for _, k := range kinds {
		for _, n := range []*cluster.Node{active, standbys[0]} {
			place := &place{stage: s, kind: k, node: n, active: n == active, prefix: k.name + "-" + n.Name}
			t.Run(k.name+"/"+place.role(), place.run)
		}
	}
	t.Run("step-down", s.stepDown)
	t.Run("kill", s.kill)
}

// roles finds the active node and the others.
func (s *stage) roles(t *testing.T) (active *cluster.Node, standbys []*cluster.Node) {
	t.Helper()
	ctx := within(t, 30*time.Second)
	err := s.WaitHealthy(ctx)
	if err == nil {
		active, err = s.WaitActive(ctx)
	}
	ok(t, "a healthy cluster", err)
	for _, n := range s.Nodes {
		if n != active {
			standbys = append(standbys, n)
		}
	}
	return active, standbys
}

// within is a context that ends with the test or after d.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), d, context.DeadlineExceeded)
	t.Cleanup(cancel)
	return ctx
}

// mode makes sure that a standby of the cluster does what its name says, so that the clients meet it; and that a client
// which does not want to be forwarded is redirected in either mode.
func (s *stage) mode(t *testing.T) {
	active, standbys := s.roles(t)
	plain := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	const path = "/v1/secret/data/none?version=1"
	for _, n := range standbys {
		for _, header := range []string{"", "X-Vault-No-Request-Forwarding"} {
			request, err := http.NewRequestWithContext(within(t, 10*time.Second), http.MethodGet, n.URL()+path, nil)
			ok(t, "request", err)
			request.Header.Set("X-Vault-Token", s.Token)
			if header != "" {
				request.Header.Set(header, "true")
			}
			response, err := plain.Do(request)
			ok(t, "request", err)
			_ = response.Body.Close()
			want, location := http.StatusNotFound, ""
			if s.redirect || header != "" {
				want, location = http.StatusTemporaryRedirect, active.URL()+path
			}
			if got := response.Header.Get("Location"); response.StatusCode != want || got != location {
				t.Errorf("%s answers %d with Location %q, want %d with %q", n.Name, response.StatusCode, got, want, location)
			}
		}
	}
}

// place is one client at one node.
type place struct {
	*stage
	kind   kind
	node   *cluster.Node
	active bool
	prefix string // of the paths that this one uses
}

func (p *place) role() string {
	if p.active {
		return "active"
	}
	return "standby"
}

func (p *place) run(t *testing.T) {
	p.client(t) // or the reason to skip
	t.Run("status", p.status)
	t.Run("entries", p.entries)
	t.Run("metadata", p.metadata)
	t.Run("sizes", p.sizes)
	t.Run("errors", p.errors)
	t.Run("tokens", p.tokens)
	t.Run("policies", p.policies)
}

// client opens the client with the root token.
func (p *place) client(t testing.TB) client { return p.kind.open(t, p.node.URL(), p.Token, "") }

// serve serves a handler on loopback until the test ends.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}
