package etcd_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/etcd"
)

// "etcd: … auth and TLS": a user with rights on the path alone, over TLS with a client's certificate; what is refused is said,
// and never the password.
func TestAccess(t *testing.T) {
	pki := storeserver.NewCertificates(t)
	server := storeserver.StartEtcd(t, "--cert-file", pki.ServerCert, "--key-file", pki.ServerKey, "--client-cert-auth", "--trusted-ca-file", pki.CA)
	clientTLS := physical.ClientTLS{CAFile: pki.CA, CertFile: pki.ClientCert, KeyFile: pki.ClientKey}
	switchAuthOn(t, server, clientTLS)
	good := etcd.Config{
		Endpoints: []string{"https://" + server.Addr}, Path: "orders", Username: "orders", Password: "right-password", TLS: clientTLS,
	}
	open := func(change func(*etcd.Config)) (*etcd.Store, error) {
		c := good
		change(&c)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		return etcd.Open(ctx, c)
	}
	store, err := open(func(*etcd.Config) {})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.Commit(t.Context(), nil, physical.Put("a", nil)); err != nil {
		t.Errorf("commit: %v", err)
	}
	g, err := store.Acquire(t.Context(), physical.Record{Holder: "a"}, time.Minute, 0)
	if err != nil {
		t.Fatalf("acquire: %v", err)
	}
	if g, err = store.Renew(t.Context(), g); err != nil {
		t.Errorf("renew: %v", err)
	}
	for what, c := range map[string]struct {
		change func(*etcd.Config)
		want   string
	}{
		"a wrong password":     {func(c *etcd.Config) { c.Password = "wrong-password" }, "authentication failed"},
		"another's path":       {func(c *etcd.Config) { c.Path = "others" }, "permission denied"},
		"no user":              {func(c *etcd.Config) { c.Username, c.Password = "", "" }, "permission denied"},
		"no certificate":       {func(c *etcd.Config) { c.TLS.CertFile, c.TLS.KeyFile = "", "" }, "certificate"},
		"an unknown authority": {func(c *etcd.Config) { c.TLS.CAFile = "" }, "unknown authority"},
		"nobody there":         {func(c *etcd.Config) { c.Endpoints = []string{"https://127.0.0.1:1"} }, "refused"},
	} {
		other, err := open(c.change)
		if err == nil {
			_ = other.Close()
			t.Errorf("%s: opened", what)
			continue
		}
		if !errors.Is(err, physical.ErrUnavailable) || strings.Contains(err.Error(), "-password") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", what, err, c.want)
		}
	}
	const right = "the user needs the permission readwrite"
	readOnly, err := open(func(c *etcd.Config) { c.Username, c.Password = "reader", "right-password" })
	if err != nil {
		t.Fatalf("a user who may read: %v", err)
	}
	defer readOnly.Close()
	fence := physical.Fence{Lineage: "l", Term: 1}
	refused := func(call string, err error) {
		t.Helper()
		if !errors.Is(err, physical.ErrUnavailable) || !strings.Contains(err.Error(), right) {
			t.Errorf("%s without the right to it: %v", call, err)
		}
	}
	refused("commit", readOnly.Commit(t.Context(), nil, physical.Put("b", nil)))
	refused("raise", readOnly.RaiseFence(t.Context(), physical.Fence{}, fence))
	refused("release", readOnly.Release(t.Context(), g, ""))
	afterRestart(t, server, store, g)
	withoutTLS(t, server)
	if err := store.Release(t.Context(), g, ""); err != nil {
		t.Errorf("release: %v", err)
	}
	_, err = readOnly.Acquire(t.Context(), physical.Record{Holder: "b"}, 5*time.Second, 0)
	refused("acquire", err)

	// Rights that are taken away while the store is in use.
	if g, err = store.Acquire(t.Context(), physical.Record{Holder: "a"}, 5*time.Second, 0); err != nil {
		t.Fatal(err)
	}
	admin := administrator(t, server, clientTLS)
	if _, err := admin.RoleRevokePermission(t.Context(), "orders", "orders/", clientv3.GetPrefixRangeEnd("orders/")); err != nil {
		t.Fatal(err)
	}
	_, err = store.Get(t.Context(), "a")
	refused("get", err)
	_, err = store.Renew(t.Context(), g)
	refused("renew", err)
	refused("commit", store.Commit(t.Context(), nil, physical.Put("b", nil)))
}

// administrator is a client of root's.
func administrator(t *testing.T, server *storeserver.Etcd, clientTLS physical.ClientTLS) *clientv3.Client {
	t.Helper()
	config, err := clientTLS.Load()
	if err != nil {
		t.Fatal(err)
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"https://" + server.Addr}, TLS: config, DialTimeout: 5 * time.Second, Username: "root", Password: "root-password",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// afterRestart: a server forgets whom it gave which token when it restarts. The client logs in anew, for streams too, over which
// a lease is renewed.
func afterRestart(t *testing.T, server *storeserver.Etcd, store *etcd.Store, g physical.Grant) {
	t.Helper()
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	for call, do := range map[string]func(ctx context.Context) error{
		"renew":  func(ctx context.Context) error { _, err := store.Renew(ctx, g); return err },
		"commit": func(ctx context.Context) error { return store.Commit(ctx, nil, physical.Put("a", nil)) },
	} {
		for deadline := time.Now().Add(30 * time.Second); ; {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			err := do(ctx)
			cancel()
			if err == nil {
				break
			}
			if !errors.Is(err, physical.ErrUnavailable) && !errors.Is(err, physical.ErrUnknown) || time.Now().After(deadline) {
				t.Fatalf("%s after a restart of the server: %v", call, err)
			}
		}
	}
}

// withoutTLS: a server that wants TLS is told from one that is not etcd.
func withoutTLS(t *testing.T, server *storeserver.Etcd) {
	t.Helper()
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	for endpoint, want := range map[string]string{"http://" + server.Addr: "write https://", web.URL: "no client port of etcd"} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		_, err := etcd.Open(ctx, etcd.Config{Endpoints: []string{endpoint}})
		cancel()
		if !errors.Is(err, physical.ErrUnavailable) || !strings.Contains(err.Error(), want) {
			t.Errorf("without TLS: %v, want %q in it", err, want)
		}
	}
}

func switchAuthOn(t *testing.T, server *storeserver.Etcd, clientTLS physical.ClientTLS) {
	t.Helper()
	config, err := clientTLS.Load()
	if err != nil {
		t.Fatal(err)
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"https://" + server.Addr}, TLS: config, DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx := t.Context()
	_, e1 := client.UserAdd(ctx, "root", "root-password")
	_, e2 := client.UserGrantRole(ctx, "root", "root")
	_, e3 := client.RoleAdd(ctx, "orders")
	_, e4 := client.RoleGrantPermission(ctx, "orders", "orders/", clientv3.GetPrefixRangeEnd("orders/"), clientv3.PermissionType(clientv3.PermReadWrite))
	_, e5 := client.UserAdd(ctx, "orders", "right-password")
	_, e6 := client.UserGrantRole(ctx, "orders", "orders")
	_, e7 := client.RoleAdd(ctx, "reader")
	_, e8 := client.RoleGrantPermission(ctx, "reader", "orders/", clientv3.GetPrefixRangeEnd("orders/"), clientv3.PermissionType(clientv3.PermRead))
	_, e9 := client.UserAdd(ctx, "reader", "right-password")
	_, e10 := client.UserGrantRole(ctx, "reader", "reader")
	_, e11 := client.AuthEnable(ctx)
	if err := errors.Join(e1, e2, e3, e4, e5, e6, e7, e8, e9, e10, e11); err != nil {
		t.Fatal(err)
	}
}

// All faults of a configuration are named at once, without I/O.
func TestValidate(t *testing.T) {
	err := etcd.Config{
		Endpoints: []string{"http://a:1", "https://b:2", "c"}, Username: "u", Token: "t", Path: strings.Repeat("x", 300),
	}.Validate()
	for _, want := range []string{`endpoint "c"`, "some endpoints are http://", "go together", "exclude each other", "300 bytes"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	if err := (etcd.Config{}).Validate(); err == nil || !strings.Contains(err.Error(), "no endpoint") {
		t.Errorf("nothing set: %v", err)
	}
}
