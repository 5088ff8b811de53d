package storeserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Certificates are PEM files for servers that speak TLS: an authority, the server's certificate for 127.0.0.1 and
// localhost, and a client's with the common name "client". The Both files hold key and certificate in one.
type Certificates struct {
	CA, ServerCert, ServerKey, ServerBoth, ClientCert, ClientKey string
}

// NewCertificates makes them in the test's directory.
func NewCertificates(t T) Certificates {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		if err != nil {
			t.Fatalf("certificates: %v", err)
		}
	}
	write := func(name, kind string, der ...[]byte) string {
		path := filepath.Join(dir, name)
		var text []byte
		for i, d := range der {
			k := kind
			if i > 0 {
				k = "CERTIFICATE"
			}
			text = append(text, pem.EncodeToMemory(&pem.Block{Type: k, Bytes: d})...)
		}
		must(os.WriteFile(path, text, 0o600))
		return path
	}
	template := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			KeyUsage:    x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
	}
	authority := template(1, "test authority")
	authority.IsCA, authority.BasicConstraintsValid, authority.KeyUsage = true, true, x509.KeyUsageCertSign
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	root, err := x509.CreateCertificate(rand.Reader, authority, authority, &authorityKey.PublicKey, authorityKey)
	must(err)
	issue := func(leaf *x509.Certificate) (cert, key []byte) {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(err)
		cert, err = x509.CreateCertificate(rand.Reader, leaf, authority, &private.PublicKey, authorityKey)
		must(err)
		key, err = x509.MarshalPKCS8PrivateKey(private)
		must(err)
		return cert, key
	}
	server := template(2, "server")
	server.IPAddresses, server.DNSNames = []net.IP{net.IPv4(127, 0, 0, 1)}, []string{"localhost"}
	serverCert, serverKey := issue(server)
	clientCert, clientKey := issue(template(3, "client"))
	const cert, key = "CERTIFICATE", "PRIVATE KEY"
	return Certificates{
		CA: write("ca.pem", cert, root), ServerCert: write("server.pem", cert, serverCert), ServerKey: write("server-key.pem", key, serverKey),
		ServerBoth: write("server-both.pem", key, serverKey, serverCert),
		ClientCert: write("client.pem", cert, clientCert), ClientKey: write("client-key.pem", key, clientKey),
	}
}
