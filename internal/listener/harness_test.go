package listener

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// opened makes a listener, with the limits that the configuration's defaults are.
func opened(t testing.TB, h http.HandlerFunc, change ...func(*Config)) *Listener {
	t.Helper()
	cfg := Config{
		Network: "tcp", Address: "127.0.0.1:0", Handler: h, ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout: time.Minute, MinBodyRate: 256, MaxHeaderBytes: 64 << 10,
	}
	for _, f := range change {
		f(&cfg)
	}
	l, err := New(cfg)
	if err == nil {
		err = l.Open()
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// run serves until the test ends.
func (l *Listener) run(t testing.TB) *Listener {
	done := make(chan error, 1)
	go func() { done <- l.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // cut what is open
		_ = l.Shutdown(ctx)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l
}

// started is opened and run.
func started(t testing.TB, h http.HandlerFunc, change ...func(*Config)) *Listener {
	return opened(t, h, change...).run(t)
}

// dial opens a connection on which nothing takes longer than ten seconds.
func (l *Listener) dial(t testing.TB) net.Conn {
	t.Helper()
	c, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err == nil {
		t.Cleanup(func() { c.Close() })
		err = c.SetDeadline(time.Now().Add(10 * time.Second))
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func send(t testing.TB, c io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// answer reads one answer: its status and its body.
func answer(t testing.TB, c io.Reader) (int, string) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// closed wants the server to end a connection without an answer.
func closed(t testing.TB, c io.Reader) {
	t.Helper()
	data, err := io.ReadAll(c)
	if len(data) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%q, %v; want the connection closed without a word", data, err)
	}
}

// whoami tells a client what the listener takes it for.
func whoami(w http.ResponseWriter, r *http.Request) {
	words := []string{r.RemoteAddr}
	if Authorized(r) {
		words = append(words, "authorized")
	}
	_, _ = io.WriteString(w, strings.Join(words, " "))
}

const get = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

// authority is a CA of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{}
	a.cert, a.key = certificate(t, name, nil)
	return a
}

func certificate(t testing.TB, name string, by *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: by == nil, BasicConstraintsValid: true,
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// leaf is a certificate for 127.0.0.1.
func (a *authority) leaf(t testing.TB, name string) tls.Certificate {
	t.Helper()
	cert, key := certificate(t, name, a)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// files holds a listener's TLS files.
type files struct {
	t    testing.TB
	conf TLS
}

func newFiles(t testing.TB) *files {
	dir := t.TempDir()
	return &files{t, TLS{
		CertFile: filepath.Join(dir, "node.crt"), KeyFile: filepath.Join(dir, "node.key"), MinVersion: tls.VersionTLS12,
	}}
}

// identity writes a certificate and its key.
func (f *files) identity(cert tls.Certificate) {
	f.t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		f.t.Fatal(err)
	}
	f.write(f.conf.CertFile, "CERTIFICATE", cert.Certificate[0])
	f.write(f.conf.KeyFile, "PRIVATE KEY", key)
}

// clients writes the authorities of clients' certificates.
func (f *files) clients(a *authority) {
	f.t.Helper()
	f.conf.ClientCAFile = filepath.Join(filepath.Dir(f.conf.CertFile), "clients.pem")
	f.write(f.conf.ClientCAFile, "CERTIFICATE", a.cert.Raw)
}

func (f *files) write(name, kind string, der []byte) {
	f.t.Helper()
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f *files) use(c *Config) { c.TLS = &f.conf }
