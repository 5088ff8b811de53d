package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/auth"
	"github.com/locum-ha/locum/cache"
	"github.com/locum-ha/locum/kv"
	"github.com/locum-ha/locum/lock"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/memory"
)

// plainEntries is a store without a barrier.
type plainEntries struct{ *memory.Handle }

func (p plainEntries) Commit(ctx context.Context, ops ...physical.Op) error {
	return p.Handle.Commit(ctx, nil, ops...)
}

// realService has real tokens and real locks; the rest of the node is made up.
type realService struct {
	fakeService
	tokens *auth.Store
	locks  *lock.Manager
}

func (s *realService) Locks() Locks { return s.locks }

func (s *realService) Authorize(ctx context.Context, token string, need Access) (*auth.Token, error) {
	return s.tokens.Authorize(ctx, auth.Secret(token), need, auth.Request{})
}

// realAPI is what a node serves, with entries, tokens, locks and a cache that work; TOKEN in a request stands for the root token.
func realAPI(t testing.TB, status Status, node *cache.Node) (h http.Handler, token string) {
	handle := memory.NewStore(memory.WithLimits(physical.Caps{MaxKey: 2 << 10, MaxValue: 64 << 10, MaxOps: 64, MaxCommit: 256 << 10})).Open()
	view := plainEntries{handle}
	key := bytes.Repeat([]byte{7}, 32)
	secret, ops, err := auth.NewRootToken(key, noon)
	if err == nil {
		err = view.Commit(context.Background(), ops...)
	}
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := auth.New(view, key, auth.Config{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig()
	cfg.RequestInfo = nil
	cfg.MaxBody, cfg.RateLimit, cfg.Cache = 64<<10, RateLimit{PerSecond: -1}, node
	cfg.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "a 1\n") })
	service := &realService{tokens: tokens, locks: lock.New(view, lock.Config{})}
	active := Active(service, kv.New(view), tokens, &fakeRaft{}, cfg)
	return Local(&fakeNode{status: status}, cfg, active), secret.Reveal()
}

// between separates the requests of one input.
const between = "\n====\n"

// FuzzAPI drives all handlers, through the node's own mux and net/http's parser, with what clients can send: several requests one
// after the other, so that the later ones meet what the earlier have left. Nothing panics; every answer is one that a client can read;
// nothing that a client says is the server's fault.
func FuzzAPI(f *testing.F) {
	bodies := []string{
		"", `{}`, `{"data":{"a":{"b":1}},"options":{"cas":0}}`, `{"max_versions":2,"cas_required":true,"custom_metadata":{"a":"b"},"delete_version_after":"1h"}`,
		`{"versions":[1,2]}`, `{"policy":"path \"secret/*\" { capabilities = [\"read\"] }"}`, `{"policies":["default"],"ttl":"1h","num_uses":2,"period":"1h"}`,
		`{"token":"TOKEN"}`, `{"paths":["secret/data/app"]}`, `{"holder":"me","secret":"0123456789abcdef","ttl":"1s"}`, `{"key":"abcd","nonce":"n-1"}`,
		`{"secret_shares":3,"secret_threshold":2}`, `{"leader_api_addr":"http://a:1","retry":true}`, `{"to":"node-b","wait":"1ms"}`, `{"value":"v","ttl":"1s"}`,
	}
	for _, e := range endpoints {
		for i, method := range e.methods {
			f.Add(byte(i), method+" /v1/"+e.path+" HTTP/1.1\r\nHost: a\r\nX-Vault-Token: TOKEN\r\n\r\n"+bodies[(len(e.path)+i)%len(bodies)])
		}
	}
	for line, body := range map[string]string{
		"PUT /v1/cache/codes/a?ttl=1s&ack=quorum": "1", "POST /v1/cache/hits/a?increment=1": "", "DELETE /v1/cache/codes/a?take": "", "DELETE /v1/cache/codes": "",
		"LIST /v1/cache/codes?after=a&limit=1": "", "GET /v1/cache/codes/a?consistent": "", "GET /v1/cache?list=true": "", "GET /v1/sys/cache": "",
	} {
		f.Add(byte(0), line+" HTTP/1.1\r\nHost: a\r\nX-Vault-Token: TOKEN\r\n\r\n"+body)
	}
	for _, body := range bodies {
		f.Add(byte(0), "POST /v1/secret/data/app?version=1&list=true HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer TOKEN\r\nContent-Type: application/merge-patch+json\r\n\r\n"+body+
			between+"PATCH /v1/secret/data/app HTTP/1.1\r\nHost: a\r\nX-Vault-Token: TOKEN\r\nContent-Type: application/merge-patch+json\r\n\r\n"+body+
			between+"LIST /v1/secret/metadata/?after=a&limit=1 HTTP/1.1\r\nHost: a\r\nX-Vault-Token: TOKEN\r\n\r\n")
	}
	node := fuzzCache(f)
	f.Fuzz(func(t *testing.T, state byte, input string) {
		status := []Status{activeStatus(), activeStatus(), standbyStatus(), leaderlessStatus(), sealedStatus(), emptyStatus()}[state%6]
		h, token := realAPI(t, status, node)
		for i, text := range strings.SplitN(input, between, 8) {
			fuzzOne(t, h, strings.ReplaceAll(text, "TOKEN", token), i)
		}
	})
}

func fuzzOne(t *testing.T, h http.Handler, text string, number int) {
	head, body, _ := strings.Cut(text, "\r\n\r\n")
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head + "\r\n\r\n")))
	if err != nil {
		return // net/http answers it
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond) // a lock can be waited for
	defer cancel()
	r = r.WithContext(ctx)
	r.Body, r.ContentLength, r.RemoteAddr = io.NopCloser(strings.NewReader(body)), int64(len(body)), "10.0.0.1:1"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	switch {
	case w.Code < 200 || w.Code > 599:
		t.Errorf("request %d: status %d", number, w.Code)
	case w.Code == http.StatusInternalServerError:
		t.Errorf("request %d is answered as the server's fault: %s", number, w.Body)
	case w.Code == http.StatusServiceUnavailable && w.Header().Get("Retry-After") == "":
		t.Errorf("request %d: 503 without Retry-After: %s", number, w.Body)
	case w.Body.Len() > 0 && strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") && !json.Valid(w.Body.Bytes()):
		t.Errorf("request %d: the answer is not JSON: %q", number, w.Body)
	case w.Code >= 400 && w.Code != http.StatusNotFound && r.Method != http.MethodHead && w.Body.Len() > 0 && !bytes.HasPrefix(w.Body.Bytes(), []byte("{")):
		t.Errorf("request %d: %d without a reason: %q", number, w.Code, w.Body)
	}
}

// fuzzCache is a cache of one host, for all inputs.
func fuzzCache(f *testing.F) *cache.Node {
	node, err := cache.New(cache.Config{})
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	f.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.Errorf("cache: %v", err)
		}
	})
	for health, changed := node.HealthChanges(); health.Status != cache.Good; health, changed = node.HealthChanges() {
		<-changed
	}
	return node
}
