package zookeeper_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/zookeeper"
)

// "ZooKeeper: … ACLs": what a user makes nobody else can read or write; over TLS with a client's certificate too.
func TestAccess(t *testing.T) {
	pki := storeserver.NewCertificates(t)
	server := storeserver.StartZooKeeperTLS(t, pki)
	good := zookeeper.Config{
		Servers: []string{server.TLSAddr}, Path: "/apps/orders", Username: "orders", Password: "right-password", UseTLS: true,
		TLS: physical.ClientTLS{CAFile: pki.CA, CertFile: pki.ClientCert, KeyFile: pki.ClientKey},
	}
	open := func(change func(*zookeeper.Config)) (*zookeeper.Store, error) {
		c := good
		change(&c)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		return zookeeper.Open(ctx, c)
	}
	store, err := open(func(*zookeeper.Config) {})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.Commit(t.Context(), nil, physical.Put("a", nil)); err != nil {
		t.Errorf("commit: %v", err)
	}
	g, err := store.Acquire(t.Context(), physical.Record{Holder: "a"}, 2*time.Second, 0)
	if err != nil {
		t.Fatalf("acquire: %v", err)
	}
	if g, err = store.Renew(t.Context(), g); err != nil {
		t.Errorf("renew: %v", err)
	}
	plain, err := open(func(c *zookeeper.Config) {
		c.Servers, c.UseTLS, c.TLS = []string{server.Addr}, false, physical.ClientTLS{}
	})
	if err != nil {
		t.Fatalf("the same user without TLS: %v", err)
	}
	if err := plain.Release(t.Context(), g, ""); err != nil {
		t.Errorf("release by another process of the same user: %v", err)
	}
	_ = plain.Close()
	plainly := make(chan error, 1)
	go func() { // beside the rest: a server that ends connections is tried for as long as there is time
		var err error
		for began := time.Now(); time.Since(began) < 30*time.Second; { // a busy machine may not come to say anything
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			_, err = zookeeper.Open(ctx, zookeeper.Config{Servers: []string{server.TLSAddr}, Path: "/apps/orders"})
			cancel()
			if err == nil || strings.Contains(err.Error(), "tls = true") {
				break
			}
		}
		plainly <- err
	}()
	for what, c := range map[string]struct {
		change func(*zookeeper.Config)
		want   string
	}{
		"no certificate":       {func(c *zookeeper.Config) { c.TLS.CertFile, c.TLS.KeyFile = "", "" }, "certificate"},
		"an unknown authority": {func(c *zookeeper.Config) { c.TLS.CAFile = "" }, "unknown authority"},
		"nobody there":         {func(c *zookeeper.Config) { c.Servers = []string{"127.0.0.1:1"} }, "refused"},
	} {
		other, err := open(c.change)
		if err == nil {
			_ = other.Close()
			t.Errorf("%s: opened", what)
		} else if !errors.Is(err, physical.ErrUnavailable) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", what, err, c.want)
		}
	}
	for what, change := range map[string]func(*zookeeper.Config){
		"a wrong password": func(c *zookeeper.Config) { c.Password = "wrong-password" },
		"no user":          func(c *zookeeper.Config) { c.Username, c.Password = "", "" },
	} {
		// Without TLS: there the certificate would be a user too.
		other, err := open(func(c *zookeeper.Config) {
			c.Servers, c.UseTLS, c.TLS = []string{server.Addr}, false, physical.ClientTLS{}
			change(c)
		})
		if err == nil {
			_ = other.Close()
			t.Errorf("%s: opened", what)
			continue
		}
		if !strings.Contains(err.Error(), "not authorised") || strings.Contains(err.Error(), "-password") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := <-plainly; !errors.Is(err, physical.ErrUnavailable) || !strings.Contains(err.Error(), "tls = true") {
		t.Errorf("without TLS: %v", err)
	}
}

// A right that is missing is no lost race: the holder goes on holding, a release says that it failed, and the error says what to do.
func TestRightsTakenAway(t *testing.T) {
	server := storeserver.StartZooKeeper(t)
	config := zookeeper.Config{Servers: []string{server.Addr}, Path: "/orders", Username: "orders", Password: "secret"}
	store, err := zookeeper.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	admin, _, err := zk.Connect([]string{server.Addr}, 10*time.Second, zk.WithLogInfo(false))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if err := admin.AddAuth("digest", []byte("orders:secret")); err != nil {
		t.Fatal(err)
	}
	allow := func(rights int32) {
		t.Helper()
		if _, err := admin.SetACL("/orders/lock/term", zk.DigestACL(rights|zk.PermAdmin, "orders", "secret"), -1); err != nil {
			t.Fatal(err)
		}
	}
	const want = "the user needs the rights to create, delete, read and write /orders"
	node := physical.Record{Holder: "a"}
	allow(zk.PermRead)
	if _, err := store.Acquire(t.Context(), node, 10*time.Second, 0); !errors.Is(err, physical.ErrUnavailable) || !strings.Contains(err.Error(), want) {
		t.Errorf("acquire: %v", err)
	}
	allow(zk.PermAll)
	g, err := store.Acquire(t.Context(), node, 10*time.Second, 0)
	if err != nil {
		t.Fatal(err)
	}
	allow(zk.PermWrite)
	if _, err := store.Renew(t.Context(), g); !errors.Is(err, physical.ErrUnavailable) || errors.Is(err, physical.ErrLost) || !strings.Contains(err.Error(), want) {
		t.Errorf("renew: %v", err)
	}
	allow(zk.PermRead)
	if g, err = store.Renew(t.Context(), g); err != nil {
		t.Errorf("renew, which needs to read alone: %v", err)
	}
	if err := store.Release(t.Context(), g, ""); !errors.Is(err, physical.ErrUnavailable) || !strings.Contains(err.Error(), want) {
		t.Errorf("release: %v", err)
	}
	allow(zk.PermAll)
	if err := store.Release(t.Context(), g, ""); err != nil {
		t.Errorf("release with all rights: %v", err)
	}
}

// All faults of a configuration are named at once, without I/O.
func TestValidate(t *testing.T) {
	err := zookeeper.Config{Servers: []string{"a"}, Path: "/zookeeper/x", Username: "u:v", TLS: physical.ClientTLS{ServerName: "x"}}.Validate()
	for _, want := range []string{`server "a"`, "ZooKeeper's own", "go together", `":"`, "no effect"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	if err := (zookeeper.Config{}).Validate(); err == nil || !strings.Contains(err.Error(), "no server") {
		t.Errorf("nothing set: %v", err)
	}
}
