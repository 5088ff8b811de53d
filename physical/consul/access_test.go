package consul_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/consul"
)

// "Consul: … ACL token, TLS": a token with the rights that docs/stores/consul.md names is enough, over TLS; what is refused
// is said, and never the token.
func TestAccess(t *testing.T) {
	pki := storeserver.NewCertificates(t)
	server := storeserver.StartConsul(t, map[string]any{
		"acl": storeserver.ConsulAccess(),
		"tls": map[string]any{"https": map[string]any{"ca_file": pki.CA, "cert_file": pki.ServerCert, "key_file": pki.ServerKey, "verify_incoming": true}},
	})
	policy := func(name, rules string) physical.Secret {
		t.Helper()
		ask(t, server.Addr, "/v1/acl/policy", map[string]any{"Name": name, "Rules": rules})
		return physical.Secret(ask(t, server.Addr, "/v1/acl/token", map[string]any{"Policies": []map[string]string{{"Name": name}}})["SecretID"].(string))
	}
	full := policy("full", `key_prefix "orders/" { policy = "write" } session_prefix "" { policy = "write" }`)
	noSession := policy("no-session", `key_prefix "orders/" { policy = "write" }`)
	readOnly := policy("read-only", `key_prefix "orders/" { policy = "read" }`)
	readKeys := policy("read-keys", `key_prefix "orders/" { policy = "read" } session_prefix "" { policy = "write" }`)
	good := consul.Config{
		Address: "https://" + server.TLSAddr, Path: "orders", Token: full,
		TLS: physical.ClientTLS{CAFile: pki.CA, CertFile: pki.ClientCert, KeyFile: pki.ClientKey},
	}
	open := func(change func(*consul.Config)) (*consul.Store, error) {
		c := good
		change(&c)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		return consul.Open(ctx, c)
	}
	store, err := open(func(*consul.Config) {})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.Commit(t.Context(), nil, physical.Put("a", nil)); err != nil {
		t.Errorf("commit: %v", err)
	}
	g, err := store.Acquire(t.Context(), physical.Record{Holder: "a"}, 5*time.Second, 0)
	if err != nil || g.TTL != 10*time.Second {
		t.Fatalf("acquire: %+v, %v; want Consul's least TTL", g, err)
	}
	if g, err = store.Renew(t.Context(), g); err != nil {
		t.Errorf("renew: %v", err)
	}
	if err := store.Release(t.Context(), g, ""); err != nil {
		t.Errorf("release: %v", err)
	}
	for what, c := range map[string]struct {
		change func(*consul.Config)
		want   string
	}{
		"no token":             {func(c *consul.Config) { c.Token = "" }, "ermission denied"},
		"a wrong token":        {func(c *consul.Config) { c.Token = "secret-token" }, "ACL not found"},
		"another's path":       {func(c *consul.Config) { c.Path = "others" }, "ermission denied"},
		"no certificate":       {func(c *consul.Config) { c.TLS.CertFile, c.TLS.KeyFile = "", "" }, "certificate"},
		"an unknown authority": {func(c *consul.Config) { c.TLS.CAFile = "" }, "unknown authority"},
		"nobody there":         {func(c *consul.Config) { c.Address = "https://127.0.0.1:1" }, "refused"},
	} {
		other, err := open(c.change)
		if err == nil {
			_ = other.Close()
			t.Errorf("%s: opened", what)
		} else if !errors.Is(err, physical.ErrUnavailable) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret-token") {
			t.Errorf("%s: %v, want %q in it", what, err, c.want)
		}
	}
	held, err := store.Acquire(t.Context(), physical.Record{Holder: "a"}, 10*time.Second, 0)
	if err != nil {
		t.Fatal(err)
	}
	// With the fence raised too: a transaction that is denied is not one that lost.
	for _, fence := range []physical.Fence{{}, {Lineage: "l", Term: 1}} {
		if !fence.IsZero() {
			if err := store.RaiseFence(t.Context(), physical.Fence{}, fence); err != nil {
				t.Fatal(err)
			}
		}
		for what, token := range map[string]physical.Secret{"no right to sessions": noSession, "no right to keys or sessions": readOnly, "no right to keys": readKeys} {
			limited, err := open(func(c *consul.Config) { c.Token = token })
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			refused := func(call string, err error) {
				t.Helper()
				if !errors.Is(err, physical.ErrUnavailable) || !strings.Contains(err.Error(), "session:write") || !strings.Contains(err.Error(), "key:write") {
					t.Errorf("%s: %s: %v", what, call, err)
				}
			}
			if token != noSession {
				refused("commit", limited.Commit(t.Context(), with(fence), physical.Put("b", nil)))
				refused("raise", limited.RaiseFence(t.Context(), fence, physical.Fence{Lineage: "l", Term: 2}))
				refused("release", limited.Release(t.Context(), held, ""))
			}
			if fence.IsZero() {
				_ = limited.Close()
				continue
			}
			if err := store.Release(t.Context(), held, ""); err != nil {
				t.Fatal(err)
			}
			_, err = limited.Acquire(t.Context(), physical.Record{Holder: "a"}, 10*time.Second, 0)
			refused("acquire", err)
			_ = limited.Close()
		}
	}
}

// A token that is revoked, or has run out, costs no lock: the error names the right, and the next token in its file is used.
func TestTokenReplaced(t *testing.T) {
	server := storeserver.StartConsul(t, map[string]any{"acl": storeserver.ConsulAccess()})
	ask(t, server.Addr, "/v1/acl/policy", map[string]any{"Name": "full", "Rules": `key_prefix "orders/" { policy = "write" } session_prefix "" { policy = "write" }`})
	token := func() (secret, accessor string) {
		made := ask(t, server.Addr, "/v1/acl/token", map[string]any{"Policies": []map[string]string{{"Name": "full"}}})
		return made["SecretID"].(string), made["AccessorID"].(string)
	}
	file := filepath.Join(t.TempDir(), "token")
	write := func(secret string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first, accessor := token()
	write(first)
	store, err := consul.Open(t.Context(), consul.Config{Address: server.Addr, Path: "orders", TokenFile: file})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	g, err := store.Acquire(t.Context(), physical.Record{Holder: "a"}, time.Minute, 0)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodDelete, "http://"+server.Addr+"/v1/acl/token/"+accessor, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Consul-Token", storeserver.ConsulRoot)
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("revoke: %v, %v", resp, err)
	}
	_ = resp.Body.Close()
	_, err = store.Renew(t.Context(), g)
	if !errors.Is(err, physical.ErrUnavailable) || errors.Is(err, physical.ErrLost) || !strings.Contains(err.Error(), "session:write") {
		t.Errorf("renewal with a token that was revoked: %v", err)
	}
	second, _ := token()
	write(second)
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(30 * time.Second); err != nil; <-ticker.C {
		if _, err = store.Renew(t.Context(), g); err != nil && time.Now().After(deadline) {
			t.Fatalf("renewal with the next token: %v", err)
		}
	}
	if _, err := consul.Open(t.Context(), consul.Config{Address: server.Addr, TokenFile: file + "s"}); err == nil || !strings.Contains(err.Error(), "file with the token") {
		t.Errorf("no such file: %v", err)
	}
}

// P2: a session ends with its node, before its TTL: an agent in client mode that is stopped deregisters its node. With session_node
// the lock is another node's.
func TestNodeLeaves(t *testing.T) {
	server := storeserver.StartConsul(t, nil)
	ask(t, server.Addr, "/v1/catalog/register", map[string]any{"Node": "lasting", "Address": "192.0.2.1"})
	win := func(path, node string) (*consul.Store, physical.Grant) {
		t.Helper()
		store, err := consul.Open(t.Context(), consul.Config{Address: server.Addr, Path: path, SessionNode: node})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = store.Close() })
		g, err := store.Acquire(t.Context(), physical.Record{Holder: "a"}, time.Minute, 0)
		if err != nil {
			t.Fatal(err)
		}
		return store, g
	}
	usual, ofAgent := win("usual", "")
	lasting, ofNode := win("lasting", "lasting")
	ask(t, server.Addr, "/v1/catalog/deregister", map[string]any{"Node": "test"})
	if _, err := usual.Renew(t.Context(), ofAgent); !errors.Is(err, physical.ErrLost) {
		t.Errorf("docs/stores/consul.md says that a session ends with its agent's node: %v", err)
	}
	if _, err := lasting.Renew(t.Context(), ofNode); err != nil {
		t.Errorf("the session of another node: %v", err)
	}
	nowhere, err := consul.Open(t.Context(), consul.Config{Address: server.Addr, Path: "nowhere", SessionNode: "nowhere"})
	if err != nil {
		t.Fatal(err)
	}
	defer nowhere.Close()
	if _, err := nowhere.Acquire(t.Context(), physical.Record{Holder: "a"}, time.Minute, 0); err == nil || !strings.Contains(err.Error(), `"nowhere"`) || !strings.Contains(err.Error(), "session_node") {
		t.Errorf("a node that is not there: %v", err)
	}
}

// with is a fence as Commit takes it.
func with(f physical.Fence) *physical.Fence {
	if f.IsZero() {
		return nil
	}
	return &f
}

// ask makes a request with the token that may do everything.
func ask(t *testing.T, addr, path string, body any) map[string]any {
	t.Helper()
	encoded, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPut, "http://"+addr+path, bytes.NewReader(encoded))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Consul-Token", storeserver.ConsulRoot)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	var answer map[string]any
	if err == nil && resp.StatusCode == http.StatusOK && string(bytes.TrimSpace(text)) == "true" {
		return nil
	}
	if err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal(text, &answer) != nil {
		t.Fatalf("%s: %s: %s", path, resp.Status, text)
	}
	return answer
}

// All faults of a configuration are named at once, without I/O.
func TestValidate(t *testing.T) {
	err := consul.Config{Address: "ftp://a", Path: "a//b%"}.Validate()
	for _, want := range []string{`address "ftp://a"`, `path "a//b%/"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	if err := (consul.Config{Address: "127.0.0.1:1", TLS: physical.ClientTLS{ServerName: "x"}}).Validate(); err == nil || !strings.Contains(err.Error(), "no effect") {
		t.Errorf("TLS settings without TLS: %v", err)
	}
	for _, good := range []string{"", "127.0.0.1:8500", "https://consul.example.com:8501", "unix:///run/consul.sock"} {
		if err := (consul.Config{Address: good}).Validate(); err != nil {
			t.Errorf("address %q: %v", good, err)
		}
	}
}
