package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/locum-ha/locum/cache"
)

// cacheNode runs a cache of one host for as long as the test does.
func cacheNode(t *testing.T) *cache.Node {
	t.Helper()
	node, err := cache.New(cache.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("cache: %v", err)
		}
	})
	for health, changed := node.HealthChanges(); health.Status != cache.Good; health, changed = node.HealthChanges() {
		<-changed
	}
	return node
}

// cacheCall sends one request, with header fields in pairs.
func cacheCall(h http.Handler, method, path, body string, fields ...string) *httptest.ResponseRecorder {
	r := request(method, path, body)
	for i := 0; i < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	return do(h, r)
}

// TestCache: /v1/cache/{name}/{key} with ?ack, ?ttl, ?consistent, If-Match and If-None-Match (issue 6, 8).
func TestCache(t *testing.T) {
	cfg := testConfig()
	cfg.Cache = cacheNode(t)
	h := Active(&fakeService{}, &fakeKV{}, nil, nil, cfg)
	step := func(method, path, body string, code int, fields ...string) *httptest.ResponseRecorder {
		t.Helper()
		w := cacheCall(h, method, path, body, fields...)
		if w.Code != code {
			t.Fatalf("%s %s %q: %d, want %d: %s", method, path, fields, w.Code, code, w.Body)
		}
		return w
	}
	step("GET", "/v1/cache/codes/a", "", 404)
	w := step("PUT", "/v1/cache/codes/a", "one\x00\xff", 204)
	version := w.Header().Get("ETag")
	w = step("GET", "/v1/cache/codes/a", "", 200)
	if w.Body.String() != "one\x00\xff" || w.Header().Get("ETag") != version || version == "" || w.Header().Get(ttlHeader) != "" {
		t.Errorf("read %q, header %v", w.Body, w.Header())
	}
	step("GET", "/v1/cache/codes/a?consistent", "", 200)
	step("GET", "/v1/cache/codes/a", "", 304, "If-None-Match", version)
	step("HEAD", "/v1/cache/codes/a", "", 200)

	// Conditions.
	if got := step("PUT", "/v1/cache/codes/a", "x", 412, "If-None-Match", "*").Header().Get("ETag"); got != version {
		t.Errorf("the version of what stood in the way is %s, want %s", got, version)
	}
	step("PUT", "/v1/cache/codes/a", "two", 204, "If-Match", version)
	w = step("PUT", "/v1/cache/codes/a", "three", 412, "If-Match", version)
	if e := errorsOf(t, w); e.Processed != ProcessedNo {
		t.Errorf("processed %q of a condition that was not met", e.Processed)
	}
	step("PUT", "/v1/cache/codes/none", "x", 412, "If-Match", "*")
	step("PUT", "/v1/cache/codes/b", "x", 204, "If-None-Match", "*")
	step("PUT", "/v1/cache/codes/b", "x", 400, "If-None-Match", "*", "If-Match", "*")
	step("PUT", "/v1/cache/codes/b", "x", 400, "If-Match", `W/"1"`)
	step("DELETE", "/v1/cache/codes/b", "", 412, "If-Match", version)

	// Times and levels.
	step("PUT", "/v1/cache/codes/t?ttl=1h&ack=leader", "x", 204)
	if ttl := step("GET", "/v1/cache/codes/t", "", 200).Header().Get(ttlHeader); len(ttl) != 7 || !strings.HasPrefix(ttl, "3") {
		t.Errorf("an hour's TTL is shown as %q", ttl)
	}
	for _, bad := range []string{"?ttl=0", "?ttl=-1s", "?ttl=soon", "?ack=most", "?increment=x"} {
		step("PUT", "/v1/cache/codes/t"+bad, "", 400)
	}

	// Single use, counters, lists, clearing.
	if got := step("DELETE", "/v1/cache/codes/a?take", "", 200).Body.String(); got != "two" {
		t.Errorf("took %q", got)
	}
	step("DELETE", "/v1/cache/codes/a?take", "", 404)
	step("DELETE", "/v1/cache/codes/a", "", 204)
	step("POST", "/v1/cache/hits/ip/1?increment=5", "", 200)
	if got := step("POST", "/v1/cache/hits/ip/1?increment=-2", "", 200).Body.String(); !strings.Contains(got, `"value":3`) {
		t.Errorf("counter: %s", got)
	}
	step("POST", "/v1/cache/codes/b?increment=1", "", 400)
	step("PUT", "/v1/cache/hits/other", "1", 204)
	if got := step("LIST", "/v1/cache/hits/ip/", "", 200).Body.String(); !strings.Contains(got, `{"keys":["ip/1"]}`) {
		t.Errorf("list: %s", got)
	}
	if got := step("GET", "/v1/cache/hits?list=true&limit=1&after=ip/1", "", 200).Body.String(); !strings.Contains(got, `{"keys":["other"]}`) {
		t.Errorf("list: %s", got)
	}
	if got := step("LIST", "/v1/cache", "", 200).Body.String(); !strings.Contains(got, `["codes","hits"]`) {
		t.Errorf("caches: %s", got)
	}
	step("GET", "/v1/cache/hits", "", 400)
	step("DELETE", "/v1/cache/hits/", "", 400) // who meant a key, and had none
	step("GET", "/v1/cache/hits/other", "", 200)
	step("DELETE", "/v1/cache/hits", "", 204)
	step("GET", "/v1/cache/hits/other", "", 404)

	// Policies hold, and without a token nothing is told.
	if w := cacheCall(h, "GET", "/v1/cache/codes/b", "", "X-Vault-Token", "other"); w.Code != 403 {
		t.Errorf("with a foreign token: %d", w.Code)
	}
}

// TestCacheErrors: what was not done and what nobody knows can be told apart (issue 6, 3).
func TestCacheErrors(t *testing.T) {
	cfg := testConfig()
	node, err := cache.New(cache.Config{}) // it does not run
	if err != nil {
		t.Fatal(err)
	}
	cfg.Cache = node
	h := Active(&fakeService{}, &fakeKV{}, nil, nil, cfg)
	for _, method := range []string{"GET", "PUT", "DELETE", "LIST"} {
		w := cacheCall(h, method, "/v1/cache/codes/a", "")
		if e := errorsOf(t, w); w.Code != 503 || e.Processed != ProcessedNo || w.Header().Get("Retry-After") == "" {
			t.Errorf("%s: %d %+v", method, w.Code, e)
		}
	}
	if w := cacheCall(h, "LIST", "/v1/cache", ""); w.Code != 503 || errorsOf(t, w).Processed != ProcessedNo {
		t.Errorf("the names of caches without a quorum: %d %s", w.Code, w.Body)
	}
	for err, want := range map[error]string{cache.ErrUnknown: ProcessedUnknown, cache.ErrBusy: ProcessedNo, cache.ErrNotDone: ProcessedNo, cache.ErrNoQuorum: ProcessedNo} {
		answer, _ := answerTo(cacheAnswer(err))
		if answer == nil || answer.Status != 503 || answer.Processed != want {
			t.Errorf("%v: %+v", err, answer)
		}
	}
	local := Local(&fakeNode{status: activeStatus()}, cfg, nil)
	if w := call(local, "GET", "/v1/sys/cache", ""); w.Code != 503 || !strings.Contains(w.Body.String(), `"status":"bad"`) {
		t.Errorf("status of a stopped cache: %d %s", w.Code, w.Body)
	}
	cfg.Cache = nil
	if w := cacheCall(Active(&fakeService{}, &fakeKV{}, nil, nil, cfg), "GET", "/v1/cache/codes/a", ""); w.Code != 404 || !strings.Contains(w.Body.String(), "cache block") {
		t.Errorf("without a cache: %d %s", w.Code, w.Body)
	}
}
