package api

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/locum-ha/locum/cache"
)

// TestCacheOnly: a node that is a cache and nothing else answers probes to everybody, and gives entries to who has its token (issue 6, 9
// and 10).
func TestCacheOnly(t *testing.T) {
	var stopping atomic.Bool
	stopped, err := cache.New(cache.Config{}) // it does not run
	if err != nil {
		t.Fatal(err)
	}
	serves := CacheAlone(cacheNode(t), "the token", stopping.Load, testConfig())
	refuses := CacheAlone(stopped, "the token", stopping.Load, testConfig())
	closed := CacheAlone(cacheNode(t), "", stopping.Load, testConfig())
	check := func(what string, h http.Handler, method, path, token string, code int, says string) {
		t.Helper()
		if w := cacheCall(h, method, path, "", "X-Vault-Token", token); w.Code != code || !strings.Contains(w.Body.String(), says) {
			t.Errorf("%s: %s %s: %d %s, want %d %q", what, method, path, w.Code, w.Body, code, says)
		}
	}
	for path, code := range map[string]int{"live": 200, "ready": 200, "active": 200, "standby": 503, "health": 200, "cache": 200} {
		check("serving", serves, "GET", "/v1/sys/"+path, "", code, `"status":"good"`)
	}
	for path, code := range map[string]int{"live": 200, "ready": 503, "active": 503, "standby": 503, "health": 503, "cache": 503} {
		check("without quorum", refuses, "GET", "/v1/sys/"+path, "", code, `"status":"bad"`)
	}
	check("with the token", serves, "PUT", "/v1/cache/codes/a", "the token", 204, "")
	check("with the token", serves, "GET", "/v1/cache/codes/a", "the token", 200, "")
	check("with another", serves, "GET", "/v1/cache/codes/a", "the toke", 403, "")
	check("without", serves, "GET", "/v1/cache/codes/a", "", 403, "")
	check("without", serves, "LIST", "/v1/cache", "", 403, "")
	check("no such path", serves, "GET", "/v1/secret/data/x", "the token", 404, "a cache and nothing else")
	check("closed", closed, "GET", "/v1/cache/codes/a", "", 403, "CACHE_API_TOKEN")
	stopping.Store(true)
	check("shutting down", serves, "GET", "/v1/sys/ready", "", 503, "shutting down")
	check("shutting down", serves, "GET", "/v1/sys/live", "", 200, "")
}
