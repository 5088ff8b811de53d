package listener

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// TLS names the files of a listener's identity.
type TLS struct {
	CertFile, KeyFile string
	ClientCAFile      string // clients must show a certificate of one of these authorities; "": none is asked for
	MinVersion        uint16 // tls.VersionTLS12 or later
}

// load reads the files. Each result has session ticket keys of its own, so that a client that was let in under earlier
// authorities does not resume its session under later ones.
func (t *TLS) load() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("tls_cert_file, tls_key_file: %w", err)
	}
	cfg := &tls.Config{MinVersion: t.MinVersion, Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}}
	if t.ClientCAFile == "" {
		return cfg, nil
	}
	pem, err := os.ReadFile(t.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("tls_client_ca_file: %w", err)
	}
	cfg.ClientCAs = x509.NewCertPool()
	if !cfg.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls_client_ca_file %s holds no PEM certificate", t.ClientCAFile)
	}
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	return cfg, nil
}

// Load reads the certificate, its key and the clients' authorities again. What it returns puts them in force, for
// connections from then on; those that are open stay as they are. On an error nothing changes.
func (l *Listener) Load() (use func(), err error) {
	if l.cfg.TLS == nil {
		return func() {}, nil
	}
	cfg, err := l.cfg.TLS.load()
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w", l.cfg.Address, err)
	}
	return func() { l.tls.Store(cfg) }, nil
}
