package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/url"
	"regexp"
	"time"
)

// serverName stands in every leaf as its DNS name. Which node it is says the URI beside it: nodes have no
// DNS name that they could prove.
const serverName = "node.locum"

const idScheme, idHost = "locum", "node"

var validID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// Mint makes a leaf certificate with a fresh P-256 key for the node with this name and identity, for both
// ends of a connection.
func (a *Authority) Mint(name, id string) (tls.Certificate, error) {
	return a.mint(elliptic.P256(), name, id, x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth)
}

func (a *Authority) mint(curve elliptic.Curve, name, id string, usages ...x509.ExtKeyUsage) (tls.Certificate, error) {
	if !validID.MatchString(id) {
		return tls.Certificate{}, fmt.Errorf("node id %q: letters, digits, \".\", \"_\" and \"-\" only, at most 128", id)
	}
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("making a leaf's key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    a.cert.NotBefore,
		NotAfter:     a.cert.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  usages,
		DNSNames:     []string{serverName},
		URIs:         []*url.URL{{Scheme: idScheme, Host: idHost, Path: "/" + id}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("minting a leaf for node %q: %w", name, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("reading back a leaf for node %q: %w", name, err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// NodeID returns the identity that a leaf certificate carries.
func NodeID(cert *x509.Certificate) (string, error) {
	for _, uri := range cert.URIs {
		if uri.Scheme == idScheme && uri.Host == idHost && len(uri.Path) > 1 && validID.MatchString(uri.Path[1:]) {
			return uri.Path[1:], nil
		}
	}
	return "", fmt.Errorf("%w: certificate names no node", ErrPeer)
}

// Pin is the SHA-256 of a leaf certificate.
type Pin [sha256.Size]byte

func pinOf(cert *x509.Certificate) Pin { return sha256.Sum256(cert.Raw) }

// pool returns the authorities as a pool, and an instant inside the validity of each of them at which
// leaves are to be checked. All authorities are valid to the end of time, so the latest beginning is one.
func pool(authorities []*Authority) (*x509.CertPool, func() time.Time) {
	certs := x509.NewCertPool()
	var instant time.Time
	for _, a := range authorities {
		certs.AddCert(a.cert)
		if a.cert.NotBefore.After(instant) {
			instant = a.cert.NotBefore
		}
	}
	return certs, func() time.Time { return instant }
}

// serverTLS is what every server side on the cluster port has in common: a leaf of its own, and a peer that
// proves a leaf of one of the authorities.
func serverTLS(leaf tls.Certificate, authorities []*Authority) *tls.Config {
	clients, instant := pool(authorities)
	return &tls.Config{
		MinVersion:                  tls.VersionTLS12,
		DynamicRecordSizingDisabled: true, // answers are written as a whole: small first records would only cost
		Certificates:                []tls.Certificate{leaf},
		ClientAuth:                  tls.RequireAndVerifyClientCert,
		ClientCAs:                   clients,
		Time:                        instant,
		SessionTicketsDisabled:      true, // connections are few and long; every one proves its identity anew
		VerifyConnection: func(state tls.ConnectionState) error {
			if stateID(state) == "" {
				return fmt.Errorf("%w: certificate names no node", ErrPeer)
			}
			return nil
		},
	}
}

// clientTLS is what every client side has in common. check decides about a peer whose chain has been verified.
func clientTLS(alpn string, leaf tls.Certificate, authorities []*Authority, check func(*x509.Certificate) error) *tls.Config {
	servers, instant := pool(authorities)
	return &tls.Config{
		MinVersion:                  tls.VersionTLS12,
		DynamicRecordSizingDisabled: true, // answers are written as a whole: small first records would only cost
		NextProtos:                  []string{alpn},
		ServerName:                  serverName,
		Certificates:                []tls.Certificate{leaf},
		RootCAs:                     servers,
		Time:                        instant,
		SessionTicketsDisabled:      true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if state.NegotiatedProtocol != alpn {
				return fmt.Errorf("%w: it does not speak %s", ErrPeer, alpn)
			}
			if len(state.VerifiedChains) == 0 {
				return fmt.Errorf("%w: no verified certificate", ErrPeer)
			}
			return check(state.PeerCertificates[0])
		},
	}
}
