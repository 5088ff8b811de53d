package cache

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/storeserver"
)

// authority makes certificates for tests, as PEM files.
type authority struct {
	t    *testing.T
	dir  string
	name string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t, dir: t.TempDir(), name: name}
	a.cert, a.key = a.issue(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, "ca")
	return a
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) issue(template *x509.Certificate, name string) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(a.file(file), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return cert, key
}

// leaf issues a certificate for a name, for both sides.
func (a *authority) leaf(file, name string) {
	a.issue(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, file)
}

// A renewed certificate is used without a restart; half of one is not.
func TestRenewedCertificate(t *testing.T) {
	ca := newAuthority(t, "test authority")
	ca.leaf("node", "before.local")
	p, err := loadKeyPair(ca.file("node.pem"), ca.file("node.key"))
	if err != nil {
		t.Fatal(err)
	}
	shows := func(name string) {
		t.Helper()
		server, _ := p.server(nil)
		client, _ := p.client(nil)
		for _, c := range []*tls.Certificate{server, client} {
			if c.Leaf.Subject.CommonName != name {
				t.Errorf("the certificate is of %s, not of %s", c.Leaf.Subject.CommonName, name)
			}
		}
	}
	shows("before.local")
	key, err := os.ReadFile(ca.file("node.key"))
	if err != nil {
		t.Fatal(err)
	}
	ca.leaf("node", "after.local")
	renewed, err := os.ReadFile(ca.file("node.key"))
	if err != nil {
		t.Fatal(err)
	}
	write := func(key []byte) {
		if err := os.WriteFile(ca.file("node.key"), key, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(key) // the new certificate, and the old one's key
	shows("before.local")
	write(renewed)
	shows("after.local")
}

// TestEnvironmentCertificates: nodes with certificates of one's own find one another, by the name that is to be valid; with a name that
// the certificates do not have they do not (issue 6, 7).
func TestEnvironmentCertificates(t *testing.T) {
	ca := newAuthority(t, "test authority")
	ca.leaf("node", "redhac.local")
	for _, c := range []struct {
		name  string
		more  []string
		forms bool
	}{
		{"valid name", []string{"CACHE_TLS_CLIENT_VALIDATE_DOMAIN", "redhac.local"}, true},
		{"valid name, other SNI", []string{"CACHE_TLS_CLIENT_VALIDATE_DOMAIN", "redhac.local", "CACHE_TLS_SNI_OVERWRITE", "front.example"}, true},
		{"SNI alone", []string{"CACHE_TLS_SNI_OVERWRITE", "redhac.local"}, true},
		{"other name", []string{"CACHE_TLS_CLIENT_VALIDATE_DOMAIN", "other.local"}, false},
		{"other name, right SNI", []string{"CACHE_TLS_CLIENT_VALIDATE_DOMAIN", "other.local", "CACHE_TLS_SNI_OVERWRITE", "redhac.local"}, false},
		{"the host, which the certificate does not have", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			hosts := freeHosts(t, 2)
			health := make(chan Health, 100)
			for _, host := range hosts {
				v := three(append([]string{"HA_HOSTS", "https://" + hosts[0] + ",https://" + hosts[1], "HOSTNAME_OVERWRITE", host,
					"CACHE_TLS_SERVER_CERT", ca.file("node.pem"), "CACHE_TLS_SERVER_KEY", ca.file("node.key"),
					"CACHE_TLS_CLIENT_CERT", ca.file("node.pem"), "CACHE_TLS_CLIENT_KEY", ca.file("node.key"),
					"CACHE_TLS_CA_SERVER", ca.file("ca.pem"), "CACHE_TLS_CA_CLIENT", ca.file("ca.pem")}, c.more...)...)
				env, err := read("app-1", v)
				if err != nil {
					t.Fatal(err)
				}
				env.Config.Observer.Health = func(h Health) {
					select {
					case health <- h:
					default: // enough has been told
					}
				}
				runNode(t, env.Config)
			}
			limit := time.After(time.Minute)
			if !c.forms {
				limit = time.After(2 * time.Second)
			}
			for {
				select {
				case h := <-health:
					if h.Status == Good {
						if !c.forms {
							t.Error("a cache formed, although the certificates are not valid for the name")
						}
						return
					}
				case <-limit:
					if c.forms {
						t.Error("no cache formed within a minute")
					}
					return
				}
			}
		})
	}
}

// freeHosts finds ports that nobody listens on now.
func freeHosts(t *testing.T, n int) []string {
	t.Helper()
	var hosts []string
	for range n {
		hosts = append(hosts, storeserver.Loopback(storeserver.FreePort(t)))
	}
	return hosts
}

// runNode runs a node for as long as the test does.
func runNode(t *testing.T, cfg Config) *Node {
	t.Helper()
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("cache: %v", err)
		}
	})
	return n
}

// TestBothFamilies: "IPv4 and IPv6": hosts of either kind, and names, in one list, over the network as it is.
func TestBothFamilies(t *testing.T) {
	t.Parallel() // it waits more than it works
	if ln, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skipf("no IPv6 here: %v", err)
	} else if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	ports := freeHosts(t, 3)
	hosts := make([]string, len(ports))
	for i, host := range []string{"127.0.0.1", "::1", "localhost"} {
		_, port, err := net.SplitHostPort(ports[i])
		if err != nil {
			t.Fatal(err)
		}
		hosts[i] = net.JoinHostPort(host, port)
	}
	var nodes []*Node
	for _, host := range hosts {
		env, err := read("app-1", three("HA_HOSTS", "http://"+strings.Join(hosts, "\nhttp://"), "HOSTNAME_OVERWRITE", host,
			"CACHE_ELECTION_TIMEOUT", "2")) // no election is to be expected, on a busy machine either
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, runNode(t, env.Config))
	}
	for i, n := range nodes {
		waitFor(t, time.Minute, "the hosts to be connected", func() bool { return len(n.Health().Connected) == 3 })
		if _, err := n.Cache("c").Put(t.Context(), hosts[i], []byte("v"), NoExpiry, Quorum); err != nil {
			t.Errorf("at %s: %v", hosts[i], err)
		}
		for _, key := range hosts[:i+1] {
			if _, err := n.Cache("c").Get(t.Context(), key, Consistent); err != nil {
				t.Errorf("%s at %s: %v", key, hosts[i], err)
			}
		}
	}
}
