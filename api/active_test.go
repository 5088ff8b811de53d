package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
)

func TestSysGolden(t *testing.T) {
	service := &fakeService{}
	h := Active(service, &fakeKV{}, &fakeTokens{}, &fakeRaft{}, testConfig())
	for _, c := range []struct{ name, method, path, body string }{
		{"sys-seal", "PUT", "sys/seal", ""},
		{"lock", "GET", "locks/report", ``},
		{"lock-nobody", "GET", "locks/nobody", ``},
		{"lock-acquire", "PUT", "locks/report", `{"secret":"0123456789abcdef","holder":"host-a","ttl":"10s","wait":"3s"}`},
		{"lock-held", "PUT", "locks/held", `{"secret":"0123456789abcdef"}`},
		{"lock-renew", "PUT", "locks/report", `{"secret":"0123456789abcdef","renew":true}`},
		{"lock-lost", "PUT", "locks/report", `{"secret":"another","renew":true}`},
		{"lock-release", "PUT", "locks/report", `{"secret":"0123456789abcdef","release":true}`},
		{"lock-renew-and-release", "PUT", "locks/report", `{"secret":"0123456789abcdef","renew":true,"release":true}`},
		{"lock-break", "DELETE", "locks/report", ``},
		{"lock-list", "LIST", "locks", ``},
		{"sys-pause", "PUT", "sys/pause", ``},
		{"sys-paused", "GET", "sys/pause", ``},
		{"sys-resume", "PUT", "sys/resume", ``},
		{"sys-maintenance", "PUT", "sys/maintenance", `{"node":"node-b"}`},
		{"sys-maintenance-off", "PUT", "sys/maintenance", `{"node":"node-b","off":true}`},
		{"sys-maintenance-of-nobody", "PUT", "sys/maintenance", `{}`},
		{"sys-ha-status", "GET", "sys/ha-status", ""},
		{"sys-history", "GET", "sys/history", ""},
		{"sys-key-status", "GET", "sys/key-status", ""},
		{"sys-rotate", "POST", "sys/rotate", ""},
		{"generate-root", "GET", "sys/generate-root/attempt", ""},
		{"generate-root-begin", "PUT", "sys/generate-root/attempt", `{"otp":"x"}`},
		{"generate-root-pgp", "PUT", "sys/generate-root/attempt", `{"pgp_key":"x"}`},
		{"generate-root-cancel", "DELETE", "sys/generate-root/attempt", ""},
		{"generate-root-share", "POST", "sys/generate-root/update", `{"key":"abcd","nonce":"n-1"}`},
		{"generate-root-no-share", "POST", "sys/generate-root/update", `{}`},
		{"rekey", "GET", "sys/rekey/init", ""},
		{"rekey-begin", "PUT", "sys/rekey/init", `{"secret_shares":5,"secret_threshold":"3"}`},
		{"rekey-pgp", "PUT", "sys/rekey/init", `{"secret_shares":5,"secret_threshold":3,"pgp_keys":["x"]}`},
		{"rekey-cancel", "DELETE", "sys/rekey/init", ""},
		{"rekey-share", "PUT", "sys/rekey/update", `{"key":"abcd","nonce":"more"}`},
		{"rekey-last-share", "PUT", "sys/rekey/update", `{"key":"abcd","nonce":"n-1"}`},
		{"rekey-verification", "GET", "sys/rekey/verify", ""},
		{"rekey-verify", "PUT", "sys/rekey/verify", `{"key":"abcd","nonce":"more"}`},
		{"rekey-verify-last", "PUT", "sys/rekey/verify", `{"key":"abcd","nonce":"v-1"}`},
		{"rekey-verify-restart", "DELETE", "sys/rekey/verify", ""},
		{"raft-configuration", "GET", "sys/storage/raft/configuration", ""},
		{"raft-remove-peer", "POST", "sys/storage/raft/remove-peer", `{"server_id":"id-b"}`},
		{"raft-challenge", "POST", "sys/storage/raft/bootstrap/challenge", `{"node_id":"id-c"}`},
		{"raft-answer", "PUT", "sys/storage/raft/bootstrap/answer", `{"proof":"x"}`},
		{"mounts", "GET", "sys/internal/ui/mounts", ""},
		{"mounts-secret", "GET", "sys/internal/ui/mounts/secret/app/db", ""},
		{"mounts-other", "GET", "sys/internal/ui/mounts/kv/app", ""},
		{"unknown-path", "GET", "sys/plugins", ""},
	} {
		golden(t, c.name, call(h, c.method, "/v1/"+c.path, c.body))
	}
	if w := call(h, "PUT", "/v1/sys/step-down", `{"to":"node-b","wait":"30s"}`); w.Code != 204 || w.Body.Len() != 0 || service.to != "node-b" {
		t.Errorf("step-down to %q: %d %s", service.to, w.Code, w.Body)
	}
	for body, want := range map[string]time.Duration{
		"": 0, `{}`: 0, `{"to":"node-b"}`: 0, `{"wait":30}`: 30 * time.Second, `{"wait":"30"}`: 30 * time.Second, `{"wait":"30s"}`: 30 * time.Second,
		`{"to":"node-b","wait":"1d"}`: 24 * time.Hour,
	} {
		if w := call(h, "POST", "/v1/sys/step-down", body); w.Code != 204 || StepDownWait([]byte(body)) != want {
			t.Errorf("step-down with %q: %d, waits %s, want %s", body, w.Code, StepDownWait([]byte(body)), want)
		}
	}
	for _, body := range []string{`{"wait":"soon"}`, `{"wait":[1]}`, `{`, `{"wait":-1}`} {
		if w := call(h, "POST", "/v1/sys/step-down", body); w.Code != 400 || StepDownWait([]byte(body)) > 0 {
			t.Errorf("step-down with %q: %d, waits %s", body, w.Code, StepDownWait([]byte(body)))
		}
	}
}

// A token is taken from either header; without a good one nothing is done and nothing is told.
func TestTokens(t *testing.T) {
	service := &fakeService{}
	h := Active(service, &fakeKV{}, &fakeTokens{}, &fakeRaft{}, testConfig())
	for _, header := range []string{"X-Vault-Token: " + rootToken, "Authorization: Bearer " + rootToken, "Authorization: bearer  " + rootToken} {
		r := httptest.NewRequest("POST", "/v1/sys/rotate", nil)
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Set(name, value)
		if w := do(h, r); w.Code != 204 {
			t.Errorf("%s: %d %s", header, w.Code, w.Body)
		}
	}
	service.calls = nil
	for _, header := range []string{"X-Vault-Token: wrong", "Authorization: Bearer wrong", "Authorization: Basic " + rootToken, "Authorization: Bearer", "X-Other: 1"} {
		for _, path := range []string{"sys/rotate", "sys/seal", "sys/step-down", "sys/storage/raft/snapshot", "no/such/path", "sys/internal/ui/mounts/secret"} {
			r := httptest.NewRequest("POST", "/v1/"+path, strings.NewReader(`{`))
			name, value, _ := strings.Cut(header, ": ")
			r.Header.Set(name, value)
			w := do(h, r)
			if b := errorsOf(t, w); w.Code != 403 || b.Errors[0] != "permission denied" {
				t.Errorf("%s with %s: %d %s", path, header, w.Code, w.Body)
			}
		}
	}
	if len(service.calls) > 0 {
		t.Errorf("carried out without a token: %v", service.calls)
	}
	last := service.access[0]
	if last.Path != "sys/rotate" || last.Op != Update || !last.Sudo {
		t.Errorf("asked for %+v", last)
	}
}

// A client that asks for a wrapped answer, or for a namespace, must not believe that it got one.
func TestUnsupportedHeaders(t *testing.T) {
	h := Active(&fakeService{}, &fakeKV{}, &fakeTokens{}, nil, testConfig())
	for header, want := range map[string]int{
		"X-Vault-Wrap-TTL: 60s": 400, "X-Vault-Wrap-TTL: 0": 200, "X-Vault-Wrap-TTL: ": 200,
		"X-Vault-Namespace: team-a": 400, "X-Vault-Namespace: root/": 200, "X-Vault-Namespace: /": 200, "X-Vault-Request: true": 200,
	} {
		r := request("GET", "/v1/secret/data/app", "")
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Set(name, value)
		if w := do(h, r); w.Code != want {
			t.Errorf("%s: %d %s", header, w.Code, w.Body)
		}
	}
}

// Over a real connection: half a snapshot is an error for the client, HEAD has no body, an upload is cut at the limit.
func TestOverAConnection(t *testing.T) {
	raft := &fakeRaft{midway: errors.New("disk")}
	srv := httptest.NewServer(Active(&fakeService{}, &fakeKV{}, &fakeTokens{}, raft, Config{MaxBody: 1 << 16}))
	defer srv.Close()
	send := func(method, path string, body io.Reader) (*http.Response, error) {
		r, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Vault-Token", rootToken)
		return srv.Client().Do(r)
	}
	resp, err := send("GET", raftBase+"snapshot", nil)
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("half a snapshot looks whole")
	}
	resp, err = send("HEAD", "/v1/sys/key-status", nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || len(body) > 0 || resp.ContentLength <= 0 {
		t.Errorf("HEAD: %d, %d bytes, content length %d", resp.StatusCode, len(body), resp.ContentLength)
	}
	resp.Body.Close()
	resp, err = send("POST", "/v1/secret/data/app", io.MultiReader(strings.NewReader(`{"data":{"a":"`), strings.NewReader(strings.Repeat("x", 1<<17))))
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("long upload: %d", resp.StatusCode)
	}
	resp.Body.Close()
}

// The bootstrap talk needs no token, and says nothing but what the two sides say.
func TestBootstrapIsOpen(t *testing.T) {
	raft := &fakeRaft{}
	h := Active(&fakeService{}, &fakeKV{}, &fakeTokens{}, raft, testConfig())
	r := httptest.NewRequest("POST", raftBase+"bootstrap/challenge", strings.NewReader(`{"node_id":"id-c"}`))
	if w := do(h, r); w.Code != 200 || raft.said != `{"node_id":"id-c"}` {
		t.Errorf("%d %s, said %q", w.Code, w.Body, raft.said)
	}
	raft.err = Errorf(403, "the proof does not fit: this node has another root key")
	r = httptest.NewRequest("POST", raftBase+"bootstrap/answer", strings.NewReader(`{}`))
	if w := do(h, r); w.Code != 403 {
		t.Errorf("wrong proof: %d", w.Code)
	}
}

func TestSnapshots(t *testing.T) {
	raft := &fakeRaft{}
	h := Active(&fakeService{}, &fakeKV{}, &fakeTokens{}, raft, Config{MaxBody: 8})
	w := call(h, "GET", raftBase+"snapshot", "")
	if w.Code != 200 || w.Body.String() != "snapshot's bytes" || w.Header().Get("Content-Type") != "application/octet-stream" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	long := strings.Repeat("x", 1000) // beyond MaxBody: snapshots are not bounded by it
	if w := call(h, "POST", raftBase+"snapshot", long); w.Code != 204 || raft.restored != long || raft.forced {
		t.Errorf("restore: %d %s", w.Code, w.Body)
	}
	if w := call(h, "PUT", raftBase+"snapshot-force", long); w.Code != 204 || !raft.forced {
		t.Errorf("forced restore: %d %s", w.Code, w.Body)
	}
	if w := call(h, "POST", raftBase+"snapshot", ""); w.Code != 400 {
		t.Errorf("empty restore: %d %s", w.Code, w.Body)
	}
	raft.err = Errorf(400, "the snapshot is of another cluster: use snapshot-force if that is meant")
	if w := call(h, "POST", raftBase+"snapshot", long); w.Code != 400 {
		t.Errorf("refused restore: %d", w.Code)
	}
	raft.err = errors.New("disk")
	if w := call(h, "GET", raftBase+"snapshot", ""); w.Code != 500 || w.Header().Get("Content-Disposition") != "" {
		t.Errorf("failed snapshot: %d %v", w.Code, w.Header())
	}
	raft.err, raft.midway = nil, errors.New("disk")
	defer func() {
		if recover() != http.ErrAbortHandler {
			t.Error("half a snapshot was answered as a whole one")
		}
	}()
	call(h, "GET", raftBase+"snapshot", "")
}

func TestNoRaft(t *testing.T) {
	h := Active(&fakeService{}, &fakeKV{}, &fakeTokens{}, nil, testConfig())
	for _, path := range []string{"configuration", "snapshot", "bootstrap/challenge"} {
		method := "GET"
		if path == "bootstrap/challenge" {
			method = "POST"
		}
		if w := call(h, method, raftBase+path, ""); w.Code != 404 || !strings.Contains(w.Body.String(), "raft storage is not in use") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// P6: what a client is told when the node is not active any more, and that the router is asked first.
func TestDeposed(t *testing.T) {
	service := &fakeService{}
	cfg := testConfig()
	var asked error
	take := false
	cfg.Deposed = func(_ *http.Request, err error) bool { asked = err; return take }
	h := Active(service, &fakeKV{}, &fakeTokens{}, &fakeRaft{}, cfg)
	for _, c := range []struct {
		err       error
		processed string
		code      int
		asks      bool
	}{
		{physical.ErrFenced, ProcessedNo, 503, true},
		{physical.ErrUnavailable, ProcessedNo, 503, true},
		{physical.ErrClosed, ProcessedNo, 503, true},
		{physical.ErrUnknown, ProcessedUnknown, 503, true},
		{ErrSealed, ProcessedNo, 503, true},
		{physical.ErrInvalid, "", 400, false},
		{&physical.TooLargeError{What: "value", Size: 9, Limit: 8}, "", 413, false},
		{Errorf(409, "that node is not a candidate: name another"), "", 409, false},
		{errors.New("odd"), "", 500, false},
	} {
		service.err, asked = fmt.Errorf("rotating: %w", c.err), nil
		w := call(h, "POST", "/v1/sys/rotate", "")
		body := errorsOf(t, w)
		if w.Code != c.code || body.Processed != c.processed || (asked != nil) != c.asks {
			t.Errorf("%v: %d %s, asked %v", c.err, w.Code, w.Body, asked)
		}
		if c.processed == ProcessedUnknown && body.RequestID != "req-1" {
			t.Errorf("unknown without the request's id: %s", w.Body)
		}
	}
	take, service.err = true, physical.ErrFenced
	w := call(h, "POST", "/v1/sys/rotate", "")
	if w.Body.Len() > 0 || len(w.Header()) > 0 {
		t.Errorf("an answer was written although the router took the request over: %v %s", w.Header(), w.Body)
	}
}

func TestObserver(t *testing.T) {
	var seen []string
	cfg := testConfig()
	cfg.Observer.Request = func(class, method string, code int, took time.Duration) {
		seen = append(seen, fmt.Sprintf("%s %s %d", class, method, code))
	}
	h := Active(&fakeService{}, &fakeKV{}, &fakeTokens{}, &fakeRaft{}, cfg)
	call(h, "GET", "/v1/sys/key-status", "")
	call(h, "POST", "/v1/sys/step-down", "{")
	call(h, "GET", "/v1/elsewhere", "")
	call(h, "DELETE", "/v1/sys/rotate", "")
	if got, want := strings.Join(seen, ", "), "sys GET 200, sys POST 400, other GET 404, sys DELETE 405"; got != want {
		t.Errorf("observed %q, want %q", got, want)
	}
}

func TestRepeatable(t *testing.T) {
	for request, want := range map[string]bool{
		"POST /v1/secret/data/a": true, "PUT /v1/secret/data/a/b": true, "PATCH /v1/secret/data/a": true, "DELETE /v1/secret/data/a": true,
		"POST /v1/secret/delete/a": true, "POST /v1/secret/undelete/a": true, "PUT /v1/secret/destroy/a": true, "DELETE /v1/secret/metadata/a": true,
		"GET /v1/secret/data/a": false, "LIST /v1/secret/metadata/a": false, "POST /v1/secret/data/": false, "POST /v1/secret/other/a": false,
		"POST /v1/auth/token/create": true, "PUT /v1/auth/token/revoke-self": true, "POST /v1/auth/token/lookup": true, "GET /v1/auth/token/lookup-self": false,
		"PUT /v1/sys/policies/acl/app": true, "DELETE /v1/sys/policy/app": true, "POST /v1/sys/capabilities-self": true, "LIST /v1/sys/policies/acl": false,
		"POST /v1/sys/step-down": false, "POST /v1/sys/rotate": false, "POST /orders": false, "POST /v1/secret": false,
	} {
		method, path, _ := strings.Cut(request, " ")
		if got := Repeatable(httptest.NewRequest(method, path, nil)); got != want {
			t.Errorf("%s: %v", request, got)
		}
	}
	for method, want := range map[string]bool{"GET": true, "HEAD": true, "LIST": true, "OPTIONS": true, "POST": false, "PUT": false, "DELETE": false} {
		if Safe(httptest.NewRequest(method, "/", nil)) != want {
			t.Errorf("Safe(%s) is not %v", method, want)
		}
	}
}
