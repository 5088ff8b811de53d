package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func newClient(t *testing.T, address string, change ...func(*Config)) *Client {
	t.Helper()
	cfg := Config{Address: address, Token: "s3cret", MaxWait: 2 * time.Second}
	for _, f := range change {
		f(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func answer(w http.ResponseWriter, code int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, body)
}

func TestRequestsAreWhatTheAPIExpects(t *testing.T) {
	var got []string
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = append(got, fmt.Sprintf("%s %s %s", r.Method, r.URL.RequestURI(), body))
		if r.Header.Get("X-Vault-Token") != "s3cret" {
			t.Errorf("%s without its token", r.URL)
		}
		w.Header().Set("X-Locum-Node", "node-2")
		w.Header().Set("X-Locum-Term", "7")
		answer(w, 200, `{"data":{"keys":["a","b/"],"data":{"x":1},"metadata":{"version":3},"version":4},"joined":true}`)
	})
	c := newClient(t, s.URL+"/prefix/")
	ctx := t.Context()
	cas := uint64(0)
	_, meta, err := c.KV().Put(ctx, "app/ä b?c%", map[string]any{"x": 1}, &cas)
	if err != nil || meta.Node != "node-2" || meta.Term != 7 {
		t.Errorf("put: %+v, %v", meta, err)
	}
	e, _, err := c.KV().Get(ctx, "/app/../x", 3)
	if err != nil || e.Metadata.Version != 3 || fmt.Sprint(e.Data) != "map[x:1]" {
		t.Errorf("get: %+v, %v", e, err)
	}
	keys, _, err := c.KV().List(ctx, "app")
	if err != nil || len(keys) != 2 {
		t.Errorf("list: %v, %v", keys, err)
	}
	_, _ = c.KV().Delete(ctx, "app")
	_, _ = c.KV().Delete(ctx, "app", 1, 2)
	_, _ = c.StepDown(ctx, "node-b", 30*time.Second)
	_, _ = c.Raft().Join(ctx, JoinRequest{LeaderAPIAddr: "http://a:1", ClientKey: "PEM"})
	_ = c.Raft().Restore(ctx, strings.NewReader("snap"), true)
	want := []string{
		`POST /prefix/v1/secret/data/app/%C3%A4%20b%3Fc%25 {"data":{"x":1},"options":{"cas":0}}`,
		`GET /prefix/v1/secret/data/app/../x?version=3 `,
		`GET /prefix/v1/secret/metadata/app/?list=true `,
		`DELETE /prefix/v1/secret/data/app `,
		`POST /prefix/v1/secret/delete/app {"versions":[1,2]}`,
		`PUT /prefix/v1/sys/step-down {"to":"node-b","wait":"30s"}`,
		`POST /prefix/v1/sys/storage/raft/join {"leader_api_addr":"http://a:1","leader_client_key":"PEM"}`,
		`POST /prefix/v1/sys/storage/raft/snapshot-force snap`,
	}
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Errorf("request %d:\n got %q\nwant %q", i, got, want[i])
			break
		}
	}
}

func TestErrorsHaveTheirMeaning(t *testing.T) {
	cases := []struct {
		code int
		body string
		is   error
		text string
	}{
		{404, `{"errors":[]}`, ErrNotFound, "Not Found (HTTP 404 to DELETE /v1/secret/data/x)"},
		{403, `{"errors":["permission denied","no token"]}`, ErrDenied, "permission denied; no token (HTTP 403"},
		{503, `{"errors":["may have been"],"processed":"unknown","request_id":"r1"}`, ErrUnknown, "request r1"},
		{503, `{"errors":["sealed"]}`, ErrUnavailable, "sealed (HTTP 503"},
		{502, "<html>bad gateway</html>", nil, "Bad Gateway (HTTP 502"},
		{400, "plain text", nil, "plain text (HTTP 400"},
	}
	for _, tc := range cases {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, tc.code, tc.body) })
		_, err := newClient(t, s.URL).KV().Delete(t.Context(), "x")
		var e *Error
		if !errors.As(err, &e) || e.Status != tc.code || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%d %s: %v", tc.code, tc.body, err)
		}
		if tc.is != nil && !errors.Is(err, tc.is) {
			t.Errorf("%d is not %v", tc.code, tc.is)
		}
		if errors.Is(err, ErrUnknown) && errors.Is(err, ErrUnavailable) {
			t.Errorf("%d is both unknown and certain", tc.code)
		}
	}
}

// P6: only what was certainly not carried out, or changes nothing, is sent again.
func TestRepeats(t *testing.T) {
	cases := []struct {
		method, body string
		code, want   int
	}{
		{"POST", `{"errors":["x"],"processed":"no"}`, 503, 3},
		{"POST", `{"errors":["x"],"processed":"unknown"}`, 503, 1},
		{"POST", `{"errors":["x"]}`, 503, 1},
		{"PUT", `{"errors":["x"]}`, 502, 1},
		{"DELETE", `{"errors":["x"]}`, 504, 1},
		{"GET", `{"errors":["x"]}`, 503, 3},
		{"GET", `{"errors":["x"],"processed":"unknown"}`, 503, 3},
		{"GET", `{"errors":["x"]}`, 502, 3},
		{"GET", `{"errors":["x"]}`, 500, 1},
		{"GET", `{"errors":["x"]}`, 404, 1},
	}
	for _, tc := range cases {
		var n atomic.Int32
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			n.Add(1)
			answer(w, tc.code, tc.body)
		})
		if _, err := newClient(t, s.URL).Do(t.Context(), tc.method, "/x", map[string]int{"a": 1}, nil); err == nil {
			t.Error("no error")
		}
		if int(n.Load()) != tc.want {
			t.Errorf("%s answered %d %s was sent %d times, want %d", tc.method, tc.code, tc.body, n.Load(), tc.want)
		}
	}
}

// P6: a connection that breaks after a write was sent leaves the outcome unknown, and nothing is repeated.
func TestBrokenConnection(t *testing.T) {
	var n atomic.Int32
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		_, _ = io.ReadAll(r.Body)
		panic(http.ErrAbortHandler)
	})
	c := newClient(t, s.URL)
	_, err := c.Do(t.Context(), "POST", "/x", map[string]int{}, nil)
	if !errors.Is(err, ErrUnknown) || n.Load() != 1 {
		t.Errorf("%v after %d requests", err, n.Load())
	}
	n.Store(0)
	if _, err = c.Do(t.Context(), "GET", "/x", nil, nil); err == nil || n.Load() < 3 {
		t.Errorf("GET: %v after %d requests", err, n.Load())
	}
}

func TestUnreachable(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	ln.Close()
	c := newClient(t, "http://"+address)
	_, err = c.Do(t.Context(), "POST", "/x", nil, nil)
	if !errors.Is(err, ErrUnreachable) || errors.Is(err, ErrUnknown) {
		t.Errorf("nobody listens: %v", err)
	}
	// A node that comes back in between is reached, also by a write.
	back := make(chan *http.Server, 1)
	go func() {
		defer close(back)
		ln, err := net.Listen("tcp", address)
		if err != nil {
			return
		}
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, `{}`) })}
		back <- s
		_ = s.Serve(ln)
	}()
	if _, err := c.Do(t.Context(), "POST", "/x", nil, nil); err != nil {
		t.Error(err)
	}
	if s := <-back; s != nil {
		s.Close()
	}
}

func TestRetryAfterIsKept(t *testing.T) {
	var times []time.Time
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		times = append(times, time.Now())
		if len(times) == 1 {
			w.Header().Set("Retry-After", "1")
			answer(w, 503, `{"errors":["later"],"processed":"no"}`)
			return
		}
		answer(w, 204, "")
	})
	if err := newClient(t, s.URL).Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if gap := times[1].Sub(times[0]); gap < 900*time.Millisecond {
		t.Errorf("repeated after %s", gap)
	}
	// Longer than the caller is willing to wait: the error, at once.
	long := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3600")
		answer(w, 503, `{"errors":["later"],"processed":"no"}`)
	})
	var e *Error
	if err := newClient(t, long.URL).Rotate(t.Context()); !errors.As(err, &e) || e.RetryAfter != time.Hour {
		t.Errorf("%v", err)
	}
	now := time.Now()
	if d := retryAfter(now.Add(time.Minute).UTC().Format(http.TimeFormat), now); d < 58*time.Second || d > time.Minute {
		t.Errorf("a date: %s", d)
	}
}

// A redirect keeps method, body and token; a loop ends.
func TestRedirects(t *testing.T) {
	active := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method != "POST" || string(body) != `{"data":{"a":"b"}}` || r.Header.Get("X-Vault-Token") != "s3cret" {
			t.Errorf("after the redirect: %s %s token %q", r.Method, body, r.Header.Get("X-Vault-Token"))
		}
		answer(w, 200, `{"data":{"version":1}}`)
	})
	standby := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, active.URL+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	})
	v, _, err := newClient(t, standby.URL).KV().Put(t.Context(), "x", map[string]any{"a": "b"}, nil)
	if err != nil || v.Version != 1 {
		t.Errorf("%+v, %v", v, err)
	}
	var n atomic.Int32
	var loop *httptest.Server
	loop = serve(t, func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		http.Redirect(w, r, loop.URL+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	})
	if _, err := newClient(t, loop.URL).KV().Delete(t.Context(), "x"); !errors.Is(err, ErrRedirect) || n.Load() > 6 {
		t.Errorf("loop: %v after %d", err, n.Load())
	}
	moved := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, active.URL, http.StatusFound) })
	if _, err := newClient(t, moved.URL).KV().Delete(t.Context(), "x"); !errors.Is(err, ErrRedirect) {
		t.Errorf("302: %v", err)
	}
	// What streams cannot be sent twice: the error says where to go.
	if err := newClient(t, standby.URL).Raft().Restore(t.Context(), strings.NewReader("snap"), false); !errors.Is(err, ErrRedirect) || !strings.Contains(err.Error(), active.URL) {
		t.Errorf("restore: %v", err)
	}
}

// The token never leaves TLS.
func TestNoRedirectFromHTTPSToHTTP(t *testing.T) {
	plain := serve(t, func(w http.ResponseWriter, _ *http.Request) { t.Error("the plain server was asked") })
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, plain.URL+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	}))
	defer secure.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pemOf(secure), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, secure.URL, func(cfg *Config) { cfg.CACert = ca })
	if _, err := c.KV().Delete(t.Context(), "x"); !errors.Is(err, ErrRedirect) {
		t.Errorf("%v", err)
	}
	if _, err := newClient(t, secure.URL).KV().Delete(t.Context(), "x"); !errors.Is(err, ErrUnreachable) {
		t.Errorf("an unknown authority: %v", err)
	}
}

func TestHealthAndDeletedEntries(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/sys/health" {
			answer(w, 503, `{"initialized":true,"sealed":true}`)
			return
		}
		answer(w, 404, `{"data":{"data":null,"metadata":{"version":2,"deletion_time":"2026-01-01T00:00:00Z"}}}`)
	})
	c := newClient(t, s.URL)
	if h, err := c.Health(t.Context()); err != nil || h.Code != 503 || !h.Sealed {
		t.Errorf("%+v, %v", h, err)
	}
	e, _, err := c.KV().Get(t.Context(), "x", 0)
	if !errors.Is(err, ErrNotFound) || e.Metadata.Version != 2 || e.Data != nil {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestSnapshotStreams(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("x") {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Length", "10")
		_, _ = w.Write([]byte("01234"))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	var b bytes.Buffer
	if err := newClient(t, s.URL).Raft().Snapshot(t.Context(), &b); err == nil || b.String() != "01234" {
		t.Errorf("half a snapshot passed for whole: %v, %q", err, b.String())
	}
}

func TestConfig(t *testing.T) {
	env := map[string]string{"VAULT_ADDR": "http://v:1", "VAULT_TOKEN": "vt", "LOCUM_TOKEN": "lt", "LOCUM_ADDR": "", "VAULT_SKIP_VERIFY": "maybe"}
	cfg := FromEnv(func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	if cfg.Address != "http://v:1" || cfg.Token != "lt" || cfg.SkipVerify {
		t.Errorf("%+v", cfg)
	}
	for _, bad := range []Config{{Address: "a:1"}, {Address: "ftp://a"}, {Address: "http://u:p@a"}, {ClientCert: "x"}, {CACert: "/nowhere"}} {
		if _, err := New(bad); err == nil || strings.Contains(err.Error(), "u:p") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	out := fmt.Sprintf("%v %+v %#v %s %x %d", cfg, cfg, cfg, cfg.Token, cfg.Token, cfg.Token)
	asJSON, err := json.Marshal(cfg)
	if err != nil || strings.Contains(out+string(asJSON), "lt") {
		t.Errorf("the token shows: %s %s %v", out, asJSON, err)
	}
	if out := fmt.Sprintf("%v %+v %#v", InitResponse{RootToken: "rt"}, InitResponse{RootToken: "rt"}, InitResponse{RootToken: "rt"}); strings.Contains(out, "rt") {
		t.Error(out)
	}
}

func TestCancellation(t *testing.T) {
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := newClient(t, s.URL).Do(ctx, "GET", "/x", nil, nil)
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > time.Second {
		t.Errorf("%v after %s", err, time.Since(start))
	}
}
