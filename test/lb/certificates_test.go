package lb

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// certificates are the files of one certificate for locum.example.com, which the nodes and the load balancers show, and
// of the authority that made it.
type certificates struct {
	ca, cert, key, both string
	pool                *x509.CertPool
}

func newCertificates(t *testing.T) *certificates {
	t.Helper()
	dir := t.TempDir()
	now := time.Now()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ok(t, "key", err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &caKey.PublicKey, caKey)
	ok(t, "authority", err)
	ca, err := x509.ParseCertificate(der)
	ok(t, "authority", err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ok(t, "key", err)
	leaf, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "locum.example.com"}, DNSNames: []string{"locum.example.com"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, &key.PublicKey, caKey)
	ok(t, "certificate", err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	ok(t, "key", err)

	c := &certificates{pool: x509.NewCertPool()}
	c.pool.AddCert(ca)
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		ok(t, name, os.WriteFile(path, data, 0o600))
		return path
	}
	c.ca = write("ca.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	c.cert, c.key = write("node.crt", certPEM), write("node.key", keyPEM)
	c.both = write("both.pem", append(append([]byte{}, certPEM...), keyPEM...))
	return c
}

// client follows redirects as http.Client does, up to ten, with a connection of its own each time.
func (c *certificates) client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: c.pool, ServerName: "locum.example.com"},
		DisableKeepAlives: true,
	}}
}

// keepAlive is the same with connections that are used again.
func (c *certificates) keepAlive() *http.Client {
	client := c.client()
	client.Transport.(*http.Transport).DisableKeepAlives = false
	return client
}
