package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/locum-ha/locum/cache"
	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/internal/metrics"
)

// "Three or five nodes are advised; 1, 2, 4 and 7 work as their quorum allows and say so at start" (issue 6, 1).
func TestCacheSaysWhatItCanLose(t *testing.T) {
	for n, want := range map[int]string{
		0: "", 1: "of 1 host loses everything", 2: "of 2 hosts stops when either is lost", 3: "", 4: "of 4 hosts survives the loss of 1", 5: "",
		6: "of 6 hosts survives the loss of 2", 7: "each write waits for 4 of them",
	} {
		var hosts []string
		for i := range n {
			hosts = append(hosts, fmt.Sprintf("app-%d.app:8402", i))
		}
		p := &cachePart{}
		p.describe(cache.Config{Hosts: hosts, Self: "app-0.app:8402"}, config.Cache{})
		said := strings.Join(p.warnings, "\n")
		if (said == "") != (want == "") || !strings.Contains(said, want) || want != "" && !strings.Contains(said, "3 or 5 are advised") {
			t.Errorf("%d hosts: %q, want %q", n, said, want)
		}
		if n > 1 && !strings.Contains(p.rows["Cache"], fmt.Sprintf("quorum %d", n/2+1)) {
			t.Errorf("%d hosts: the start-up table says %q", n, p.rows["Cache"])
		}
	}
}

// A cache block without hosts is this node alone, whatever the environment says for a node that is a cache and nothing else: that is said.
func TestCacheHostsNotRead(t *testing.T) {
	for _, one := range []struct {
		hosts   string
		members bool
		warned  bool
	}{{"", false, false}, {"app-0.app:8402,app-1.app:8402", false, true}, {"app-0.app:8402,app-1.app:8402", true, false}} {
		t.Setenv("HA_HOSTS", one.hosts)
		env, err := cacheEnvironment(config.Cache{}, "app-0", one.members)
		if err != nil {
			t.Fatal(err)
		}
		if said := strings.Join(env.Warnings, "\n"); strings.Contains(said, "HA_HOSTS is set and not read") != one.warned {
			t.Errorf("%+v: %q", one, said)
		}
	}
}

// Clients of Redis are shown a renewed certificate after SIGHUP, without a restart (interfaces §6); one that cannot be used changes nothing.
func TestCacheCertificateReload(t *testing.T) {
	dir := t.TempDir()
	issue(t, dir, "redis")
	b := config.Cache{
		RESPAddress: "127.0.0.1:" + freePorts(t, 1)[0], RESPTLSCertFile: filepath.Join(dir, "redis.crt"), RESPTLSKeyFile: filepath.Join(dir, "redis.key"),
	}
	p, err := newCachePart(&cache.Environment{}, b, nil, "test", slog.New(slog.DiscardHandler), metrics.New("test"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	shown := func() string {
		var conn *tls.Conn
		eventually(t, "the server for clients of Redis", func() bool {
			var err error
			conn, err = tls.Dial("tcp", b.RESPAddress, &tls.Config{InsecureSkipVerify: true}) // the certificate is what is looked at
			return err == nil
		})
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := shown()
	issue(t, dir, "redis")
	if shown() != before {
		t.Error("the file was read before anybody asked for it")
	}
	use, err := p.load()
	if err != nil {
		t.Fatal(err)
	}
	use()
	after := shown()
	if after == before {
		t.Error("the old certificate is shown after the reload")
	}
	if err := os.WriteFile(b.RESPTLSKeyFile, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.load(); err == nil || !strings.Contains(err.Error(), "resp_tls_cert_file") {
		t.Errorf("a key that cannot be read: %v", err)
	}
	if shown() != after {
		t.Error("a reload that failed changed the certificate")
	}
}
