package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(tidy{m}, map[string]func(){"locum": main})
}

// tidy removes what the tests built, after all of them.
type tidy struct{ *testing.M }

func (t tidy) Run() int {
	code := t.M.Run()
	if built.path != "" {
		if err := os.RemoveAll(filepath.Dir(built.path)); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	return code
}

// The scripts show what a user types and sees, against a fake of the API.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			fake := httptest.NewServer(&fakeAPI{entries: map[string][]map[string]any{}, cache: map[string]string{}})
			env.Defer(fake.Close)
			closed := httptest.NewServer(http.NotFoundHandler())
			closed.Close()
			env.Setenv("LOCUM_ADDR", fake.URL)
			env.Setenv("LOCUM_TOKEN", "root-token")
			env.Setenv("NOBODY", closed.URL)
			return nil
		},
	})
}

// fakeAPI answers as one node of a cluster does: sealed until it has been given two shares, standby after.
type fakeAPI struct {
	mu          sync.Mutex
	initialized bool
	shares      int
	entries     map[string][]map[string]any
	cache       map[string]string
	snapshot    string
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	var in map[string]any
	_ = json.Unmarshal(body, &in)
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	open := map[string]func(){
		"sys/seal-status": func() { f.sealStatus(w) },
		"sys/init": func() {
			f.initialized = true
			n := int(number(in["secret_shares"]))
			keys := make([]string, n)
			for i := range keys {
				keys[i] = "share" + strconv.Itoa(i+1)
			}
			reply(w, 200, map[string]any{"keys": keys, "keys_base64": keys, "root_token": "root-token"})
		},
		"sys/unseal": func() {
			key, _ := in["key"].(string)
			switch {
			case in["reset"] == true:
				f.shares = 0
			case !strings.HasPrefix(key, "share"):
				fail(w, 400, "'key' must be a valid hex or base64 string")
				return
			default:
				f.shares++
			}
			f.sealStatus(w)
		},
		"sys/leader": func() {
			reply(w, 200, map[string]any{"ha_enabled": true, "is_self": false, "leader_address": "http://10.0.0.1:8400",
				"leader_cluster_address": "https://10.0.0.1:8401", "term": 7, "leader_node": "node-a", "raft_applied_index": 12})
		},
		"sys/cache": func() {
			reply(w, 200, map[string]any{"status": "good", "state": "leader", "is_leader": true, "hosts": []string{"a", "b", "c"}, "connected": []string{"a", "b"},
				"quorum": 2, "hits": 3, "misses": 1, "caches": map[string]any{"default": map[string]any{"entries": 3, "max_entries": 1000}}})
		},
		"sys/storage/raft/join": func() { reply(w, 200, map[string]bool{"joined": in["leader_api_addr"] == "http://a:8400"}) },
	}
	if h := open[path]; h != nil {
		h()
		return
	}
	switch {
	case f.shares < 2:
		fail(w, 503, "node is sealed: unseal it (\"locum operator unseal\"), or send the request to another node", "no")
		return
	case r.Header.Get("X-Vault-Token") != "root-token":
		fail(w, 403, "permission denied")
		return
	}
	w.Header().Set("X-Locum-Node", "node-a")
	w.Header().Set("X-Locum-Term", "7")
	w.Header().Set("X-Locum-Forwarded-By", "node-b")
	f.active(w, r, path, in, body)
}

func (f *fakeAPI) active(w http.ResponseWriter, r *http.Request, path string, in map[string]any, body []byte) {
	const at = "2026-11-20T10:00:00Z"
	if strings.HasPrefix(path, "cache/") {
		f.cached(w, r, strings.TrimPrefix(path, "cache/"), body)
		return
	}
	switch path {
	case "sys/step-down":
		if in["wait"] == nil {
			w.WriteHeader(204)
			return
		}
		reply(w, 200, map[string]any{"node": "node-b", "leader_address": "http://10.0.0.2:8400", "term": 8})
	case "sys/seal", "sys/rotate", "sys/storage/raft/remove-peer":
		w.WriteHeader(204)
	case "sys/key-status":
		reply(w, 200, map[string]any{"term": 2, "install_time": at, "encryptions": 5})
	case "sys/ha-status":
		reply(w, 200, map[string]any{"nodes": []any{
			map[string]any{"hostname": "node-a", "api_address": "http://10.0.0.1:8400", "active_node": true, "term": 7, "priority": 100},
			map[string]any{"hostname": "node-b", "api_address": "http://10.0.0.2:8400", "last_echo": at, "term": 7, "reason": "another node holds the lock"},
		}})
	case "sys/history":
		reply(w, 200, map[string]any{"leaderships": []any{
			map[string]any{"term": 7, "node": "node-a", "from": at},
			map[string]any{"term": 6, "node": "node-b", "from": at, "to": "2026-11-20T10:05:00Z", "reason": "stepped down"},
		}})
	case "sys/storage/raft/configuration":
		reply(w, 200, map[string]any{"data": map[string]any{"config": map[string]any{"servers": []any{
			map[string]any{"node_id": "id-a", "name": "node-a", "address": "10.0.0.1:8401", "leader": true, "voter": true},
			map[string]any{"node_id": "id-b", "name": "node-b", "address": "10.0.0.2:8401"},
		}}}})
	case "sys/storage/raft/snapshot", "sys/storage/raft/snapshot-force":
		if r.Method == http.MethodGet {
			fmt.Fprint(w, "whole state "+f.snapshot)
			return
		}
		f.snapshot = string(body)
		w.WriteHeader(204)
	default:
		f.entry(w, r, path, in)
	}
}

// cached serves cache/default.
func (f *fakeAPI) cached(w http.ResponseWriter, r *http.Request, path string, body []byte) {
	value, there := f.cache[path]
	w.Header().Set("ETag", `"17"`)
	switch {
	case r.Method == http.MethodPut && r.Header.Get("If-None-Match") == "*" && there:
		fail(w, 412, "the condition is not met, and nothing was done: there is such an entry already", "no")
	case r.Method == http.MethodPut:
		f.cache[path] = string(body) + r.URL.RawQuery
		w.WriteHeader(204)
	case r.URL.Query().Has("list"):
		reply(w, 200, map[string]any{"data": map[string]any{"keys": []string{"a", "b"}}})
	case r.Method == http.MethodDelete && !r.URL.Query().Has("take"):
		w.WriteHeader(204)
	case !there:
		fail(w, 404, "no such entry")
	default:
		if r.Method == http.MethodDelete {
			delete(f.cache, path)
		}
		fmt.Fprint(w, value)
	}
}

// entry serves secret/data and secret/metadata.
func (f *fakeAPI) entry(w http.ResponseWriter, r *http.Request, path string, in map[string]any) {
	rest, _ := strings.CutPrefix(path, "secret/")
	kind, name, _ := strings.Cut(rest, "/")
	versions := f.entries[name]
	meta := func(n int) map[string]any {
		return map[string]any{"version": n, "created_time": "2026-11-20T10:00:00Z", "deletion_time": ""}
	}
	switch {
	case kind == "metadata":
		keys := []string{}
		for key := range f.entries {
			if rest, ok := strings.CutPrefix(key, name); ok {
				keys = append(keys, rest)
			}
		}
		if len(keys) == 0 {
			fail(w, 404)
			return
		}
		reply(w, 200, map[string]any{"data": map[string]any{"keys": keys}})
	case r.Method == http.MethodPost:
		options, _ := in["options"].(map[string]any)
		if cas, ok := options["cas"]; ok && int(number(cas)) != len(versions) {
			fail(w, 400, "check-and-set parameter did not match the current version")
			return
		}
		data, _ := in["data"].(map[string]any)
		f.entries[name] = append(versions, data)
		reply(w, 200, map[string]any{"data": meta(len(versions) + 1)})
	case r.Method == http.MethodDelete:
		delete(f.entries, name)
		w.WriteHeader(204)
	default:
		n := len(versions)
		if asked := r.URL.Query().Get("version"); asked != "" {
			n, _ = strconv.Atoi(asked)
		}
		if n < 1 || n > len(versions) {
			fail(w, 404)
			return
		}
		reply(w, 200, map[string]any{"data": map[string]any{"data": versions[n-1], "metadata": meta(n)}})
	}
}

func (f *fakeAPI) sealStatus(w http.ResponseWriter) {
	sealed := f.shares < 2
	reply(w, 200, map[string]any{"type": "shamir", "initialized": f.initialized, "sealed": sealed, "t": 2, "n": 3,
		"progress": f.shares % 2, "version": "1.2.3", "storage_type": "raft", "cluster_name": "test"})
}

func number(v any) float64 { n, _ := v.(float64); return n }

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}

// fail answers with an error: the first argument its text, the second what was processed.
func fail(w http.ResponseWriter, code int, said ...string) {
	body := map[string]any{"errors": said[:min(1, len(said))]}
	if len(said) > 1 {
		body["processed"] = said[1]
	}
	reply(w, code, body)
}

func TestDoubleDashes(t *testing.T) {
	got := strings.Join(doubleDashes([]string{"-config=x", "--config", "-h", "-", "-5", "x", "--", "-config"}), " ")
	if want := "--config=x --config -h - -5 x -- -config"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
