package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/url"
	"testing"
	"time"
)

// forge signs a leaf with the authority's key as whoever holds it can, with a template of the forger's choice.
func forge(t *testing.T, a *Authority, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "node-x"},
		NotBefore:    a.cert.NotBefore,
		NotAfter:     a.cert.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{serverName},
		URIs:         []*url.URL{{Scheme: idScheme, Host: idHost, Path: "/id-x"}},
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// P9: only leaves of this term's authority, within its validity and naming a node, are let in.
func TestForeignAndExpiredCertificatesAreRefused(t *testing.T) {
	p := startPort(t, Config{})
	active := newActive(t, 7)
	handle(t, p, Protocol{ALPN: ALPNForward, TLS: active.ServerTLS, Serve: echo})
	good := newStandby(t, active.Advertise("", "", time.Now()))
	earlier := newActive(t, 6)
	authority := active.authority

	cases := map[string]tls.Certificate{
		"none":               {},
		"of an earlier term": newStandby(t, earlier.Advertise("", "", time.Now())).leaf,
		"expired": forge(t, authority, func(c *x509.Certificate) {
			c.NotBefore = authority.cert.NotBefore.Add(-2 * time.Hour)
			c.NotAfter = authority.cert.NotBefore.Add(-time.Hour)
		}),
		"not yet valid": forge(t, authority, func(c *x509.Certificate) { c.NotBefore = c.NotBefore.Add(time.Hour) }),
		"for servers": forge(t, authority, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}),
		"without a node": forge(t, authority, func(c *x509.Certificate) { c.URIs = nil }),
		"of a bad node":  forge(t, authority, func(c *x509.Certificate) { c.URIs[0].Path = "/../x" }),
		"minted by a leaf": forge(t, &Authority{cert: good.leaf.Leaf, key: good.leaf.PrivateKey.(*ecdsa.PrivateKey)},
			func(*x509.Certificate) {}),
	}
	for name, leaf := range cases {
		cfg := good.ClientTLS()
		cfg.Certificates = []tls.Certificate{leaf}
		if err := dialAndPing(t, p, cfg); err == nil {
			t.Errorf("a client certificate %s was let in", name)
		}
	}
	cfg := good.ClientTLS()
	cfg.Certificates = []tls.Certificate{forge(t, authority, func(*x509.Certificate) {})}
	if err := dialAndPing(t, p, cfg); err != nil {
		t.Errorf("the forger's own pattern: %v", err)
	}
}

// P9: a standby holds the authority's key and can mint a leaf in the active node's name; nobody believes it.
func TestStandbyCannotPoseAsActive(t *testing.T) {
	active := newActive(t, 7)
	ad := active.Advertise("", "", time.Now())
	leaf, err := ad.Authority.Mint("node-a", "id-a")
	if err != nil {
		t.Fatal(err)
	}
	impostor := startPort(t, Config{})
	handle(t, impostor, Protocol{
		ALPN:  ALPNForward,
		TLS:   func() *tls.Config { return serverTLS(leaf, []*Authority{ad.Authority}) },
		Serve: echo,
	})
	err = dialAndPing(t, impostor, newStandby(t, ad).ClientTLS())
	if !errors.Is(err, ErrPeer) {
		t.Errorf("dialling the impostor: %v, want ErrPeer", err)
	}
}

func TestPeerOfAnotherIdentityIsRefused(t *testing.T) {
	p := startPort(t, Config{})
	ring := newRing(t)
	handle(t, p, Protocol{ALPN: ALPNRaft, TLS: newPeer(t, ring, "n1").ServerTLS, Serve: echo})
	if err := dialAndPing(t, p, newPeer(t, ring, "n2").ClientTLS(ALPNRaft, "n1")); err != nil {
		t.Fatal(err)
	}
	err := dialAndPing(t, p, newPeer(t, ring, "n2").ClientTLS(ALPNRaft, "n3"))
	if !errors.Is(err, ErrPeer) {
		t.Errorf("n1 was taken for n3: %v, want ErrPeer", err)
	}
	if err := dialAndPing(t, p, newPeer(t, newRing(t), "n2").ClientTLS(ALPNRaft, "n1")); err == nil {
		t.Error("a node of another cluster was let in")
	}
}

// At no step of a rotation does a node that has taken it meet one that has not, and fail.
func TestRotationWithOverlap(t *testing.T) {
	old := newRing(t)
	// The new authority comes from a host whose clock is years behind: no host's clock decides.
	behind, err := NewClusterAuthority(time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	introduced := old.Introduce(behind)
	promoted := introduced.Promote()
	retired := promoted.Retire()
	if promoted.Minting() != behind || retired.Len() != 1 || introduced.Introduce(behind).Len() != 2 {
		t.Fatal("the steps of a rotation are wrong")
	}
	p := startPort(t, Config{})
	server := newPeer(t, old, "n1")
	handle(t, p, Protocol{ALPN: ALPNRaft, TLS: server.ServerTLS, Serve: echo})
	steps := []Ring{old, introduced, promoted, retired}
	for i, s := range steps {
		if err := server.Update(s); err != nil {
			t.Fatal(err)
		}
		for _, j := range []int{i - 1, i, i + 1} {
			if j < 0 || j >= len(steps) {
				continue
			}
			if err := dialAndPing(t, p, newPeer(t, steps[j], "n2").ClientTLS(ALPNRaft, "n1")); err != nil {
				t.Errorf("server at step %d, client at step %d: %v", i, j, err)
			}
		}
	}
	if err := dialAndPing(t, p, newPeer(t, old, "n2").ClientTLS(ALPNRaft, "n1")); err == nil {
		t.Error("a retired authority is still trusted")
	}
	if err := server.Update(Ring{}); err == nil {
		t.Error("an empty ring was put into force")
	}
}

func TestNodeIDIsChecked(t *testing.T) {
	a := newRing(t).Minting()
	for _, id := range []string{"", "a/b", "..", "ä", "a b", "-a", string(make([]byte, 200))} {
		if _, err := a.Mint("n", id); err == nil {
			t.Errorf("id %q was minted", id)
		}
	}
	leaf, err := a.Mint("node mit Namen ä", "5b1f0c1e-1111-4222-8333-444455556666")
	if err != nil {
		t.Fatal(err)
	}
	if id, err := NodeID(leaf.Leaf); err != nil || id != "5b1f0c1e-1111-4222-8333-444455556666" {
		t.Errorf("NodeID: %q, %v", id, err)
	}
}

func TestHostPort(t *testing.T) {
	for in, want := range map[string]string{
		"https://a.example.com:8401": "a.example.com:8401", "https://a.example.com": "a.example.com:443",
		"10.0.0.1:8401": "10.0.0.1:8401", "https://[::1]:8401": "[::1]:8401", "https://[::1]": "[::1]:443",
		"": "", "nonsense": "", ":8401": "", "https://": "",
	} {
		got, err := HostPort(in)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("HostPort(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
}
