package diagnose

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/internal/storeserver"
)

// scene is one node with something wrong with it, or not.
type scene struct {
	t       *testing.T
	dir     string // of everything; the data directory is dir/data
	options Options
	text    []string // of the configuration, besides what follows
	address string
	api     string // api_addr
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{t: t, dir: t.TempDir(), address: freeAddress(t)}
	if err := os.Mkdir(filepath.Join(s.dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.api = "http://" + s.address
	s.options.Timeout = 2 * time.Second
	return s
}

func freeAddress(t *testing.T) string {
	t.Helper()
	return storeserver.Loopback(storeserver.FreePort(t))
}

// listener is the block of a plain listener at the scene's address.
func (s *scene) listener(settings ...string) string {
	if len(settings) == 0 {
		settings = []string{"tls_disable = true"}
	}
	return fmt.Sprintf("listener \"tcp\" {\n  address = %q\n  cluster_address = \"127.0.0.1:0\"\n  %s\n}\n", s.address, strings.Join(settings, "\n  "))
}

// storage is raft's, joining through these nodes.
func (s *scene) storage(join ...string) string {
	text := fmt.Sprintf("storage \"raft\" {\n  path = %q\n", filepath.Join(s.dir, "data"))
	for _, j := range join {
		if !strings.Contains(j, "=") {
			j = fmt.Sprintf("leader_api_addr = %q", j)
		}
		text += "  retry_join {\n    " + j + "\n  }\n"
	}
	return text + "}\n"
}

// file writes one beside the configuration.
func (s *scene) file(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// run diagnoses the configuration made of the blocks.
func (s *scene) run(blocks ...string) Report {
	s.t.Helper()
	text := fmt.Sprintf("node_name = \"node-a\"\napi_addr = %q\n%s", s.api, strings.Join(append(s.text, blocks...), ""))
	if !strings.Contains(text, "cluster_addr =") {
		text += "cluster_addr = \"https://127.0.0.1:8401\"\n"
	}
	path := s.file("locum.hcl", text)
	s.options.Source = config.Source{Paths: []string{path}, LookupEnv: func(string) (string, bool) { return "", false }}
	return Run(s.t.Context(), s.options)
}

// expect wants a finding of this check and level, whose text contains all parts.
func expect(t *testing.T, r Report, check string, level Level, parts ...string) {
	t.Helper()
	var seen []string
	for _, f := range r.Findings {
		text := fmt.Sprintf("%s %s: %s; do: %s", f.Level, f.Check, f.What, f.Do)
		seen = append(seen, text)
		if f.Level != OK && f.Do == "" {
			t.Errorf("nothing to do about it: %s", text)
		}
		found := f.Check == check && f.Level == level
		for _, part := range parts {
			found = found && strings.Contains(text, part)
		}
		if found {
			return
		}
	}
	t.Errorf("no finding %s %s with %q among:\n%s", level, check, parts, strings.Join(seen, "\n"))
}

// never wants no finding of this level in a check.
func never(t *testing.T, r Report, check string, level Level) {
	t.Helper()
	for _, f := range r.Findings {
		if f.Check == check && f.Level == level {
			t.Errorf("%s %s: %s", f.Level, f.Check, f.What)
		}
	}
}

func TestConfiguration(t *testing.T) {
	s := newScene(t)
	r := s.run("nonsense = 1\n")
	expect(t, r, CheckConfig, Error, "locum.hcl:3", "nonsense")
	if r.Result != Error || len(r.Findings) != 1 {
		t.Errorf("%+v", r)
	}
	r = s.run(s.listener(), s.storage(), "ha {\n  priority = 5000\n}\n")
	expect(t, r, CheckConfig, Error, "priority", "do: write a number from 0 to 1000")
	expect(t, r, CheckPorts, OK, "is free") // the rest is looked at all the same
	expect(t, s.run(s.listener(), s.storage()), CheckConfig, OK, "node node-a")
	s.options.Source.Paths = []string{filepath.Join(s.dir, "nothing")}
	expect(t, Run(t.Context(), s.options), CheckConfig, Error, "no such file")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	expect(t, Run(cancelled, s.options), "", Error, "not looked at")
}

func TestSealKey(t *testing.T) {
	s := newScene(t)
	expect(t, s.run(s.listener(), s.storage()), CheckSeal, OK, "in shares")
	static := fmt.Sprintf("seal \"static\" {\n  key_file = %q\n}\n", filepath.Join(s.dir, "seal.key"))
	expect(t, s.run(s.listener(), s.storage(), static), CheckSeal, Error, "there is no file")
	key := s.file("seal.key", "short")
	s.options.OpenSeal = func(config.Seal) (func(context.Context, []byte) error, error) {
		return nil, errors.New("a key is 32 bytes")
	}
	expect(t, s.run(s.listener(), s.storage(), static), CheckSeal, Error, "a key is 32 bytes", "do: put the cluster's key there")
	s.options.OpenSeal = func(config.Seal) (func(context.Context, []byte) error, error) {
		return func(context.Context, []byte) error { return nil }, nil
	}
	expect(t, s.run(s.listener(), s.storage(), static), CheckSeal, OK, key)
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	expect(t, s.run(s.listener(), s.storage(), static), CheckSeal, Warning, "can be read by other users", "do: chmod 600 it")
	if os.Geteuid() != 0 {
		if err := os.Chmod(key, 0); err != nil {
			t.Fatal(err)
		}
		expect(t, s.run(s.listener(), s.storage(), static), CheckSeal, Error, "permission denied", "do: let Locum's user read it")
	}
}

// issue makes a certificate and its key as PEM: of its own, or of an authority.
func issue(t *testing.T, change func(*x509.Certificate), parent *tls.Certificate) (pair tls.Certificate, certPEM, keyPEM string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour), DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if change != nil {
		change(c)
	}
	by, signer := c, any(key)
	if parent != nil {
		by, signer = parent.Leaf, parent.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf},
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

func authority(c *x509.Certificate) {
	c.IsCA, c.BasicConstraintsValid, c.DNSNames, c.IPAddresses, c.KeyUsage, c.ExtKeyUsage = true, true, nil, nil, x509.KeyUsageCertSign, nil
	c.Subject.CommonName = "authority"
}

func TestCertificates(t *testing.T) {
	ca, caPEM, _ := issue(t, authority, nil)
	between, betweenPEM, _ := issue(t, func(c *x509.Certificate) { authority(c); c.Subject.CommonName = "between" }, &ca)
	for _, c := range []struct {
		name   string
		change func(*x509.Certificate)
		by     *tls.Certificate
		more   string // behind the certificate in its file
		level  Level
		parts  []string
	}{
		{"good", nil, &ca, "", OK, []string{"is valid until", "fits its key"}},
		{"behind another, with it", nil, &between, betweenPEM, OK, []string{"is valid until"}},
		{"behind another, without it", nil, &between, "", Warning, []string{"leads to no authority", "do: put the certificates between"}},
		{"run out", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, &ca, "", Error, []string{"ran out on", "do: renew it"}},
		{"running out", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(73 * time.Hour) }, &ca, "", Warning, []string{"runs out on", "in 3 days"}},
		{"not yet valid", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }, &ca, "", Error, []string{"valid only from", "do: set this host's clock"}},
		{"of another host", func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = []string{"b.example.com"}, nil }, &ca, "", Error, []string{"is for b.example.com, and not for 127.0.0.1"}},
		{"of no host", func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, nil }, &ca, "", Error, []string{"no host", "CN=test"}},
		{"for clients", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, &ca, "", Error, []string{"not one for servers"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t)
			s.api = "https://" + s.address
			_, cert, key := issue(t, c.change, c.by)
			tlsBlock := []string{fmt.Sprintf("tls_cert_file = %q", s.file("c.pem", cert+c.more)), fmt.Sprintf("tls_key_file = %q", s.file("k.pem", key))}
			join := fmt.Sprintf("leader_api_addr = \"https://%s\"\n    leader_ca_cert_file = %q", s.address, s.file("ca.pem", caPEM))
			r := s.run(s.listener(tlsBlock...), s.storage(join))
			expect(t, r, CheckCert, c.level, c.parts...)
			if c.level != Error {
				never(t, r, CheckCert, Error)
			}
		})
	}
	s := newScene(t)
	_, cert, key := issue(t, nil, nil)
	_, _, foreign := issue(t, nil, nil)
	at := func(cert, key string) string {
		return s.listener(fmt.Sprintf("tls_cert_file = %q", s.file("c.pem", cert)), fmt.Sprintf("tls_key_file = %q", s.file("k.pem", key)))
	}
	expect(t, s.run(at(cert, key), s.storage()), CheckCert, Warning, "no authority that this system trusts", "LOCUM_CACERT")
	expect(t, s.run(at(cert, key), s.storage()), CheckCert, Error, "speaks TLS, and api_addr is http://")
	expect(t, s.run(at(cert, foreign), s.storage()), CheckCert, Error, "private key does not match public key", "do: write the PEM files")
	expect(t, s.run(at("nothing", key), s.storage()), CheckCert, Error, "PEM")
	s.api = "https://" + s.address
	expect(t, s.run(s.listener(), s.storage()), CheckCert, Error, "speaks plain HTTP, and api_addr is https://")
	r := s.run(at(cert, key), s.storage())
	if err := os.Chmod(filepath.Join(s.dir, "k.pem"), 0o640); err != nil {
		t.Fatal(err)
	}
	never(t, r, CheckCert, Error)
	block := s.listener(fmt.Sprintf("tls_cert_file = %q", filepath.Join(s.dir, "c.pem")), fmt.Sprintf("tls_key_file = %q", filepath.Join(s.dir, "k.pem")))
	expect(t, s.run(block, s.storage()), CheckCert, Warning, "can be read by other users", "do: chmod 600")
}

func TestNames(t *testing.T) {
	s := newScene(t)
	known := map[string]string{"here.test": "127.0.0.1", "elsewhere.test": "192.0.2.7", "b.test": "192.0.2.8"}
	s.options.Lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
		if known[host] == "" {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
		return []netip.Addr{netip.MustParseAddr(known[host])}, nil
	}
	_, port, _ := net.SplitHostPort(s.address)
	cluster := func(host string) string { return fmt.Sprintf("cluster_addr = \"https://%s:8401\"\n", host) }
	s.api = "http://here.test:" + port
	r := s.run(cluster("elsewhere.test"), s.listener(), s.storage())
	expect(t, r, CheckNames, OK, "here.test is 127.0.0.1, an address of this host")
	expect(t, r, CheckNames, Warning, "elsewhere.test is 192.0.2.7, which is no address of this host")
	s.options.Timeout = 50 * time.Millisecond
	r = s.run(cluster("nowhere.test"), s.listener(), s.storage("http://b.test:8400", "http://gone.test:8400"))
	expect(t, r, CheckNames, Error, "cluster_addr: the name nowhere.test leads nowhere: no such host", "do: correct the name")
	expect(t, r, CheckNames, Error, "retry_join: the name gone.test leads nowhere")
	expect(t, r, CheckNames, Warning, "here.test is 127.0.0.1 here: nodes that see the same would talk to themselves")
	expect(t, r, CheckNames, OK, "b.test is 192.0.2.8")
	s.api = "http://" + s.address
	expect(t, s.run(s.listener(), s.storage()), CheckNames, OK, "127.0.0.1 is an address of this host")
}

// reply answers as a node does.
func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}

// fakeNode is another node's API.
type fakeNode struct {
	code    int
	health  map[string]any
	leader  map[string]any
	servers []member
	rootKey []byte
}

func healthy(code int, change ...any) *fakeNode {
	f := &fakeNode{code: code, health: map[string]any{"initialized": true, "sealed": false, "standby": code != 200, "version": "1.0",
		"cluster_id": "cluster-1", "server_time_utc": time.Now().Unix()}, leader: map[string]any{"leader_address": "http://x:8400"}}
	for i := 0; i+1 < len(change); i += 2 {
		f.health[change[i].(string)] = change[i+1]
	}
	return f
}

func (f *fakeNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/v1/sys/health":
		reply(w, f.code, f.health)
	case "/v1/sys/leader":
		reply(w, 200, f.leader)
	case "/v1/sys/storage/raft/configuration":
		if r.Header.Get("X-Vault-Token") != "s.token" {
			reply(w, 403, map[string]any{"errors": []string{"permission denied"}})
			return
		}
		reply(w, 200, map[string]any{"data": map[string]any{"config": map[string]any{"servers": f.servers}}})
	case "/v1/sys/storage/raft/bootstrap/challenge":
		if f.rootKey == nil {
			reply(w, 503, map[string]any{"errors": []string{"no active node"}})
			return
		}
		reply(w, 200, map[string]any{"data": map[string]any{"root_key": f.rootKey}})
	default:
		reply(w, 404, map[string]any{"errors": []string{}})
	}
}

func (f *fakeNode) start(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return s.URL
}

// fakeClusterPort speaks TLS under these protocols, as the node with this identity.
func fakeClusterPort(t *testing.T, id string, protocols ...string) string {
	t.Helper()
	pair, _, _ := issue(t, func(c *x509.Certificate) {
		c.URIs = []*url.URL{{Scheme: "locum", Host: "node", Path: "/" + id}}
	}, nil)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: protocols, ClientAuth: tls.RequireAnyClientCert})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
			_ = conn.(*tls.Conn).Handshake() // the client shows no certificate, so it ends so
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return ln.Addr().String()
}
