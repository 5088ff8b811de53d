package cluster

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"time"
)

const authorityFormat = 1

// noEnd is the instant that RFC 5280 §4.1.2.5 gives certificates without a well-defined end: what ends an
// authority is the next term, or its rotation, and no clock.
var noEnd = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// Authority is an ECDSA P-521 key with its self-signed certificate. Leaves minted from it are valid as long
// as it is. It is secret, prints without its key, and is safe for concurrent use.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewTermAuthority makes the authority that forwarding uses during one term.
func NewTermAuthority(term uint64, now time.Time) (*Authority, error) {
	return newAuthority(fmt.Sprintf("locum term %d", term), now)
}

// NewClusterAuthority makes an authority for what nodes say to one another whether or not one is active.
func NewClusterAuthority(now time.Time) (*Authority, error) {
	return newAuthority("locum cluster", now)
}

func newAuthority(name string, now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making an authority's key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		// The serial in the name tells two authorities of one kind apart in a pool.
		Subject:               pkix.Name{CommonName: name, SerialNumber: serial.Text(16)},
		NotBefore:             now.UTC().Truncate(time.Second),
		NotAfter:              noEnd,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making an authority's certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading back an authority's certificate: %w", err)
	}
	return &Authority{cert: cert, key: key}, nil
}

func newSerial() (*big.Int, error) {
	// 127 random bits: positive and at most 20 octets, as RFC 5280 asks.
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("making a serial number: %w", err)
	}
	return serial.Add(serial, big.NewInt(1)), nil
}

// authorityRecord is the stored format of an Authority. Fields may be added within a format; a reader
// ignores those that it does not know.
type authorityRecord struct {
	Format      int    `json:"format"`
	Certificate []byte `json:"certificate"` // DER
	Key         []byte `json:"key"`         // PKCS #8, DER
}

// Marshal returns the authority in its stored format. The bytes hold its private key.
func (a *Authority) Marshal() ([]byte, error) {
	record, err := a.record()
	if err != nil {
		return nil, err
	}
	return json.Marshal(record)
}

func (a *Authority) record() (authorityRecord, error) {
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return authorityRecord{}, fmt.Errorf("writing an authority's key: %w", err)
	}
	return authorityRecord{Format: authorityFormat, Certificate: a.cert.Raw, Key: key}, nil
}

// ParseAuthority reads what Marshal wrote. It returns [ErrNewerFormat] or [ErrMalformed].
func ParseAuthority(data []byte) (*Authority, error) {
	if err := checkFormat(data, "authority", authorityFormat); err != nil {
		return nil, err
	}
	var record authorityRecord
	if err := json.Unmarshal(data, &record); err != nil {
		return nil, fmt.Errorf("%w authority: not the JSON of format %d", ErrMalformed, authorityFormat)
	}
	return record.parse()
}

// parse never puts bytes of the record into an error: they may be the key.
func (r authorityRecord) parse() (*Authority, error) {
	cert, err := x509.ParseCertificate(r.Certificate)
	if err != nil {
		return nil, fmt.Errorf("%w authority: certificate does not parse", ErrMalformed)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(r.Key)
	if err != nil {
		return nil, fmt.Errorf("%w authority: key does not parse", ErrMalformed)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	switch {
	case !ok || key.Curve != elliptic.P521():
		return nil, fmt.Errorf("%w authority: key is not ECDSA P-521", ErrMalformed)
	case !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return nil, fmt.Errorf("%w authority: certificate is not an authority's", ErrMalformed)
	case !key.PublicKey.Equal(cert.PublicKey):
		return nil, fmt.Errorf("%w authority: key and certificate do not belong together", ErrMalformed)
	case !cert.NotBefore.Before(cert.NotAfter):
		return nil, fmt.Errorf("%w authority: certificate is never valid", ErrMalformed)
	case !bytes.Equal(cert.RawIssuer, cert.RawSubject) || cert.CheckSignatureFrom(cert) != nil:
		return nil, fmt.Errorf("%w authority: certificate is not self-signed", ErrMalformed)
	}
	return &Authority{cert: cert, key: key}, nil
}

// checkFormat reads the format number alone, so that a newer record is told from a broken one.
func checkFormat(data []byte, what string, known int) error {
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return fmt.Errorf("%w %s: not JSON with a format number", ErrMalformed, what)
	}
	return knownFormat(head.Format, what, known)
}

func knownFormat(format int, what string, known int) error {
	switch {
	case format > known:
		return fmt.Errorf("%s of format %d, known up to %d: %w; upgrade this node", what, format, known, ErrNewerFormat)
	case format < 1:
		return fmt.Errorf("%w %s: format %d", ErrMalformed, what, format)
	}
	return nil
}

// Fingerprint is the SHA-256 of the certificate in hex: it names the authority in logs.
func (a *Authority) Fingerprint() string {
	sum := sha256.Sum256(a.cert.Raw)
	return hex.EncodeToString(sum[:])
}

// Equal reports whether both are the same authority.
func (a *Authority) Equal(o *Authority) bool { return o != nil && a.cert.Equal(o.cert) }

// String names the authority and its fingerprint's beginning, without the key.
func (a *Authority) String() string {
	return fmt.Sprintf("%s (%s)", a.cert.Subject.CommonName, a.Fingerprint()[:12])
}

// GoString keeps the key out of %#v.
func (a *Authority) GoString() string { return "cluster.Authority{" + a.String() + "}" }
