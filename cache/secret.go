package cache

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"
)

// keys is what is made from the token. Making it is slow by intention: who sees a handshake could otherwise
// try tokens by the million.
type keys struct {
	proof []byte // of the challenge
	ca    ed25519.PrivateKey
}

const stretchRounds = 200_000

func deriveKeys(token Secret) (*keys, error) {
	root, err := pbkdf2.Key(sha256.New, string(token), []byte("locum cache token"), stretchRounds, 32)
	if err != nil {
		return nil, fmt.Errorf("cache: deriving keys: %w", err)
	}
	proof, err := hkdf.Expand(sha256.New, root, "locum cache proof", 32)
	if err != nil {
		return nil, fmt.Errorf("cache: deriving keys: %w", err)
	}
	ca, err := hkdf.Expand(sha256.New, root, "locum cache authority", ed25519.SeedSize)
	if err != nil {
		return nil, fmt.Errorf("cache: deriving keys: %w", err)
	}
	return &keys{proof: proof, ca: ed25519.NewKeyFromSeed(ca)}, nil
}

// The authority is the same on all nodes and valid for ever: it ends with the token. Certificates are checked
// at an instant inside its validity, since clocks may be wrong and have no say here.
var (
	authorityFrom = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	authorityTo   = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	authorityAt   = time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC)
)

const tlsName = "locum-cache"

// certificates makes both sides' configurations from the token's authority, with a fresh key of this node's.
func (k *keys) certificates() (server, client *tls.Config, err error) {
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "locum cache"},
		NotBefore: authorityFrom, NotAfter: authorityTo,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, k.ca.Public(), k.ca)
	if err != nil {
		return nil, nil, fmt.Errorf("cache: making the authority: %w", err)
	}
	if ca, err = x509.ParseCertificate(caDER); err != nil {
		return nil, nil, fmt.Errorf("cache: making the authority: %w", err)
	}
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("cache: making a key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, fmt.Errorf("cache: making a serial number: %w", err)
	}
	leaf := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: tlsName}, DNSNames: []string{tlsName},
		NotBefore: authorityFrom, NotAfter: authorityTo, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, pub, k.ca)
	if err != nil {
		return nil, nil, fmt.Errorf("cache: making a certificate: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	base := tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: priv}},
		Time: func() time.Time { return authorityAt }, SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true,
	}
	server, client = base.Clone(), base.Clone()
	server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, pool
	client.RootCAs, client.ServerName = pool, tlsName
	return server, client, nil
}
