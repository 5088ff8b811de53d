package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/auth"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/memory"
)

const childToken = "hvs.child"

func fakeToken() *auth.Token {
	return &auth.Token{
		Accessor: "acc-root", DisplayName: "root", Policies: []string{"root"}, Path: "auth/token/root", CreationTime: noon.Add(-time.Hour),
	}
}

func fakeChild() *auth.Token {
	return &auth.Token{
		Accessor: "acc-child", DisplayName: "token-ci", Policies: []string{"app", "default"}, Path: "auth/token/create", CreationTime: noon.Add(-time.Hour),
		TTL: 2 * time.Hour, ExpireTime: noon.Add(time.Hour), LastRenewal: noon.Add(-time.Minute), Renewable: true, ExplicitMaxTTL: 24 * time.Hour,
		Period: 2 * time.Hour, NumUses: 3, Meta: map[string]string{"team": "a"},
	}
}

// fakeTokens has two tokens and a policy, and notes what it was asked for.
type fakeTokens struct {
	mu    sync.Mutex // over what the methods note
	err   error
	calls []string
	in    auth.Creation
}

func (f *fakeTokens) note(format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
	return f.err
}

func (f *fakeTokens) Create(_ context.Context, bearer auth.Secret, in auth.Creation, _ auth.Request) (*auth.Created, error) {
	f.mu.Lock()
	f.in = in
	f.mu.Unlock()
	return &auth.Created{Secret: childToken, Token: fakeChild(), Warnings: []string{`Policy "app" does not exist`}}, f.note("create by %s", bearer.Reveal())
}

func (f *fakeTokens) Lookup(_ context.Context, secret auth.Secret) (*auth.Token, error) {
	if secret != childToken {
		return nil, auth.ErrNoToken
	}
	return fakeChild(), f.err
}

func (f *fakeTokens) LookupAccessor(_ context.Context, accessor string) (*auth.Token, error) {
	if accessor != "acc-child" {
		return nil, auth.ErrNoAccessor
	}
	return fakeChild(), f.err
}

func (f *fakeTokens) Renew(_ context.Context, secret auth.Secret, increment time.Duration, _ auth.Request) (*auth.Renewed, error) {
	if secret != childToken && secret != rootToken {
		return nil, auth.ErrNoToken
	}
	return &auth.Renewed{Token: fakeChild()}, f.note("renew %s for %s", secret.Reveal(), increment)
}

func (f *fakeTokens) RenewAccessor(_ context.Context, accessor string, increment time.Duration, _ auth.Request) (*auth.Renewed, error) {
	return &auth.Renewed{Token: fakeChild()}, f.note("renew %s for %s", accessor, increment)
}

func (f *fakeTokens) Revoke(_ context.Context, secret auth.Secret, _ auth.Request) error {
	return f.note("revoke %s", secret.Reveal())
}

func (f *fakeTokens) RevokeAccessor(_ context.Context, accessor string, _ auth.Request) error {
	return f.note("revoke %s", accessor)
}

func (f *fakeTokens) RevokeOrphan(_ context.Context, secret auth.Secret, _ auth.Request) error {
	if secret != childToken {
		return auth.ErrNoToken
	}
	return f.note("revoke-orphan %s", secret.Reveal())
}

func (f *fakeTokens) Accessors(context.Context) ([]string, error) {
	return []string{"acc-root", "acc-child"}, f.err
}

func (f *fakeTokens) Policy(_ context.Context, name string) (string, string, error) {
	if name != "App" {
		return "", "", auth.ErrNoPolicy
	}
	return "app", "path \"a<b\" {}\n", f.err
}

func (f *fakeTokens) SetPolicy(_ context.Context, name, text string, _ auth.Request) error {
	return f.note("set %s: %s", name, text)
}

func (f *fakeTokens) DeletePolicy(_ context.Context, name string, _ auth.Request) error {
	return f.note("delete %s", name)
}

func (f *fakeTokens) Policies(context.Context) ([]string, error) {
	return []string{"app", "default", "root"}, f.err
}

func (f *fakeTokens) Capabilities(_ context.Context, t *auth.Token, path string) ([]string, error) {
	if t.Root() {
		return []string{"root"}, f.err
	}
	return []string{"list", "read"}, f.err
}

func TestTokensGolden(t *testing.T) {
	f := &fakeTokens{}
	h := Active(&fakeService{}, &fakeKV{}, f, nil, testConfig())
	for _, c := range []struct{ name, method, path, body, call string }{
		{"token-create", "POST", "auth/token/create", `{"policies":["app"],"meta":{"team":"a","n":1},"ttl":"1h","explicit_max_ttl":86400,"period":"2h","display_name":"ci","num_uses":"3","renewable":"false","no_parent":true,"no_default_policy":false,"id":"x","type":"service"}`, "create by hvs.root"},
		{"token-create-batch", "POST", "auth/token/create", `{"type":"batch"}`, ""},
		{"token-create-alias", "POST", "auth/token/create", `{"entity_alias":"x"}`, ""},
		{"token-lookup", "POST", "auth/token/lookup", `{"token":"hvs.child"}`, ""},
		{"token-lookup-own", "POST", "auth/token/lookup", ``, ""},
		{"token-lookup-self", "GET", "auth/token/lookup-self", "", ""},
		{"token-lookup-bad", "PUT", "auth/token/lookup", `{"token":"x"}`, ""},
		{"token-lookup-accessor", "POST", "auth/token/lookup-accessor", `{"accessor":"acc-child"}`, ""},
		{"token-lookup-accessor-bad", "POST", "auth/token/lookup-accessor", `{"accessor":"x"}`, ""},
		{"token-renew", "PUT", "auth/token/renew", `{"token":"hvs.child","increment":"30m"}`, "renew hvs.child for 30m0s"},
		{"token-renew-bad", "PUT", "auth/token/renew", `{"token":"x"}`, ""},
		{"token-renew-self", "PUT", "auth/token/renew-self", `{"increment":60}`, "renew hvs.root for 1m0s"},
		{"token-renew-accessor", "PUT", "auth/token/renew-accessor", `{"accessor":"acc-child"}`, "renew acc-child for 0s"},
		{"token-revoke", "POST", "auth/token/revoke", `{"token":"hvs.child"}`, "revoke hvs.child"},
		{"token-revoke-nothing", "POST", "auth/token/revoke", `{}`, ""},
		{"token-revoke-self", "POST", "auth/token/revoke-self", "", "revoke hvs.root"},
		{"token-revoke-accessor", "POST", "auth/token/revoke-accessor", `{"accessor":"acc-child"}`, "revoke acc-child"},
		{"token-revoke-orphan", "PUT", "auth/token/revoke-orphan", `{"token":"hvs.child"}`, "revoke-orphan hvs.child"},
		{"token-revoke-orphan-bad", "PUT", "auth/token/revoke-orphan", `{"token":"x"}`, ""},
		{"token-accessors", "LIST", "auth/token/accessors", "", ""},
		{"token-accessors", "GET", "auth/token/accessors/?list=true", "", ""},
		{"policy-list", "LIST", "sys/policies/acl", "", ""},
		{"policy-list", "GET", "sys/policies/acl/?list=true", "", ""},
		{"policy-list-legacy", "GET", "sys/policy", "", ""},
		{"policy-read", "GET", "sys/policies/acl/App", "", ""},
		{"policy-read-legacy", "GET", "sys/policy/App", "", ""},
		{"policy-read-missing", "GET", "sys/policies/acl/other", "", ""},
		{"policy-write", "PUT", "sys/policies/acl/team/app", `{"policy":"path \"a\" {}"}`, `set team/app: path "a" {}`},
		{"policy-write", "POST", "sys/policy/app", `{"rules":"cGF0aCAiYSIge30="}`, `set app: path "a" {}`},
		{"policy-delete", "DELETE", "sys/policies/acl/app", "", "delete app"},
		{"capabilities", "POST", "sys/capabilities", `{"token":"hvs.child","paths":["secret/a","data"]}`, ""},
		{"capabilities-one", "POST", "sys/capabilities", `{"token":"hvs.child","path":"secret/a"}`, ""},
		{"capabilities-bad", "POST", "sys/capabilities", `{"token":"x","path":"secret/a"}`, ""},
		{"capabilities-none", "POST", "sys/capabilities-self", `{}`, ""},
		{"capabilities-self", "POST", "sys/capabilities-self", `{"paths":"a,b"}`, ""},
		{"capabilities-accessor", "PUT", "sys/capabilities-accessor", `{"accessor":"acc-child","paths":["a"]}`, ""},
	} {
		f.calls = nil
		golden(t, c.name, call(h, c.method, "/v1/"+c.path, c.body))
		if got := strings.Join(f.calls, "; "); got != c.call {
			t.Errorf("%s: %q, want %q", c.name, got, c.call)
		}
	}
	call(h, "POST", "/v1/auth/token/create", `{"policies":"a, b","lease":"5m","metadata":{"x":true},"no_parent":"true"}`)
	if got, want := fmt.Sprintf("%+v", f.in), `{Path:auth/token/create ID:*** Policies:[a b] NoDefaultPolicy:false NoParent:true Orphan:false DisplayName: Meta:map[x:true] TTL:5m0s ExplicitMaxTTL:0s Period:0s Renewable:<nil> NumUses:0}`; got != want {
		t.Errorf("asked for %s", got)
	}
	call(h, "POST", "/v1/auth/token/create-orphan", ``)
	if !f.in.Orphan || f.in.Path != "auth/token/create-orphan" {
		t.Errorf("asked for %+v", f.in)
	}
	f.err = fmt.Errorf("write: %w", physical.ErrUnknown)
	if w := call(h, "POST", "/v1/auth/token/create", ``); w.Code != 503 || errorsOf(t, w).Processed != ProcessedUnknown {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// A write of an entry that is not there takes "create", of one that is "update"; other POSTs take "update".
func TestAccess(t *testing.T) {
	service := &fakeService{}
	f := &fakeKV{}
	h := Active(service, f, &fakeTokens{}, nil, testConfig())
	for _, c := range []struct {
		method, path string
		want         Access
		exists       bool
	}{
		{"POST", "secret/data/app", Access{Path: "secret/data/app", Op: Update}, true},
		{"PUT", "secret/metadata/app", Access{Path: "secret/metadata/app", Op: Update}, true},
		{"PATCH", "secret/data/app", Access{Path: "secret/data/app", Op: Patch}, false},
		{"GET", "secret/data/app", Access{Path: "secret/data/app", Op: Read}, false},
		{"DELETE", "secret/data/app", Access{Path: "secret/data/app", Op: Delete}, false},
		{"LIST", "secret/metadata/", Access{Path: "secret/metadata/", Op: List}, false},
		{"POST", "secret/undelete/app", Access{Path: "secret/undelete/app", Op: Update}, false},
		{"LIST", "auth/token/accessors", Access{Path: "auth/token/accessors", Op: List, Sudo: true}, false},
		{"POST", "auth/token/revoke-orphan", Access{Path: "auth/token/revoke-orphan", Op: Update, Sudo: true}, false},
		{"POST", "auth/token/create", Access{Path: "auth/token/create", Op: Update}, false},
		{"GET", "sys/internal/ui/mounts/secret", Access{Path: "sys/internal/ui/mounts/secret", Op: Read, Any: true}, false},
		{"GET", "no/such/path", Access{Path: "no/such/path", Op: Read}, false},
	} {
		call(h, c.method, "/v1/"+c.path, "{}")
		got := service.access[len(service.access)-1]
		if (got.Exists != nil) != c.exists {
			t.Errorf("%s %s: asks whether it exists: %v", c.method, c.path, got.Exists != nil)
		}
		if got.Exists != nil {
			if there, err := got.Exists(t.Context()); err != nil || !there {
				t.Errorf("%s: %v, %v", c.path, there, err)
			}
		}
		if (got.Answered != nil) != (strings.HasPrefix(c.path, "secret/data/") && (c.method == "POST" || c.method == "PATCH")) {
			t.Errorf("%s %s: asks the entry whether it was answered: %v", c.method, c.path, got.Answered != nil)
		}
		if got.Answered != nil {
			if done, err := got.Answered(t.Context()); err != nil || !done || f.calls[len(f.calls)-1] != "Answered app id-a/1/1" {
				t.Errorf("%s: %v, %v, %s", c.path, done, err, f.calls)
			}
		}
		got.Exists, got.Answered = nil, nil
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s %s: %+v", c.method, c.path, got)
		}
	}
}

// storeService checks tokens with a real store.
type storeService struct {
	fakeService
	tokens *auth.Store
}

func (s *storeService) Authorize(ctx context.Context, token string, need Access) (*auth.Token, error) {
	return s.tokens.Authorize(ctx, auth.Secret(token), need, auth.Request{})
}

type plainStore struct{ physical.Backend }

func (p plainStore) Commit(ctx context.Context, ops ...physical.Op) error {
	return p.Backend.Commit(ctx, nil, ops...)
}

// The life of tokens over HTTP, with the real store; and no secret in any log or error.
func TestTokenLife(t *testing.T) {
	store := plainStore{memory.NewStore().Open()}
	key := bytes.Repeat([]byte{7}, 32)
	root, ops, err := auth.NewRootToken(key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Commit(t.Context(), ops...); err != nil {
		t.Fatal(err)
	}
	tokens, err := auth.New(store, key, auth.Config{})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	h := Active(&storeService{tokens: tokens}, &fakeKV{}, tokens, nil, Config{Logger: logger})
	ask := func(token, method, path, body string) (int, envelopeSeen) {
		t.Helper()
		r := httptest.NewRequest(method, "/v1/"+path, strings.NewReader(body))
		r.Header.Set("X-Vault-Token", token)
		w := do(h, r)
		var seen envelopeSeen
		if w.Body.Len() > 0 {
			if err := json.Unmarshal(w.Body.Bytes(), &seen); err != nil {
				t.Fatalf("%s: %v", w.Body, err)
			}
		}
		if w.Code >= 400 && strings.Contains(w.Body.String(), "lcm.") {
			t.Errorf("a secret in an error: %s", w.Body)
		}
		return w.Code, seen
	}
	expect := func(want int, token, method, path, body string) envelopeSeen {
		t.Helper()
		code, seen := ask(token, method, path, body)
		if code != want {
			t.Errorf("%s %s: %d %v, want %d", method, path, code, seen.Errors, want)
		}
		return seen
	}
	expect(204, root.Reveal(), "PUT", "sys/policies/acl/app", `{"policy":"path \"secret/data/app/*\" { capabilities = [\"read\", \"create\"] }\npath \"auth/token/create\" { capabilities = [\"update\"] }"}`)
	expect(400, root.Reveal(), "PUT", "sys/policies/acl/bad", `{"policy":"path \"a\" { capabilities = [\"all\"] }"}`)
	made := expect(200, root.Reveal(), "POST", "auth/token/create", `{"policies":["app"],"ttl":"1h"}`)
	app := made.Auth.ClientToken
	if app == "" || made.Auth.LeaseDuration != 3600 || fmt.Sprint(made.Auth.Policies) != "[app default]" {
		t.Errorf("%+v", made.Auth)
	}
	expect(200, app, "GET", "secret/data/app/db", "")
	expect(403, app, "GET", "secret/data/other", "")
	expect(403, app, "POST", "secret/data/app/db", `{"data":{}}`) // it is there, and may only be created
	expect(403, app, "POST", "sys/seal", "")
	expect(403, app, "GET", "no/such/path", "")
	expect(404, root.Reveal(), "GET", "no/such/path", "")
	expect(403, app, "LIST", "auth/token/accessors", "")
	expect(403, app, "GET", "sys/policies/acl/app", "")
	expect(200, app, "GET", "sys/internal/ui/mounts/secret/app", "")
	self := expect(200, app, "GET", "auth/token/lookup-self", "")
	if self.Data["id"] != app || self.Data["ttl"] != 3600.0 || self.Data["orphan"] != false {
		t.Errorf("%v", self.Data)
	}
	if can := expect(200, app, "POST", "sys/capabilities-self", `{"paths":["secret/data/app/x"]}`); fmt.Sprint(can.Data["capabilities"]) != "[create read]" {
		t.Errorf("%v", can.Data)
	}
	child := expect(200, app, "POST", "auth/token/create", `{"num_uses":2}`).Auth.ClientToken
	expect(400, app, "POST", "auth/token/create", `{"policies":["root"]}`)
	expect(400, app, "POST", "auth/token/create", `{"no_parent":true}`)
	expect(200, child, "GET", "secret/data/app/db", "")
	if last := expect(200, child, "GET", "auth/token/lookup-self", ""); last.Data["num_uses"] != -1.0 { // as Vault shows a last use
		t.Errorf("%v", last.Data)
	}
	expect(403, child, "GET", "secret/data/app/db", "")
	other := expect(200, app, "POST", "auth/token/create", "").Auth
	expect(200, root.Reveal(), "POST", "auth/token/lookup-accessor", `{"accessor":"`+other.Accessor+`"}`)
	expect(200, app, "POST", "auth/token/renew-self", `{"increment":"2h"}`)
	expect(204, app, "POST", "auth/token/revoke-self", "")
	expect(403, app, "GET", "auth/token/lookup-self", "")
	expect(403, other.ClientToken, "GET", "auth/token/lookup-self", "")
	expect(403, root.Reveal(), "POST", "auth/token/lookup", `{"token":"`+app+`"}`)
	expect(204, root.Reveal(), "POST", "auth/token/revoke", `{"token":"`+app+`"}`)
	expect(204, root.Reveal(), "DELETE", "sys/policies/acl/app", "")
	expect(404, root.Reveal(), "GET", "sys/policies/acl/app", "")
	store.Close() // what fails inside is logged, and no secret with it
	for _, body := range []string{`{"token":"` + app + `"}`, `{"token":"` + child + `","increment":"1h"}`} {
		for _, path := range []string{"lookup", "renew", "revoke", "revoke-orphan", "create"} {
			ask(root.Reveal(), "POST", "auth/token/"+path, body)
			ask(child, "POST", "auth/token/"+path, body)
		}
	}
	for _, secret := range []string{root.Reveal(), app, child, other.ClientToken} {
		if strings.Contains(log.String(), secret[4:]) {
			t.Errorf("a secret in the log: %s", log.String())
		}
	}
}

type envelopeSeen struct {
	Data map[string]any `json:"data"`
	Auth struct {
		ClientToken   string   `json:"client_token"`
		Accessor      string   `json:"accessor"`
		Policies      []string `json:"policies"`
		LeaseDuration int      `json:"lease_duration"`
	} `json:"auth"`
	Errors []string `json:"errors"`
}

func TestRateLimit(t *testing.T) {
	passed := 0
	cfg := testConfig()
	cfg.RateLimit = RateLimit{PerSecond: 2, Burst: 3}
	h := Local(&fakeNode{status: standbyStatus()}, cfg, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { passed++ })).(*local)
	now := noon
	h.limiter.now = func() time.Time { return now }
	ask := func(from, method, path string) *httptest.ResponseRecorder {
		r := request(method, "/v1/"+path, "")
		r.RemoteAddr = from
		return do(h, r)
	}
	limited := func(from, path string) bool {
		w := ask(from, "POST", path)
		if w.Code == http.StatusTooManyRequests {
			if w.Header().Get("Retry-After") != "1" || errorsOf(t, w).Processed != ProcessedNo {
				t.Errorf("%v %s", w.Header(), w.Body)
			}
			return true
		}
		return false
	}
	for i, path := range []string{"sys/init", "sys/unseal", "sys/storage/raft/join"} {
		if limited("10.0.0.1:1000", path) {
			t.Errorf("request %d is one too many", i)
		}
	}
	for _, path := range []string{
		"sys/init", "sys/unseal", "sys/storage/raft/join", "sys/storage/raft/bootstrap/challenge", "sys/generate-root/update", "sys/rekey/update",
		"sys/internal/invitation/challenge", "sys/internal/invitation/answer", "sys/internal/application-token",
	} {
		if !limited("10.0.0.1:2000", path) || !limited("[::ffff:10.0.0.1]:2000", path) {
			t.Errorf("%s: no limit", path)
		}
	}
	for _, path := range []string{"sys/health", "sys/leader", "sys/init", "sys/seal-status", "sys/live"} {
		for range 10 {
			if w := ask("10.0.0.1:1000", "GET", path); w.Code == http.StatusTooManyRequests && path != "sys/health" || w.Header().Get("Retry-After") != "" {
				t.Errorf("%s is limited", path)
			}
		}
	}
	ask("10.0.0.1:1000", "POST", "secret/data/app")
	if passed != 1 {
		t.Error("what needs a token is limited")
	}
	if limited("10.0.0.2:1", "sys/unseal") || limited("@", "sys/unseal") {
		t.Error("others are limited, too")
	}
	now = now.Add(500 * time.Millisecond)
	if limited("10.0.0.1:1", "sys/unseal") || !limited("10.0.0.1:1", "sys/unseal") {
		t.Error("not one more after half a second")
	}
	for i := range 3 {
		if limited(fmt.Sprintf("[2001:db8::%x]:1", i), "sys/unseal") {
			t.Error("limited too early")
		}
	}
	if !limited("[2001:db8::ff]:1", "sys/unseal") {
		t.Error("one network has as many allowances as addresses")
	}
	// P12: memory stays flat.
	now = now.Add(time.Hour)
	for i := range 3 * maxClients {
		ask(fmt.Sprintf("10.%d.%d.%d:1", 1+i>>16, i>>8&255, i&255), "POST", "sys/unseal")
	}
	if len(h.limiter.clients) > maxClients {
		t.Error(len(h.limiter.clients))
	}
	if !limited("11.0.0.1:1", "sys/unseal") {
		t.Error("those beyond the bound are not limited together")
	}
	now = now.Add(time.Minute)
	if limited("11.0.0.1:1", "sys/unseal") || len(h.limiter.clients) > 1 {
		t.Error("idle addresses are kept", len(h.limiter.clients))
	}
	if newLimiter(RateLimit{PerSecond: -1}, nil).wait(nil) != 0 {
		t.Error("no limit limits")
	}
}
