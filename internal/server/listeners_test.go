package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/internal/stores"
)

// aNode runs one node alone, with these listeners, until the test ends.
func aNode(t *testing.T, listeners string) *testNode {
	t.Helper()
	c, err := config.Parse("node.hcl", []byte("node_name = \"a\"\nstorage \"inmem\" {\n}\n"+listeners))
	if err == nil {
		err = c.Complete(config.Source{LookupEnv: func(string) (string, bool) { return "", false }})
	}
	if err != nil {
		t.Fatal(err)
	}
	n := &testNode{t: t, name: "a", quiet: true, config: c}
	n.start()
	n.url = "http://" + n.server.listeners[0].Addr().String()
	return n
}

// CORS is off: a browser that asks gets no leave, on no path and in no state.
func TestNoCORS(t *testing.T) {
	n := aNode(t, "listener \"tcp\" {\n address = \"127.0.0.1:0\"\n tls_disable = true\n}\n")
	if !strings.Contains(n.out.String(), "Storage: inmem (HA disabled)") {
		t.Errorf("a store that could hold the lock, and is not shared:\n%s", n.out.String())
	}
	ask := func() {
		for _, path := range []string{"/v1/sys/health", "/v1/sys/live", "/v1/sys/init", "/v1/secret/data/x", "/v1/sys/step-down", "/none", "*"} {
			for _, method := range []string{"OPTIONS", "GET", "POST"} {
				if path == "*" {
					continue
				}
				req, err := http.NewRequest(method, n.url+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Origin", "https://evil.example")
				req.Header.Set("Access-Control-Request-Method", "POST")
				req.Header.Set("Access-Control-Request-Headers", "X-Vault-Token")
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				for name := range resp.Header {
					if strings.HasPrefix(name, "Access-Control-") {
						t.Errorf("%s %s: %s", method, path, name)
					}
				}
			}
		}
	}
	ask()
	if code, answer := n.call("PUT", "/v1/sys/init", "", map[string]any{"secret_shares": 1, "secret_threshold": 1}); code != 200 {
		t.Fatalf("init: %d %v", code, answer)
	}
	ask()
}

// What a client may do without a token is bounded for each client, also behind a proxy, and nobody is somebody else by
// saying so (P12).
func TestRateLimitByClient(t *testing.T) {
	const plain = "address = \"127.0.0.1:0\"\n tls_disable = true\n"
	n := aNode(t, "listener \"tcp\" {\n "+plain+"}\nlistener \"tcp\" {\n "+plain+" x_forwarded_for_authorized_addrs = [\"127.0.0.1\"]\n}\n")
	ask := func(listener int, client string) int {
		req, err := http.NewRequest("PUT", "http://"+n.server.listeners[listener].Addr().String()+"/v1/sys/unseal", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Forwarded-For", client)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	exhaust := func(listener int, client func(int) string) bool {
		for i := range 2000 {
			if ask(listener, client(i)) == http.StatusTooManyRequests {
				return true
			}
		}
		return false
	}
	if !exhaust(1, func(i int) string { return fmt.Sprintf("192.0.2.%d, 198.51.100.7", i%250) }) {
		t.Error("a client behind the proxy is not limited, or gets around it by inventing hops")
	}
	if code := ask(1, "198.51.100.8"); code == http.StatusTooManyRequests {
		t.Error("another client behind the proxy is limited, too")
	}
	if !exhaust(0, func(i int) string { return fmt.Sprintf("192.0.2.%d", i%250) }) {
		t.Error("where no proxy is authorised, a client gets around the limit by naming others")
	}
}

// A node behind a Unix socket alone; its file goes with it.
func TestUnixListener(t *testing.T) {
	dir, err := os.MkdirTemp("", "locum") // a test's own folder may have too long a name
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "locum.sock")
	n := aNode(t, fmt.Sprintf("listener \"unix\" {\n address = %q\n socket_mode = \"0660\"\n}\n", path))
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Fatalf("%v, %v", info, err)
	}
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	resp, err := (&http.Client{Transport: tr}).Get("http://locum/v1/sys/health")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	tr.CloseIdleConnections()
	if resp.StatusCode != 501 {
		t.Errorf("health: %d", resp.StatusCode)
	}
	n.end()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// A listener that cannot be opened leaves nothing of those before it.
func TestListenersAllOrNone(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir, err := os.MkdirTemp("", "locum")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	c, err := config.Parse("node.hcl", fmt.Appendf(nil, "node_name = \"a\"\nstorage \"inmem\" {\n}\nlistener \"unix\" {\n address = %q\n}\nlistener \"tcp\" {\n address = %q\n tls_disable = true\n}\n",
		filepath.Join(dir, "s"), taken.Addr()))
	if err == nil {
		err = c.Complete(config.Source{})
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(c, Options{Open: stores.Open})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(context.Background(), context.Background()); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("%v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// issue writes a certificate for 127.0.0.1 by an authority, and returns both.
func issue(t *testing.T, dir, name string) (cert tls.Certificate, authority *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	crt, secret := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	for file, data := range map[string][]byte{name + ".crt": crt, name + ".key": secret} {
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if cert, err = tls.X509KeyPair(crt, secret); err != nil {
		t.Fatal(err)
	}
	authority = x509.NewCertPool()
	authority.AppendCertsFromPEM(crt)
	return cert, authority
}

// Reload takes over all listeners' files, or none.
func TestReloadAllOrNone(t *testing.T) {
	dir := t.TempDir()
	issue(t, dir, "one")
	issue(t, dir, "two")
	block := func(name string) string {
		return fmt.Sprintf("listener \"tcp\" {\n address = \"127.0.0.1:0\"\n tls_cert_file = %q\n tls_key_file = %q\n}\n",
			filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
	}
	n := aNode(t, block("one")+block("two"))
	served := func(i int) *x509.Certificate {
		c, err := tls.Dial("tcp", n.server.listeners[i].Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0]
	}
	before := served(0)
	issue(t, dir, "one")
	if err := os.Remove(filepath.Join(dir, "two.key")); err != nil {
		t.Fatal(err)
	}
	if err := n.server.Reload(); err == nil || !served(0).Equal(before) {
		t.Errorf("half a reload: %v", err)
	}
	two, _ := issue(t, dir, "two")
	if err := n.server.Reload(); err != nil {
		t.Fatal(err)
	}
	if served(0).Equal(before) || !served(1).Equal(two.Leaf) {
		t.Error("the old certificates are served after a reload")
	}
}

// A cluster whose listeners ask clients for certificates: its nodes show theirs to join, and its clients theirs at each node.
func TestClusterWithClientCertificates(t *testing.T) {
	nodes := testCluster(t, 2)
	dir := t.TempDir()
	cert, authority := issue(t, dir, "node")
	crt, key := filepath.Join(dir, "node.crt"), filepath.Join(dir, "node.key")
	for _, n := range nodes {
		n.url = strings.Replace(n.url, "http:", "https:", 1)
		c := n.config
		c.APIAddr = n.url
		l := &c.Listeners[0]
		l.TLSDisable, l.TLSCertFile, l.TLSKeyFile, l.TLSClientCAFile = false, crt, key, crt
		for i := range c.Storage.Raft.RetryJoin {
			j := &c.Storage.Raft.RetryJoin[i]
			j.LeaderAPIAddr = strings.Replace(j.LeaderAPIAddr, "http:", "https:", 1)
			j.LeaderCACertFile, j.LeaderClientCertFile, j.LeaderClientKeyFile = crt, crt, key
		}
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		n.start()
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority, Certificates: []tls.Certificate{cert}}, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	call := func(n *testNode, method, path string, body io.Reader) (*http.Response, string) {
		req, err := http.NewRequest(method, n.url+path, body)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: tr}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		data, _ := io.ReadAll(resp.Body)
		return resp, string(data)
	}
	if resp, body := call(nodes[0], "PUT", "/v1/sys/init", strings.NewReader("{}")); resp.StatusCode != 200 || resp.ProtoMajor != 2 {
		t.Fatalf("init: %s %s %s", resp.Proto, resp.Status, body)
	}
	eventually(t, "node-2 ready", func() bool {
		resp, _ := call(nodes[1], "GET", "/v1/sys/ready", nil)
		return resp.StatusCode == 200
	})
	without := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority}}
	for _, n := range nodes {
		if resp, err := (&http.Client{Transport: without}).Get(n.url + "/v1/sys/live"); err == nil {
			resp.Body.Close()
			t.Error("a client without a certificate is let in")
		}
	}
}

// forwarding { hold_max_requests = 0 } holds none, and an empty retry buffer keeps no body: these are not the defaults.
func TestLimitsOfNone(t *testing.T) {
	n := testCluster(t, 1)[0]
	c, err := config.Parse("locum.hcl", []byte("forwarding {\n  hold_max_requests = 0\n  retry_buffer = \"0\"\n  hold_max_bytes = \"0\"\n}\n"))
	if err != nil {
		t.Fatal(err)
	}
	n.config.Forwarding = c.Forwarding
	n.start() // not initialised: the router has nobody
	rec := newRecorder()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r, err := http.NewRequestWithContext(t.Context(), "GET", "/v1/secret/data/x", nil)
		if err != nil {
			t.Error(err)
			return
		}
		n.server.router.Hold("a test")
		n.server.router.ServeHTTP(rec, r)
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("a request waits")
	}
	if rec.code != http.StatusServiceUnavailable || !strings.Contains(rec.body.String(), "too many") {
		t.Errorf("%d %s", rec.code, rec.body.String())
	}
}
