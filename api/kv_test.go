package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/locum-ha/locum/kv"
	"github.com/locum-ha/locum/physical"
)

// fakeKV answers every call alike, and notes it.
type fakeKV struct {
	mu    sync.Mutex // over what the methods note
	err   error
	calls []string
	req   kv.Request
}

func (f *fakeKV) note(req *kv.Request, format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
	if req != nil {
		f.req = *req
	}
	return f.err
}

func aVersion() *kv.VersionMetadata {
	return &kv.VersionMetadata{Version: 3, CreatedTime: noon.Add(123456789), CustomMetadata: map[string]string{"owner": "ops"}}
}

func (f *fakeKV) Read(_ context.Context, path string, version uint64) (*kv.Secret, error) {
	return &kv.Secret{Data: kv.Object(`{"b": "<é>", "a":1.50}`), Metadata: *aVersion()}, f.note(nil, "Read %s %d", path, version)
}
func (f *fakeKV) Subkeys(_ context.Context, path string, version uint64, depth int) (*kv.Secret, error) {
	return &kv.Secret{Data: kv.Object(`{"a":null,"b":null}`), Metadata: *aVersion()}, f.note(nil, "Subkeys %s %d %d", path, version, depth)
}
func cas(o kv.WriteOptions) string {
	if o.CAS == nil {
		return "none"
	}
	return itoa(*o.CAS)
}
func (f *fakeKV) Write(_ context.Context, path string, data kv.Object, o kv.WriteOptions) (*kv.VersionMetadata, error) {
	return aVersion(), f.note(&o.Request, "Write %s %s cas=%s", path, data, cas(o))
}
func (f *fakeKV) Answered(_ context.Context, path string, req kv.Request) (bool, error) {
	return true, f.note(nil, "Answered %s %s", path, req.Slot)
}
func (f *fakeKV) Patch(_ context.Context, path string, patch kv.Object, o kv.WriteOptions) (*kv.VersionMetadata, error) {
	return aVersion(), f.note(&o.Request, "Patch %s %s cas=%s", path, patch, cas(o))
}
func (f *fakeKV) DeleteLatest(_ context.Context, path string, req kv.Request) error {
	return f.note(&req, "DeleteLatest %s", path)
}
func (f *fakeKV) Delete(_ context.Context, path string, versions []uint64, req kv.Request) error {
	return f.note(&req, "Delete %s %v", path, versions)
}
func (f *fakeKV) Undelete(_ context.Context, path string, versions []uint64, req kv.Request) error {
	return f.note(&req, "Undelete %s %v", path, versions)
}
func (f *fakeKV) Destroy(_ context.Context, path string, versions []uint64, req kv.Request) error {
	return f.note(&req, "Destroy %s %v", path, versions)
}
func (f *fakeKV) ReadMetadata(_ context.Context, path string) (*kv.Metadata, error) {
	return &kv.Metadata{
		CurrentVersion: 3, OldestVersion: 2, MaxVersions: 5, CASRequired: true, DeleteVersionAfter: 3 * time.Hour, CreatedTime: noon, UpdatedTime: noon.Add(time.Hour),
		Versions: []kv.VersionMetadata{{Version: 2, CreatedTime: noon, DeletionTime: noon.Add(time.Minute), Destroyed: true}, {Version: 3, CreatedTime: noon}},
	}, f.note(nil, "ReadMetadata %s", path)
}

func show[T any](p *T) string {
	if p == nil {
		return "-"
	}
	return fmt.Sprint(*p)
}
func (f *fakeKV) UpdateMetadata(_ context.Context, path string, u kv.MetadataUpdate, req kv.Request) error {
	return f.note(&req, "UpdateMetadata %s %s %s %s %v", path, show(u.MaxVersions), show(u.CASRequired), show(u.DeleteVersionAfter), u.CustomMetadata)
}
func (f *fakeKV) PatchMetadata(_ context.Context, path string, p kv.MetadataPatch, req kv.Request) error {
	return f.note(&req, "PatchMetadata %s %s %s %s %d custom, %s", path, show(p.MaxVersions), show(p.CASRequired), show(p.DeleteVersionAfter), len(p.CustomMetadata), show(p.CustomMetadata["a"]))
}
func (f *fakeKV) DeleteMetadata(_ context.Context, path string, req kv.Request) error {
	return f.note(&req, "DeleteMetadata %s", path)
}
func (f *fakeKV) List(_ context.Context, path, after string, limit int) ([]string, error) {
	err := f.note(nil, "List %s after=%s limit=%d", path, after, limit)
	if strings.HasPrefix(path, "empty") {
		return nil, err
	}
	return []string{"app", "app/"}, err
}
func (f *fakeKV) Config(context.Context) (kv.Config, error) {
	return kv.Config{MaxVersions: 4, DeleteVersionAfter: -time.Second}, f.note(nil, "Config")
}
func (f *fakeKV) UpdateConfig(_ context.Context, u kv.ConfigUpdate, req kv.Request) error {
	return f.note(&req, "UpdateConfig %s %s %s", show(u.MaxVersions), show(u.CASRequired), show(u.DeleteVersionAfter))
}

func newKV() (http.Handler, *fakeKV) {
	f := &fakeKV{}
	return Active(&fakeService{}, f, &fakeTokens{}, nil, testConfig()), f
}

// The shapes of Vault's KV version 2.
func TestKVGolden(t *testing.T) {
	h, f := newKV()
	for _, c := range []struct{ name, method, path, body string }{
		{"kv-read", "GET", "data/app/db", ""},
		{"kv-write", "POST", "data/app/db", `{"data":{"a":1}}`},
		{"kv-subkeys", "GET", "subkeys/app/db", ""},
		{"kv-metadata", "GET", "metadata/app/db", ""},
		{"kv-list", "LIST", "metadata/app", ""},
		{"kv-list-empty", "LIST", "metadata/empty/", ""},
		{"kv-config", "GET", "config", ""},
	} {
		golden(t, c.name, call(h, c.method, "/v1/secret/"+c.path, c.body))
	}
	f.err = &kv.DeletedError{Metadata: kv.VersionMetadata{Version: 3, CreatedTime: noon, DeletionTime: noon.Add(time.Minute)}}
	golden(t, "kv-read-deleted", call(h, "GET", "/v1/secret/data/app", ""))
	golden(t, "kv-subkeys-deleted", call(h, "GET", "/v1/secret/subkeys/app", ""))
	f.err = fmt.Errorf("reading: %w", kv.ErrNotFound)
	golden(t, "kv-read-missing", call(h, "GET", "/v1/secret/data/app", ""))
	golden(t, "kv-metadata-missing", call(h, "GET", "/v1/secret/metadata/app", ""))
	f.err = kv.ErrCASMismatch
	golden(t, "kv-write-cas", call(h, "POST", "/v1/secret/data/app", `{"data":{"a":1},"options":{"cas":7}}`))
	f.err = physical.ErrUnknown
	golden(t, "kv-write-unknown", call(h, "POST", "/v1/secret/data/app", `{"data":{"a":1}}`))
}

// What each request asks of the store, in all the ways that Vault's clients write it.
func TestKVCalls(t *testing.T) {
	h, f := newKV()
	for _, c := range []struct {
		request, body, want string
		code                int
	}{
		{"GET data/app", "", "Read app 0", 200},
		{"HEAD data/app", "", "Read app 0", 200},
		{"GET data/app/db%20x?version=2", "", "Read app/db x 2", 200},
		{"GET data/a%2Fb", "", "Read a/b 0", 200},
		{"GET subkeys/app?version=2&depth=1", "", "Subkeys app 2 1", 200},
		{"PUT data/app", `{"data": {"a": [1,2] }, "extra":1}`, `Write app {"a": [1,2] } cas=none`, 200},
		{"POST data/app", `{"options":{"cas":0},"data":{}}`, `Write app {} cas=0`, 200},
		{"POST data/app", `{"options":{"cas":"4"},"data":{"a":1}}`, `Write app {"a":1} cas=4`, 200},
		{"POST data/app", `{"options":null,"data":{"a":1}}`, `Write app {"a":1} cas=none`, 200},
		{"POST data/app", `{"options":{"cas":null},"data":{"a":1}}`, `Write app {"a":1} cas=none`, 200},
		{"PATCH data/app", `{"options":{"cas":2},"data":{"a":null}}`, `Patch app {"a":null} cas=2`, 200},
		{"DELETE data/app", "", "DeleteLatest app", 204},
		{"POST delete/app", `{"versions":[1,2]}`, "Delete app [1 2]", 204},
		{"PUT undelete/app", `{"versions":["1","2"]}`, "Undelete app [1 2]", 204},
		{"POST destroy/app/x", `{"versions":"1, 2"}`, "Destroy app/x [1 2]", 204},
		{"POST destroy/app", `{"versions":3}`, "Destroy app [3]", 204},
		{"GET metadata/app", "", "ReadMetadata app", 200},
		{"LIST metadata", "", "List  after= limit=0", 200},
		{"LIST metadata/", "", "List  after= limit=0", 200},
		{"GET metadata/?list=true", "", "List  after= limit=0", 200},
		{"GET metadata/app/?list=true&after=b&limit=10", "", "List app/ after=b limit=10", 200},
		{"POST metadata/app", `{"max_versions":"5","cas_required":"true","delete_version_after":"3h25m19s","custom_metadata":{"a":"b"}}`, "UpdateMetadata app 5 true 3h25m19s map[a:b]", 204},
		{"PUT metadata/app", `{"max_versions":0,"cas_required":false,"delete_version_after":90}`, "UpdateMetadata app 0 false 1m30s map[]", 204},
		{"POST metadata/app", "", "UpdateMetadata app - - - map[]", 204},
		{"PATCH metadata/app", `{"custom_metadata":{"a":"x","b":null}}`, "PatchMetadata app - - - 2 custom, x", 204},
		{"DELETE metadata/app", "", "DeleteMetadata app", 204},
		{"POST config", `{"max_versions":3,"delete_version_after":"-1s"}`, "UpdateConfig 3 - -1s", 204},
		{"GET config", "", "Config", 200},
	} {
		f.calls, f.req = nil, kv.Request{}
		method, path, _ := strings.Cut(c.request, " ")
		r := request(method, "/v1/secret/"+path, c.body)
		if method == "PATCH" {
			r.Header.Set("Content-Type", "application/merge-patch+json; charset=utf-8")
		}
		w := do(h, r)
		if w.Code != c.code || !cmp.Equal(f.calls, []string{c.want}) {
			t.Errorf("%s %s: %d %q, want %d %q: %s", c.request, c.body, w.Code, f.calls, c.code, c.want, w.Body)
		}
		// P6: the write carries the slot, under the key that no client chose.
		if want := (kv.Request{ID: "key-1", Slot: "id-a/1/1"}); Repeatable(r) && f.req != want {
			t.Errorf("%s: written for %+v", c.request, f.req)
		}
	}
}

func TestKVRefuses(t *testing.T) {
	h, f := newKV()
	for _, c := range []struct {
		request, body, want string
		code                int
	}{
		{"GET data/", "", "the path of an entry is missing", 400},
		{"GET data/app?version=two", "", "version must be a whole number", 400},
		{"GET data/app?version=-1", "", "version must be a whole number", 400},
		{"GET subkeys/app?depth=x", "", "depth must be a whole number", 400},
		{"LIST metadata/?limit=x", "", "limit must be a whole number", 400},
		{"POST data/app", `{"a":1}`, "no data provided", 400},
		{"POST data/app", `{"data":null}`, "no data provided", 400},
		{"POST data/app", ``, "the body is empty", 400},
		{"POST data/app", `{"data":{"a":1},"options":{"cas":"x"}}`, `a whole number is needed instead of`, 400},
		{"POST data/app", `{"data":{"a":1},"options":7}`, `the field \"options\" is a JSON number`, 400},
		{"POST data/app", `{"data":{"a":1}`, "not valid JSON", 400},
		{"PATCH data/app", `{"data":{"a":1}}`, "PATCH requires Content-Type of application/merge-patch+json", 415},
		{"PATCH metadata/app", `{}`, "PATCH requires Content-Type", 415},
		{"POST delete/app", `{}`, "No version number provided", 400},
		{"POST delete/app", `{"versions":[0]}`, "version numbers from 1 on", 400},
		{"POST delete/app", `{"versions":["a"]}`, "version numbers from 1 on", 400},
		{"POST destroy/app", `{"versions":{"a":1}}`, "version numbers from 1 on", 400},
		{"POST metadata/app", `{"delete_version_after":"soon"}`, "a duration such as", 400},
		{"POST metadata/app", `{"cas_required":"perhaps"}`, "true or false is needed", 400},
		{"POST metadata/app", `{"custom_metadata":{"a":1}}`, "custom_metadata", 400},
	} {
		method, path, _ := strings.Cut(c.request, " ")
		w := call(h, method, "/v1/secret/"+path, c.body)
		if body := errorsOf(t, w); w.Code != c.code || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s %s: %d %q", c.request, c.body, w.Code, body.Errors)
		}
	}
	if len(f.calls) > 0 {
		t.Errorf("carried out: %q", f.calls)
	}
}

func TestKVErrors(t *testing.T) {
	h, f := newKV()
	for _, c := range []struct {
		err  error
		code int
		want string
	}{
		{kv.ErrCASMismatch, 400, "check-and-set parameter did not match the current version"},
		{kv.ErrCASRequired, 400, "check-and-set parameter required for this call"},
		{&kv.InvalidError{Message: "cannot write to a path ending in '/'"}, 400, "cannot write to a path ending in '/'"},
		{&physical.TooLargeError{What: "data", Key: "app", Size: 2000, Limit: 1000}, 413, "the store's limit is 1000: store less there"},
		{&physical.TooLargeError{What: "path", Key: "app", Size: 2000, Limit: 1000}, 413, "use a shorter path"},
		{&physical.TooLargeError{What: "ops in a commit", Size: 2000, Limit: 1000}, 413, "fewer things"},
		{physical.ErrFenced, 503, `"processed":"no"`},
		{physical.ErrUnknown, 503, `"processed":"unknown"`},
		{physical.ErrUnavailable, 503, `"processed":"no"`},
		{kv.ErrDamaged, 500, "internal error"},
		{errors.New("secret detail"), 500, "internal error"},
	} {
		f.err = fmt.Errorf("writing: %w", c.err)
		w := call(h, "POST", "/v1/secret/data/app", `{"data":{"a":1}}`)
		errorsOf(t, w)
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.want) || strings.Contains(w.Body.String(), "secret detail") {
			t.Errorf("%v: %d %s", c.err, w.Code, w.Body)
		}
	}
}

// A request id that a client made up does not break the answer.
func TestRequestIDIsQuoted(t *testing.T) {
	cfg := testConfig()
	cfg.RequestInfo = func(context.Context) RequestInfo { return RequestInfo{ID: "a\"b\\c\x01é\xff"} }
	h := Active(&fakeService{}, &fakeKV{}, &fakeTokens{}, nil, cfg)
	for _, path := range []string{"/v1/secret/data/app", "/v1/sys/key-status"} {
		w := call(h, "GET", path, "")
		var body struct {
			RequestID string `json:"request_id"`
		}
		mustJSON(t, w.Body, &body)
		if body.RequestID != "a\"b\\c\x01é�" {
			t.Errorf("%s: %q", path, body.RequestID)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	h, f := newKV()
	r := request("GET", "/v1/secret/data/app/db", "")
	b.ReportAllocs()
	for b.Loop() {
		f.calls = f.calls[:0]
		h.ServeHTTP(discard{}, r)
	}
}

func BenchmarkWrite(b *testing.B) {
	h, f := newKV()
	body := `{"data":{"value":"` + strings.Repeat("x", 1024) + `"}}`
	r := request("POST", "/v1/secret/data/app/db", body)
	b.ReportAllocs()
	for b.Loop() {
		f.calls = f.calls[:0]
		r.Body = io.NopCloser(strings.NewReader(body))
		h.ServeHTTP(discard{}, r)
	}
}

// discard is a ResponseWriter that costs nothing.
type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(p []byte) (int, error) { return io.Discard.Write(p) }
func (discard) WriteHeader(int)             {}
