package cache

import (
	"crypto/tls"
	"sync/atomic"
)

// keyPair is a certificate and its key in files, which are read again with each handshake: a renewed one is used without a restart. One that cannot
// be used changes nothing. The nodes of a cache have a few connections that last, so this is seldom.
type keyPair struct {
	certFile, keyFile string
	good              atomic.Pointer[tls.Certificate] // what was read last
}

func loadKeyPair(certFile, keyFile string) (*keyPair, error) {
	p := &keyPair{certFile: certFile, keyFile: keyFile}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	p.good.Store(&pair)
	return p, err
}

func (p *keyPair) current() *tls.Certificate {
	if pair, err := tls.LoadX509KeyPair(p.certFile, p.keyFile); err == nil {
		p.good.Store(&pair)
	}
	return p.good.Load()
}

// server is a tls.Config's GetCertificate.
func (p *keyPair) server(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.current(), nil }

// client is a tls.Config's GetClientCertificate.
func (p *keyPair) client(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return p.current(), nil
}
