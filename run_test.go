package locum_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locum-ha/locum"
	"github.com/locum-ha/locum/physical"
	filestore "github.com/locum-ha/locum/physical/file"
	"github.com/locum-ha/locum/physical/memory"
)

// P2, as far as a library can: the next node does not become active before the work of the last one has returned, however long it
// takes to notice.
func TestSlowWorkKeepsTheOthersOut(t *testing.T) {
	var running, begun, overlaps atomic.Int32
	release := make(chan struct{})
	nodes := newCluster(t, 2, memory.NewStore(), func(n *testNode) {
		n.OnActive(func(ctx context.Context, _ uint64) error {
			if running.Add(1) > 1 {
				overlaps.Add(1)
			}
			defer running.Add(-1)
			first := begun.Add(1) == 1
			<-ctx.Done()
			if first {
				<-release // it does not look at its context
			}
			return nil
		})
	})
	startAll(t, nodes)
	until(t, func() bool { return begun.Load() == 1 })
	a := active(t, nodes)
	stepped := make(chan error, 1)
	go func() { stepped <- a.StepDown(t.Context(), "") }()
	until(t, func() bool { return a.State().Role != locum.Active || a.State().Leader.Node == "" })
	timer := time.NewTimer(3 * time.Second) // more than the lock's TTL
	select {
	case err := <-stepped:
		t.Errorf("stepped down under running work: %v", err)
	case <-timer.C:
	}
	if begun.Load() != 1 {
		t.Error("another node's work began")
	}
	close(release)
	if err := <-stepped; err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return begun.Load() == 2 })
	if overlaps.Load() != 0 {
		t.Errorf("%d times two ran at once", overlaps.Load())
	}
}

// Protect behind a server of the program's own: BeforeEnd lets it end when the node has handed over, and no request fails (P5).
func TestOwnServer(t *testing.T) {
	servers := map[string]*httptest.Server{}
	nodes := newCluster(t, 2, memory.NewStore(), func(n *testNode) {
		s := httptest.NewServer(n.Protect(counter(n)))
		servers[n.name] = s
		n.BeforeEnd(s.Config.Shutdown)
		t.Cleanup(s.Close)
	})
	if code, body := do(t, "GET", servers["node-1"].URL, ""); code != 503 || !strings.Contains(body, `"processed":"no"`) {
		t.Errorf("before Run: %d %s", code, body)
	}
	startAll(t, nodes)
	a := active(t, nodes)
	b := standbys(nodes, a)[0]
	failed := make(chan string, 1)
	sent := make(chan int, 1)
	go func() {
		n := 0
		for {
			resp, err := http.Post(servers[a.name].URL, "", nil) // at the node that ends
			if err != nil {
				break // its port is closed
			}
			resp.Body.Close()
			if resp.StatusCode != 200 {
				failed <- resp.Status
				break
			}
			n++
		}
		sent <- n
	}()
	until(t, func() bool { _, body := do(t, "GET", servers[b.name].URL, ""); return !strings.HasPrefix(body, "0 ") })
	a.end()
	n := <-sent
	select {
	case status := <-failed:
		t.Errorf("a request at the node that ended: %s", status)
	default:
	}
	if code, body := do(t, "GET", servers[b.name].URL, ""); code != 200 || n == 0 {
		t.Errorf("after %d requests: %d %s", n, code, body)
	}
}

// The lock in another store than the entries; the root token comes once, on the node that began the cluster.
func TestLockStorage(t *testing.T) {
	entries, locks := memory.NewStore(), memory.NewStore()
	key, ports := locum.NewKey(), freePorts(t, 4)
	var founded atomic.Int32
	var nodes []*testNode
	for i := range 2 {
		node, err := locum.New(locum.Config{
			Storage: entries, LockStorage: locks, Key: key, NodeName: []string{"a", "b"}[i], APIListen: ports[2*i], ClusterListen: ports[2*i+1],
			Logger: slog.New(slog.DiscardHandler),
			Founded: func(root locum.Secret) {
				founded.Add(1)
				if root.Reveal() == "" || strings.Contains(root.String(), root.Reveal()) {
					t.Errorf("root token %v", root)
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, &testNode{Node: node, t: t, name: node.State().Node})
	}
	startAll(t, nodes)
	a := active(t, nodes)
	h := locks.Open()
	defer h.Close()
	if r, err := h.Holder(t.Context()); err != nil || r.Name != a.name {
		t.Errorf("the lock is held by %+v, %v; %s is active", r, err, a.name)
	}
	h2 := entries.Open()
	defer h2.Close()
	if r, err := h2.Holder(t.Context()); !errors.Is(err, physical.ErrNoHolder) {
		t.Errorf("the entries' store keeps a lock, too: %+v, %v", r, err)
	}
	if _, err := a.Entries().Put(t.Context(), "a", nil); err != nil {
		t.Error(err)
	}
	if founded.Load() != 1 {
		t.Errorf("the root token was given out %d times", founded.Load())
	}
}

// certificate writes a pair of PEM files for 127.0.0.1, signed by itself.
func certificate(t *testing.T, dir string, serial int64) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// TLS and HTTP/2 on the port that Serve opens; Reload takes a new certificate, and refuses a broken one.
func TestServeTLS(t *testing.T) {
	dir, ports := t.TempDir(), freePorts(t, 3)
	certFile, keyFile := certificate(t, dir, 1)
	node, err := locum.New(locum.Config{
		Storage: filestore.Config{Path: filepath.Join(dir, "data")}, Key: locum.NewKey(), NodeName: "a", APIListen: ports[0], ClusterListen: ports[1],
		CertFile: certFile, KeyFile: keyFile, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	n := &testNode{Node: node, t: t, name: "a", clients: "https://" + ports[2]}
	node.Serve(ports[2], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || r.ProtoMajor != 2 {
			t.Errorf("%s, TLS %v", r.Proto, r.TLS != nil)
		}
	}))
	startAll(t, []*testNode{n})
	serial := func() int64 {
		client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		resp, err := client.Get(n.clients)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.TLS.PeerCertificates[0].SerialNumber.Int64()
	}
	if serial() != 1 {
		t.Error("another certificate")
	}
	certificate(t, dir, 2)
	if err := node.Reload(); err != nil || serial() != 2 {
		t.Errorf("after Reload: %v, certificate %d", err, serial())
	}
	if err := os.WriteFile(certFile, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := node.Reload(); err == nil || serial() != 2 {
		t.Errorf("with a broken file: %v, certificate %d", err, serial())
	}
}

// What cannot be opened ends Run with an error that says so, and leaves nothing open.
func TestRunThatFails(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	notAFolder := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(notAFolder, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		storage locum.Storage
		serve   string
		want    string
	}{
		"a port that is taken": {memory.NewStore(), busy.Addr().String(), "address already in use"},
		"a store":              {filestore.Config{Path: notAFolder}, "", "file"},
	} {
		ports := freePorts(t, 2)
		node, err := locum.New(locum.Config{Storage: c.storage, Key: locum.NewKey(), NodeName: "a", APIListen: ports[0], ClusterListen: ports[1], Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if c.serve != "" {
			node.Serve(c.serve, http.NotFoundHandler())
		}
		if err := node.Run(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", what, err)
		}
		if err := node.Run(t.Context()); err == nil {
			t.Errorf("%s: Run a second time", what)
		}
		for _, port := range ports {
			ln, err := net.Listen("tcp", port)
			if err != nil {
				t.Errorf("%s: %v", what, err)
				continue
			}
			ln.Close()
		}
		if node.State().Role != locum.Starting || node.StepDown(t.Context(), "") == nil {
			t.Errorf("%s: %+v", what, node.State())
		}
	}
}
