package api

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/locum-ha/locum/cache"
)

// endpoint is one path with the methods that it takes, for the walk over all of them.
type endpoint struct {
	path    string
	methods []string
	body    bool // a body is read, as JSON
	open    bool // no token is needed
	local   bool // answered by the node asked
}

var endpoints = []endpoint{
	{path: "sys/health", methods: []string{"GET", "HEAD"}, open: true, local: true},
	{path: "sys/live", methods: []string{"GET", "HEAD", "OPTIONS"}, open: true, local: true},
	{path: "sys/ready", methods: []string{"GET", "HEAD", "OPTIONS"}, open: true, local: true},
	{path: "sys/active", methods: []string{"GET", "HEAD", "OPTIONS"}, open: true, local: true},
	{path: "sys/standby", methods: []string{"GET", "HEAD", "OPTIONS"}, open: true, local: true},
	{path: "sys/leader", methods: []string{"GET", "HEAD"}, open: true, local: true},
	{path: "system/leader", methods: []string{"GET", "HEAD"}, open: true, local: true},
	{path: "sys/seal-status", methods: []string{"GET", "HEAD"}, open: true, local: true},
	{path: "sys/metrics", methods: []string{"GET", "HEAD"}, local: true},
	{path: "sys/init", methods: []string{"GET", "HEAD", "POST", "PUT"}, body: true, open: true, local: true},
	{path: "sys/unseal", methods: []string{"POST", "PUT"}, body: true, open: true, local: true},
	{path: "sys/storage/raft/join", methods: []string{"POST", "PUT"}, body: true, open: true, local: true},

	{path: "sys/seal", methods: []string{"POST", "PUT"}},
	{path: "sys/step-down", methods: []string{"POST", "PUT"}, body: true},
	{path: "sys/pause", methods: []string{"GET", "HEAD", "POST", "PUT"}, body: true},
	{path: "sys/resume", methods: []string{"POST", "PUT"}, body: true},
	{path: "sys/maintenance", methods: []string{"GET", "HEAD", "POST", "PUT"}, body: true},
	{path: "sys/ha-status", methods: []string{"GET", "HEAD"}},
	{path: "locks", methods: []string{"LIST"}},
	{path: "locks/report", methods: []string{"GET", "HEAD", "DELETE", "POST", "PUT"}, body: true},
	{path: "sys/history", methods: []string{"GET", "HEAD"}},
	{path: "sys/key-status", methods: []string{"GET", "HEAD"}},
	{path: "sys/rotate", methods: []string{"POST", "PUT"}},
	{path: "sys/rotate/keyring", methods: []string{"POST", "PUT"}},
	{path: "sys/storage/raft/configuration", methods: []string{"GET", "HEAD"}},
	{path: "sys/storage/raft/remove-peer", methods: []string{"POST", "PUT"}, body: true},
	{path: "sys/storage/raft/snapshot", methods: []string{"GET", "POST", "PUT"}},
	{path: "sys/storage/raft/snapshot-force", methods: []string{"POST", "PUT"}},
	{path: "sys/storage/raft/bootstrap/challenge", methods: []string{"POST", "PUT"}, body: true, open: true},
	{path: "sys/storage/raft/bootstrap/answer", methods: []string{"POST", "PUT"}, body: true, open: true},
	{path: "sys/internal/ui/mounts", methods: []string{"GET", "HEAD"}},
	{path: "sys/internal/ui/mounts/secret/app", methods: []string{"GET", "HEAD"}},

	{path: "auth/token/create", methods: []string{"POST", "PUT"}, body: true},
	{path: "auth/token/create-orphan", methods: []string{"POST", "PUT"}, body: true},
	{path: "auth/token/lookup", methods: []string{"POST", "PUT"}, body: true},
	{path: "auth/token/lookup-self", methods: []string{"GET", "HEAD", "POST", "PUT"}},
	{path: "auth/token/lookup-accessor", methods: []string{"POST", "PUT"}, body: true},
	{path: "auth/token/renew", methods: []string{"POST", "PUT"}, body: true},
	{path: "auth/token/renew-self", methods: []string{"POST", "PUT"}, body: true},
	{path: "auth/token/renew-accessor", methods: []string{"POST", "PUT"}, body: true},
	{path: "auth/token/revoke", methods: []string{"POST", "PUT"}, body: true},
	{path: "auth/token/revoke-self", methods: []string{"POST", "PUT"}, body: true},
	{path: "auth/token/revoke-accessor", methods: []string{"POST", "PUT"}, body: true},
	{path: "auth/token/revoke-orphan", methods: []string{"POST", "PUT"}, body: true},
	{path: "auth/token/accessors", methods: []string{"LIST"}},
	{path: "sys/policies/acl", methods: []string{"LIST"}},
	{path: "sys/policies/acl/app", methods: []string{"DELETE", "GET", "HEAD", "POST", "PUT"}, body: true},
	{path: "sys/policy", methods: []string{"GET", "HEAD", "LIST"}},
	{path: "sys/policy/app", methods: []string{"DELETE", "GET", "HEAD", "POST", "PUT"}, body: true},
	{path: "sys/capabilities", methods: []string{"POST", "PUT"}, body: true},
	{path: "sys/capabilities-self", methods: []string{"POST", "PUT"}, body: true},
	{path: "sys/capabilities-accessor", methods: []string{"POST", "PUT"}, body: true},

	{path: "sys/generate-root/attempt", methods: []string{"DELETE", "GET", "HEAD", "POST", "PUT"}, body: true, open: true},
	{path: "sys/generate-root/update", methods: []string{"POST", "PUT"}, body: true, open: true},
	{path: "sys/rekey/init", methods: []string{"DELETE", "GET", "HEAD", "POST", "PUT"}, body: true, open: true},
	{path: "sys/rekey/update", methods: []string{"POST", "PUT"}, body: true, open: true},
	{path: "sys/rekey/verify", methods: []string{"DELETE", "GET", "HEAD", "POST", "PUT"}, body: true, open: true},

	{path: "secret/data/app", methods: []string{"GET", "HEAD", "PATCH", "DELETE", "POST", "PUT"}, body: true},
	{path: "secret/metadata/app", methods: []string{"GET", "HEAD", "LIST", "PATCH", "DELETE", "POST", "PUT"}, body: true},
	{path: "secret/metadata", methods: []string{"LIST"}},
	{path: "secret/delete/app", methods: []string{"POST", "PUT"}, body: true},
	{path: "secret/undelete/app", methods: []string{"POST", "PUT"}, body: true},
	{path: "secret/destroy/app", methods: []string{"POST", "PUT"}, body: true},
	{path: "secret/subkeys/app", methods: []string{"GET", "HEAD"}},
	{path: "secret/config", methods: []string{"GET", "HEAD", "POST", "PUT"}, body: true},
}

// The walk leaves no route out, but those of the cache in memory, which is not there: TestWalkOfTheCache sees to them.
func TestWalkIsComplete(t *testing.T) {
	walked := map[string]bool{}
	for _, e := range endpoints {
		walked["/v1/"+e.path] = true
	}
	cfg := testConfig()
	cfg.Metrics = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	a := Active(&fakeService{}, &fakeKV{}, &fakeTokens{}, &fakeRaft{}, cfg).(*active)
	l := Local(&fakeNode{}, cfg, a).(*local)
	for _, routes := range []map[string]*route{a.routes, l.routes} {
		for path := range routes {
			if !walked[strings.TrimSuffix(path, "/")] && !strings.HasSuffix(path, "/cache") {
				t.Errorf("%s is not walked", path)
			}
		}
	}
	for _, below := range a.below {
		found := false
		for path := range walked {
			found = found || strings.HasPrefix(path, below.path)
		}
		if !found && below.path != cacheBase {
			t.Errorf("nothing below %s is walked", below.path)
		}
	}
}

var allMethods = []string{"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "LIST", "TRACE"}

// handlersFor makes the handler of an endpoint, with a small limit on bodies.
func handlersFor(t *testing.T, e endpoint) http.Handler {
	t.Helper()
	cfg := testConfig()
	cfg.MaxBody = 256
	cfg.Metrics = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	if !e.local {
		return Active(&fakeService{}, &fakeKV{}, &fakeTokens{}, &fakeRaft{}, cfg)
	}
	state := emptyStatus()
	if e.path == "sys/metrics" {
		state = standbyStatus() // a sealed node cannot tell one token from another
	}
	return Local(&fakeNode{status: state}, cfg, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Errorf("%s was passed on", e.path)
	}))
}

// Every route, asked in every wrong way, answers the right 4xx with a sentence, and does nothing.
func TestWalk(t *testing.T) {
	for _, e := range endpoints {
		h := handlersFor(t, e)
		path := "/v1/" + e.path
		for _, method := range allMethods {
			if slices.Contains(e.methods, method) {
				continue
			}
			w := call(h, method, path, "")
			if w.Code != http.StatusMethodNotAllowed || !strings.Contains(errorsOf(t, w).Errors[0], "is not allowed here: use one of") {
				t.Errorf("%s %s: %d %s", method, e.path, w.Code, w.Body)
			}
			allow := strings.Split(w.Header().Get("Allow"), ", ")
			if want := slices.Sorted(slices.Values(e.methods)); !slices.Equal(allow, want) {
				t.Errorf("%s %s: Allow %v, want %v", method, e.path, allow, want)
			}
		}
		last := e.methods[len(e.methods)-1]
		for token, hint := range map[string]string{"": "put one in the header X-Vault-Token", "stranger": "look at auth/token/lookup-self"} {
			r := httptest.NewRequest(last, path, strings.NewReader(`{`))
			r.Header.Set("X-Vault-Token", token)
			if e.open {
				continue
			}
			w := do(h, r)
			if b := errorsOf(t, w); w.Code != http.StatusForbidden || len(b.Errors) != 2 || b.Errors[0] != "permission denied" || !strings.Contains(b.Errors[1], hint) {
				t.Errorf("%s with the token %q: %d %s", e.path, token, w.Code, w.Body)
			}
		}
		if !e.body {
			continue
		}
		for body, want := range map[string]string{
			`{"key": `: "the body is not valid JSON: unexpected end of JSON input",
			`{"a":1]}`: "the body is not valid JSON: invalid character ']'",
			"\xff":     "the body is not valid JSON",
		} {
			w := call(h, last, path, body)
			if w.Code != http.StatusBadRequest || !strings.Contains(errorsOf(t, w).Errors[0], want) {
				t.Errorf("%s with %q: %d %s", e.path, body, w.Code, w.Body)
			}
		}
		long := `{"pad":"` + strings.Repeat("x", 300) + `"}`
		w := call(h, last, path, long)
		if w.Code != http.StatusRequestEntityTooLarge || !strings.Contains(errorsOf(t, w).Errors[0], "256 bytes") {
			t.Errorf("%s with a long body: %d %s", e.path, w.Code, w.Body)
		}
		r := request(last, path, "")
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(long)), -1 // chunked: nobody knows how long it is
		if w := do(h, r); w.Code != http.StatusRequestEntityTooLarge {
			t.Errorf("%s with a long chunked body: %d %s", e.path, w.Code, w.Body)
		}
		r = request(last, path, "")
		r.Body, r.ContentLength = io.NopCloser(iotest.ErrReader(io.ErrUnexpectedEOF)), -1
		if w := do(h, r); w.Code != http.StatusBadRequest || errorsOf(t, w).Processed != ProcessedNo {
			t.Errorf("%s with a body that breaks off: %d %s", e.path, w.Code, w.Body)
		}
	}
}

// The same for the routes of the cache, in a cluster and on a node that is a cache and nothing else. A value is any bytes: no body of the right
// length is malformed.
func TestWalkOfTheCache(t *testing.T) {
	cfg := testConfig()
	cfg.MaxBody = 256
	node, err := cache.New(cache.Config{}) // it does not run: a wrong request does not get as far
	if err != nil {
		t.Fatal(err)
	}
	cfg.Cache = node
	alone := CacheAlone(node, rootToken, func() bool { return false }, cfg)
	whole := Local(&fakeNode{status: activeStatus()}, cfg, Active(&fakeService{}, &fakeKV{}, &fakeTokens{}, nil, cfg))
	for name, h := range map[string]http.Handler{"in a cluster": whole, "alone": alone} {
		for _, e := range []endpoint{
			{path: "sys/cache", methods: []string{"GET", "HEAD"}, open: true},
			{path: "cache", methods: []string{"GET", "HEAD", "LIST"}},
			{path: "cache/codes/a", methods: []string{"GET", "HEAD", "LIST", "DELETE", "POST", "PUT"}, body: true},
		} {
			path := "/v1/" + e.path
			for _, method := range allMethods {
				if slices.Contains(e.methods, method) {
					continue
				}
				w := call(h, method, path, "")
				if w.Code != http.StatusMethodNotAllowed || !strings.Contains(errorsOf(t, w).Errors[0], "is not allowed here: use one of") {
					t.Errorf("%s: %s %s: %d %s", name, method, e.path, w.Code, w.Body)
				}
				allow := strings.Split(w.Header().Get("Allow"), ", ")
				if want := slices.Sorted(slices.Values(e.methods)); !slices.Equal(allow, want) {
					t.Errorf("%s: %s %s: Allow %v, want %v", name, method, e.path, allow, want)
				}
			}
			for _, token := range []string{"", "stranger"} {
				for _, method := range e.methods {
					if e.open || method == "HEAD" { // whose answer has no body
						continue
					}
					r := httptest.NewRequest(method, path, strings.NewReader("x"))
					r.Header.Set("X-Vault-Token", token)
					if w := do(h, r); w.Code != http.StatusForbidden || len(errorsOf(t, w).Errors) != 2 {
						t.Errorf("%s: %s %s with the token %q: %d %s", name, method, e.path, token, w.Code, w.Body)
					}
				}
			}
			if !e.body {
				continue
			}
			long := strings.Repeat("x", 300)
			w := call(h, "PUT", path, long)
			if w.Code != http.StatusRequestEntityTooLarge || !strings.Contains(errorsOf(t, w).Errors[0], "256 bytes") {
				t.Errorf("%s: %s with a long body: %d %s", name, e.path, w.Code, w.Body)
			}
			r := request("PUT", path, "")
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(long)), -1
			if w := do(h, r); w.Code != http.StatusRequestEntityTooLarge {
				t.Errorf("%s: %s with a long chunked body: %d %s", name, e.path, w.Code, w.Body)
			}
			r = request("PUT", path, "")
			r.Body, r.ContentLength = io.NopCloser(iotest.ErrReader(io.ErrUnexpectedEOF)), -1
			if w := do(h, r); w.Code != http.StatusBadRequest || errorsOf(t, w).Processed != ProcessedNo {
				t.Errorf("%s: %s with a body that breaks off: %d %s", name, e.path, w.Code, w.Body)
			}
		}
		for _, wrong := range []string{"PUT cache/codes", "PUT cache//a", "GET cache/codes/", "DELETE cache/", "LIST cache/codes?limit=x", "PUT cache/codes/a?ack=most"} {
			method, path, _ := strings.Cut(wrong, " ")
			if w := call(h, method, "/v1/"+path, ""); w.Code != http.StatusBadRequest {
				t.Errorf("%s: %s: %d %s", name, wrong, w.Code, w.Body)
			}
		}
	}
	for err, want := range map[error]int{cache.ErrTooLarge: 413, cache.ErrInvalid: 400, cache.ErrNotNumber: 400, cache.ErrOverflow: 400, cache.ErrNotFound: 404} {
		if answer, _ := answerTo(cacheAnswer(err)); answer == nil || answer.Status != want {
			t.Errorf("%v: %+v, want %d", err, answer, want)
		}
	}
}

// FuzzRequests: nothing that a client sends makes the api panic or answer 500.
func FuzzRequests(f *testing.F) {
	for _, e := range endpoints {
		f.Add(e.methods[0], "/v1/"+e.path, `{"data":{"a":1},"options":{"cas":"1"},"versions":"1,2","wait":"1s"}`)
	}
	f.Fuzz(func(t *testing.T, method, path, body string) {
		r, err := http.NewRequest(method, "http://localhost", strings.NewReader(body))
		if err != nil || method == "" {
			t.Skip("not a request")
		}
		r.URL.Path = path
		r.Header.Set("X-Vault-Token", rootToken)
		for _, e := range []endpoint{{local: true, path: path}, {}} {
			cfg := testConfig()
			var h http.Handler = Active(&fakeService{}, &fakeKV{}, &fakeTokens{}, &fakeRaft{}, cfg)
			if e.local {
				h = Local(&fakeNode{status: activeStatus()}, cfg, h)
			}
			if w := do(h, r.Clone(t.Context())); w.Code == http.StatusInternalServerError {
				t.Errorf("%s %s %s: %s", method, path, body, w.Body)
			}
		}
	})
}
