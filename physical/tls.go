package physical

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// ClientTLS is how a store's client proves who it is and whom it believes. The zero value believes the system's
// authorities and shows nothing.
type ClientTLS struct {
	CAFile     string // PEM file of the authorities to verify the server with; "": the system's
	CertFile   string // PEM file of a certificate to show to the server; needs KeyFile
	KeyFile    string // PEM file of that certificate's private key
	ServerName string // the name to expect in the server's certificate; "": the host that is dialled
	SkipVerify bool   // believe any server: for trying out
}

// IsZero reports whether nothing is set.
func (t ClientTLS) IsZero() bool { return t == ClientTLS{} }

// Load reads the files. TLS 1.2 is the least. A certificate that is renewed in its files is shown from the next
// connection on.
func (t ClientTLS) Load() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName, InsecureSkipVerify: t.SkipVerify}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("authorities: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("authorities: %s holds no certificate in PEM", t.CAFile)
		}
	}
	switch {
	case t.CertFile == "" && t.KeyFile == "":
		return c, nil
	case t.CertFile == "" || t.KeyFile == "":
		return nil, errors.New("a certificate and its key go together: one of the two files is missing")
	}
	if _, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile); err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		return &cert, err
	}
	return c, nil
}
