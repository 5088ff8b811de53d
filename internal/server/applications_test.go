package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/internal/metrics"
)

// LOCUM_TOKEN is good for the application's own entries; a standby gets one from the active node; it ends with the start that it was
// made for (issue 5, points 2 and 9).
func TestApplicationTokens(t *testing.T) {
	nodes := testCluster(t, 2)
	for _, n := range nodes {
		n.config.Forwarding.Mode = "redirect" // which is for clients
		n.start()
	}
	root := initialise(t, nodes[0])
	ready(t, nodes...)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	value := map[string]any{"data": map[string]any{"a": 1}}
	for _, n := range nodes {
		tokens := (*applicationTokens)(n.server.life.Load())
		token, err := tokens.Mint(ctx, "orders")
		if err != nil {
			t.Fatalf("%s: %v", n.name, err)
		}
		for path, want := range map[string]int{
			"secret/data/applications/orders/" + n.name: 200, "secret/data/applications/other/x": 403, "secret/data/x": 403, "sys/step-down": 403,
			"locks/applications/orders/" + n.name: 200, "locks/applications/other/x": 403, "locks/x": 403, "locks/applications/orders": 403,
			"cache/other/x": 403, "cache/orders2/x": 403,
		} {
			in := value
			if strings.HasPrefix(path, "locks/") {
				in = map[string]any{"secret": "secret-of-a-holder", "holder": n.name, "ttl": "10s"}
			}
			if code, answer := nodes[0].call("POST", "/v1/"+path, token, in); code != want {
				t.Errorf("%s: %s: %d %v, want %d", n.name, path, code, answer, want)
			}
		}
		if code, answer := nodes[0].call("GET", "/v1/cache/orders/x", token, nil); code == 403 {
			t.Errorf("%s: its own cache: %v", n.name, answer)
		}
		if err := tokens.Renew(ctx, "orders", token); err != nil {
			t.Errorf("%s: renew: %v", n.name, err)
		}
		if err := tokens.Revoke(ctx, "orders", token); err != nil {
			t.Errorf("%s: revoke: %v", n.name, err)
		}
		if code, _ := nodes[0].call("GET", "/v1/auth/token/lookup-self", token, nil); code != 403 {
			t.Errorf("%s: a revoked token is good for %d", n.name, code)
		}
	}
	// Who does not hold the cluster's keys gets none.
	if code, _ := nodes[1].call("POST", applicationTokenPath, root, map[string]any{
		"application": "orders", "node": "node-1", "nonce": make([]byte, 16), "proof": make([]byte, 32),
	}); code != 403 {
		t.Errorf("a token for nobody: %d", code)
	}
}

// The secret of LOCUM_JOIN proves itself without being sent, brings the seal's key, and can be replaced (issue 5, point 1).
func TestInvitation(t *testing.T) {
	nodes := testCluster(t, 2)
	for _, n := range nodes {
		n.start()
	}
	root := initialise(t, nodes[0])
	ready(t, nodes...)
	secretOf := func(method string) []byte {
		t.Helper()
		code, answer := nodes[1].call(method, "/v1/sys/invitation", root, nil)
		text, _ := answer["secret"].(string)
		secret, err := base64.RawURLEncoding.DecodeString(text)
		if code != 200 || err != nil || len(secret) != 32 {
			t.Fatalf("%s: %d %v", method, code, answer)
		}
		return secret
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	first := secretOf("GET")
	if again := secretOf("GET"); string(again) != string(first) {
		t.Error("a second look shows another one")
	}
	for _, n := range nodes { // a standby passes it on
		key, err := Accept(ctx, []string{n.url}, first, "newcomer")
		if err != nil {
			t.Fatal(err)
		}
		want, err := n.server.sealKey()
		if err != nil || key != want {
			t.Errorf("%s: not the seal's key (%v)", n.name, err)
		}
	}
	second := secretOf("PUT")
	if _, err := Accept(ctx, []string{nodes[0].url}, first, "newcomer"); !errors.Is(err, ErrInvitation) {
		t.Errorf("with the old secret: %v", err)
	}
	if _, err := Accept(ctx, []string{nodes[0].url}, second, "newcomer"); err != nil {
		t.Errorf("with the new one: %v", err)
	}
	if code, _ := nodes[0].call("GET", "/v1/sys/invitation", "no-token", nil); code != 403 {
		t.Errorf("shown to anybody: %d", code)
	}
	// Wrong requests get the right 4xx, and change nothing.
	for _, n := range nodes {
		for _, method := range []string{"DELETE", "PATCH", "OPTIONS", "LIST"} {
			n.raw(method, invitePath, root, nil, 405)
		}
		n.raw("DELETE", invitePath, "no-token", nil, 403)
		for _, path := range []string{inviteChallenge, inviteAnswer} {
			n.raw("POST", path, "", []byte(`{"node_id":`), 400)
			n.raw("POST", path, "", nil, 400)
			n.raw("POST", path, "", []byte(`{}`), 400)
			n.raw("POST", path, "", bytes.Repeat([]byte("x"), invitationBody+1), 413)
		}
		n.raw("POST", applicationTokenPath, "", []byte(`{`), 403)
	}
	if last := secretOf("GET"); string(last) != string(second) {
		t.Error("a wrong request has replaced the secret")
	}
}

// An application that someone else starts is looked at; one that does not work keeps its node from being active, and leadership goes on
// to a node where it does.
func TestExternalApplication(t *testing.T) {
	nodes := testCluster(t, 2)
	healthy := make([]atomic.Bool, len(nodes))
	for i, n := range nodes {
		app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if !healthy[i].Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}))
		t.Cleanup(app.Close)
		healthy[i].Store(true)
		a := config.NewApplication("legacy")
		a.Upstream, a.Health.Path, a.Health.Interval, a.Health.Failures = app.URL, "/", 20*time.Millisecond, 1
		a.Restarts, a.StartTimeout = 0, 3*time.Second
		other := config.NewApplication("other") // of two applications, the one that fails moves both
		other.Upstream = app.URL
		n.config.Applications = []config.Application{other, a}
	}
	var warmed atomic.Bool // "for each node that is not active the reason why": one that is warm and does not work is one
	beside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !warmed.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(beside.Close)
	warm := config.NewApplication("warm")
	warm.Upstream, warm.Health.Path, warm.Standby = beside.URL, "/", "warm"
	nodes[1].config.Applications = append(nodes[1].config.Applications, warm)
	for _, n := range nodes {
		n.start()
	}
	root := initialise(t, nodes[0])
	ready(t, nodes...)
	voters(t, nodes[0], root, 2)
	reason := func() string {
		if list := nodes[0].server.life.Load().members.list(memberGone); len(list) == 1 {
			return list[0].Reason
		}
		return ""
	}
	eventually(t, "the warm application is the reason", func() bool { return strings.Contains(reason(), `application "warm"`) })
	warmed.Store(true)
	eventually(t, "it is none any more", func() bool { return !strings.Contains(reason(), `application "warm"`) })
	isActive := func(n *testNode) bool {
		u := n.server.life.Load()
		return u != nil && u.isActive()
	}
	eventually(t, "node-1 is active", func() bool { return isActive(nodes[0]) })
	healthy[0].Store(false)
	eventually(t, "node-2 is active", func() bool { return isActive(nodes[1]) })
	healthy[0].Store(true)
	healthy[1].Store(false)
	eventually(t, "node-1 is active again", func() bool { return isActive(nodes[0]) })
	_, answer := nodes[0].call("GET", "/v1/sys/history", root, nil)
	if text := fmt.Sprint(answer); strings.Count(text, `application "legacy" failed too often: 1 failures within 1m0s, the last: not healthy: 1 checks in a row failed, the last: / answers 503 Service Unavailable`) < 2 {
		t.Errorf("the history does not say which application failed, and why: %s", text)
	}
}

// An application may store its last state while its node steps down, when all others' requests are held already.
func TestLocalAddressWhileDraining(t *testing.T) {
	nodes := testCluster(t, 1)
	n := nodes[0]
	app := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(app.Close)
	a := config.NewApplication("orders")
	a.Upstream = app.URL
	n.config.Applications = []config.Application{a}
	n.start()
	root := initialise(t, n)
	ready(t, n)
	u := n.server.life.Load()
	l := u.leading.Load()
	l.draining.Store(true)
	if err := u.router.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	local := &testNode{t: t, url: n.server.localAddress()}
	value := map[string]any{"data": map[string]any{"last": "state"}}
	if code, answer := local.call("POST", "/v1/secret/data/applications/orders/state", root, value); code != 200 {
		t.Errorf("a write at LOCUM_ADDR while draining: %d %v", code, answer)
	}
	if code, answer := local.call("GET", "/v1/sys/leader", "", nil); code != 200 || answer["is_self"] != true {
		t.Errorf("leader: %d %v", code, answer)
	}
}

// Design.md "Forwarding": the client's certificate travels along. An application reads it as RFC 9440 has it.
func TestApplicationWithClientCertificates(t *testing.T) {
	n := testCluster(t, 1)[0]
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("Client-Cert"))
	}))
	t.Cleanup(app.Close)
	dir := t.TempDir()
	cert, authority := issue(t, dir, "node")
	a := config.NewApplication("orders")
	a.Upstream, a.Listen = app.URL, []string{"127.0.0.1:0"}
	a.TLSCertFile, a.TLSKeyFile = filepath.Join(dir, "node.crt"), filepath.Join(dir, "node.key")
	a.TLSClientCAFile = a.TLSCertFile
	second := config.NewApplication("stock") // with a listener and an upstream of its own
	stock := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "stock") }))
	t.Cleanup(stock.Close)
	second.Upstream, second.Listen = stock.URL, []string{"127.0.0.1:0"}
	n.config.Applications = []config.Application{a, second}
	n.start()
	initialise(t, n)
	ready(t, n)
	if got := body(t, http.DefaultClient, "http://"+n.server.serving[1].listeners[0].Addr().String()); got != "stock" {
		t.Errorf("the second application answers %q", got)
	}
	url := "https://" + n.server.serving[0].listeners[0].Addr().String()
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority, Certificates: []tls.Certificate{cert}}}
	defer tr.CloseIdleConnections()
	if got, want := body(t, &http.Client{Transport: tr}, url), ":"+base64.StdEncoding.EncodeToString(cert.Leaf.Raw)+":"; got != want {
		t.Errorf("the application reads %q", got)
	}
	without := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority}}
	if resp, err := (&http.Client{Transport: without}).Get(url); err == nil {
		resp.Body.Close()
		t.Error("a client without a certificate is let in")
	}
	// A new certificate is served, and a new authority asked for, after a reload.
	next, authority := issue(t, dir, "node")
	if err := n.server.Reload(); err != nil {
		t.Fatal(err)
	}
	renewed := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority, Certificates: []tls.Certificate{next}}}
	defer renewed.CloseIdleConnections()
	if got, want := body(t, &http.Client{Transport: renewed}, url), ":"+base64.StdEncoding.EncodeToString(next.Leaf.Raw)+":"; got != want {
		t.Errorf("after a reload the application reads %q", got)
	}
	old := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority, Certificates: []tls.Certificate{cert}}}
	if resp, err := (&http.Client{Transport: old}).Get(url); err == nil {
		resp.Body.Close()
		t.Error("a certificate of the old authority is still let in")
	}
}

func body(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

// "command with arguments, environment, working directory, user and group": what the file says is what is run.
func TestCommandOfTheFile(t *testing.T) {
	c, err := config.Parse("node.hcl", []byte(`application "orders" {
  command     = ["./orders", "--port", "9000"]
  environment = { A = "1" }
  working_dir = "/srv"
  user        = "nobody"
  group       = "daemon"
  containment = "cgroup"
}
`))
	if err != nil {
		t.Fatal(err)
	}
	u := &unsealed{Server: &Server{cfg: c, log: slog.New(slog.DiscardHandler), guardian: &guardianship{}, metrics: metrics.New("")}}
	cfg, err := u.applicationConfig(&c.Applications[0])
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(cfg.Command, []string{"./orders", "--port", "9000"}) || cfg.Dir != "/srv" || cfg.User != "nobody" || cfg.Group != "daemon" ||
		cfg.Containment != "cgroup" || !slices.Contains(cfg.Env, "A=1") {
		t.Errorf("%+v", cfg)
	}
}
