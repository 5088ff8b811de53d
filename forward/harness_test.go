package forward

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/quickio"
)

// lease is a Lease that a test ends when it likes.
type lease struct {
	invalid atomic.Bool
	ctx     context.Context
	end     context.CancelCauseFunc
}

func newLease() *lease {
	l := &lease{}
	l.ctx, l.end = context.WithCancelCause(context.Background())
	return l
}

func (l *lease) Valid() bool              { return !l.invalid.Load() && l.ctx.Err() == nil }
func (l *lease) Context() context.Context { return l.ctx }

// node is one Router with a client listener and, by dial, a cluster side.
type node struct {
	*Router
	t    testing.TB
	name string
	http *httptest.Server

	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
	mu     sync.Mutex
	pipes  []net.Conn // cluster connections that this node serves
}

func newNode(t testing.TB, name string, change ...func(*Config)) *node {
	t.Helper()
	cfg := Config{Node: name, NodeID: "id-" + name, APIAddr: "http://" + name + ".example:8400", Logger: testLog(t)}
	for _, f := range change {
		f(&cfg)
	}
	r, err := NewRouter(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Router: r, t: t, name: name}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.work.Go(func() { _ = r.Run(n.ctx) })
	t.Cleanup(n.stop)
	return n
}

func (n *node) stop() {
	n.mu.Lock() // no dial is half way
	n.cancel()
	n.mu.Unlock()
	if n.http != nil {
		n.http.CloseClientConnections()
		n.http.Close()
	}
	n.work.Wait()
}

// serve opens the client listener.
func (n *node) serve() *node {
	n.http = httptest.NewUnstartedServer(n.Router)
	n.http.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	n.http.Config.Protocols = &p
	n.http.Start()
	return n
}

// dial connects a standby to this node, over loopback TCP with mutual TLS.
func (n *node) dial(from *node) func(context.Context) (net.Conn, error) {
	return n.dialOver(from, func() (a, b net.Conn) { return tlsPair(n.t) })
}

func (n *node) dialOver(from *node, pair func() (a, b net.Conn)) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		a, b := pair()
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.ctx.Err() != nil {
			a.Close()
			b.Close()
			return nil, net.ErrClosed
		}
		n.pipes = append(n.pipes, b)
		n.work.Go(func() { _ = n.ServeConn(n.ctx, b, from.cfg.NodeID, from.name) })
		return a, nil
	}
}

func (n *node) target(term uint64, from *node) Target {
	return Target{
		Term: term, NodeID: n.cfg.NodeID, Name: n.name, APIAddr: n.cfg.APIAddr, ClusterAddr: n.name + ":8401",
		Dial: n.dial(from),
	}
}

// pair is an active node and a connected standby with client listeners.
func pair(t testing.TB, h http.Handler, change ...func(*Config)) (active, standby *node, l *lease) {
	t.Helper()
	active, standby = newNode(t, "a", change...).serve(), newNode(t, "b", change...).serve()
	l = newLease()
	active.Lead(1, l, h)
	standby.Follow(active.target(1, standby))
	standby.waitUp()
	return active, standby, l
}

func (n *node) waitUp() {
	n.t.Helper()
	eventually(n.t, func() bool { c, ok := n.Connected(); return ok && c.Up })
}

func eventually(t testing.TB, f func() bool) {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatal("not within 10 s")
		}
	}
}

func get(t testing.TB, url string) (*http.Response, string) {
	t.Helper()
	return do(t, mustRequest(t, http.MethodGet, url, nil))
}

func mustRequest(t testing.TB, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// client never retries and never follows: what it sees is what was answered.
var client = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func do(t testing.TB, req *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: body: %v", req.Method, req.URL, err)
	}
	return res, string(b)
}

type logWriter struct{ t testing.TB }

var verbose = false

func testLog(t testing.TB) *slog.Logger {
	if !verbose {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(logWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

var testCert = sync.OnceValue(func() tls.Certificate {
	if cert, ok := importCert(); ok {
		return cert
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"test"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0), IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
})

func testTLS(protos ...string) *tls.Config {
	cert := testCert()
	pool := x509.NewCertPool()
	pool.AddCert(cert.Leaf)
	return &tls.Config{
		Certificates: []tls.Certificate{cert}, RootCAs: pool, ClientCAs: pool, ServerName: "test",
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13, NextProtos: protos,
		DynamicRecordSizingDisabled: true,
	}
}

// tcpPair is a connected pair of loopback connections.
func tcpPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		var err error
		b, err = l.Accept()
		done <- err
	}()
	a, err = net.Dial("tcp", l.Addr().String())
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	return quickio.Poll(a), quickio.Poll(b) // as package cluster has them
}

// tlsPair is that with mutual TLS. a is the client.
func tlsPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	rawA, rawB := tcpPair(t)
	return shakeHands(t, rawA, rawB)
}

func shakeHands(t testing.TB, rawA, rawB net.Conn) (a, b net.Conn) {
	t.Helper()
	ca, cb := tls.Client(rawA, testTLS("locum-forward/1")), tls.Server(rawB, testTLS("locum-forward/1"))
	done := make(chan error, 1)
	go func() { done <- cb.Handshake() }()
	if err := errors.Join(ca.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	return ca, cb
}

// checkLeaks fails the test if goroutines of this package are left when everything has been cleaned up.
// Call it first.
func checkLeaks(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		client.CloseIdleConnections()
		deadline := time.Now().Add(5 * time.Second)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			buf := make([]byte, 1<<20)
			buf = buf[:runtime.Stack(buf, true)]
			left := 0
			for g := range strings.SplitSeq(string(buf), "\n\n") {
				if strings.Contains(g, "locum/forward") && !strings.Contains(g, "testing.tRunner") && !strings.Contains(g, "testing.(*") {
					left++
				}
			}
			if left == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("%d goroutines left:\n%s", left, buf)
				return
			}
			<-tick.C
		}
	})
}

func readLine(t testing.TB, r *bufio.Reader) string {
	t.Helper()
	s, err := r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimRight(s, "\r\n")
}

func contextCause(r *http.Request) error { return context.Cause(r.Context()) }
