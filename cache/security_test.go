package cache

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

const testToken = "a token for these tests only"

// tap sees everything that goes over a connection.
type tap struct {
	net.Conn
	mu   *sync.Mutex
	seen *bytes.Buffer
}

func (c tap) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.seen.Write(b)
	c.mu.Unlock()
	return c.Conn.Write(b)
}

// pair joins two ends over loopback.
func pair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	if a, err = net.Dial("tcp", ln.Addr().String()); err == nil {
		b, err = ln.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	for _, c := range []net.Conn{a, b} {
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	return a, b
}

// derived are the keys made so far: making them is slow by intention.
var derived sync.Map

func keysOf(t *testing.T, token Secret) *keys {
	t.Helper()
	if k, ok := derived.Load(token); ok {
		return k.(*keys)
	}
	k, err := deriveKeys(token)
	if err != nil {
		t.Fatal(err)
	}
	derived.Store(token, k)
	return k
}

// TestTokenProven: the token is proven in both directions by challenge and never sent (issue "Security").
func TestTokenProven(t *testing.T) {
	right, wrong := keysOf(t, testToken), keysOf(t, "another token")
	for _, c := range []struct {
		name         string
		dial, accept *keys
		ok           bool
	}{{"both know it", right, right, true}, {"the dialler does not", wrong, right, false}, {"the other does not", right, wrong, false}} {
		t.Run(c.name, func(t *testing.T) {
			a, b := pair(t)
			var mu sync.Mutex
			var seen bytes.Buffer
			accepted := make(chan error, 1)
			admitted := false
			go func() {
				_, err := (&dialer{keys: c.accept}).accept(tap{b, &mu, &seen}, func(hello) bool { admitted = true; return true })
				_ = b.Close()
				accepted <- err
			}()
			err := (&dialer{keys: c.dial}).open(tap{a, &mu, &seen}, hello{purpose: forStatus, from: "me", host: "h:1"})
			if (err == nil) != c.ok {
				t.Errorf("dialler: %v", err)
			}
			_ = a.Close()
			if err := <-accepted; (err == nil) != c.ok || admitted != c.ok {
				t.Errorf("the other: %v, admitted %v", err, admitted)
			}
			if bytes.Contains(seen.Bytes(), []byte(testToken)) {
				t.Error("the token was sent")
			}
		})
	}
}

// TestProofIsBound: a proof is good for its connection only: it cannot be sent back, or passed on.
func TestProofIsBound(t *testing.T) {
	k := keysOf(t, testToken)
	d := &dialer{keys: k}
	a, b := pair(t)
	go func() { // answers with what it is sent, as one who knows nothing must
		buf := make([]byte, 4096)
		n, _ := b.Read(buf)
		_, _ = b.Write(append([]byte{statusOK}, append(buf[:n], buf[:n]...)...))
		_, _ = io.Copy(b, b)
	}()
	if err := d.open(a, hello{purpose: forStatus, from: "me", host: "h:1"}); !errors.Is(err, errProof) {
		t.Errorf("who sends back what it gets: %v", err)
	}
	h, nonce := []byte("hello"), []byte("nonce")
	if bytes.Equal(d.proof("dials", a, h, nonce), d.proof("accepts", a, h, nonce)) {
		t.Error("one side's proof is the other's")
	}
}

// TestTLSFromToken: without the token nobody gets through the TLS handshake, in either role.
func TestTLSFromToken(t *testing.T) {
	server, _, err := keysOf(t, testToken).certificates()
	if err != nil {
		t.Fatal(err)
	}
	_, friend, err := keysOf(t, testToken).certificates()
	if err != nil {
		t.Fatal(err)
	}
	_, stranger, err := keysOf(t, "another token").certificates()
	if err != nil {
		t.Fatal(err)
	}
	bare := friend.Clone()
	bare.Certificates = nil
	for name, c := range map[string]struct {
		client *tls.Config
		ok     bool
	}{"a node of another process": {friend, true}, "another token": {stranger, false}, "no certificate": {bare, false}} {
		a, b := pair(t)
		done := make(chan error, 1)
		go func() {
			s := tls.Server(b, server)
			err := s.HandshakeContext(t.Context())
			if err == nil {
				_, err = s.Write([]byte("x"))
			}
			if err != nil {
				_ = b.Close()
			}
			done <- err
		}()
		cl := tls.Client(a, c.client)
		err := cl.HandshakeContext(t.Context())
		if err == nil {
			_, err = cl.Read(make([]byte, 1))
		} else {
			_ = a.Close()
		}
		if serr := <-done; (err == nil) != c.ok || (serr == nil) != c.ok {
			t.Errorf("%s: client %v, server %v", name, err, serr)
		}
	}
}

// TestBoundProof: the proof of the token is bound to its connection, or is none: own certificates need TLS 1.3.
func TestBoundProof(t *testing.T) {
	server, client, err := keysOf(t, testToken).certificates()
	if err != nil {
		t.Fatal(err)
	}
	server, client = server.Clone(), client.Clone()
	client.Renegotiation = tls.RenegotiateOnceAsClient // nothing can be bound to that
	a, b := pair(t)
	s, c := tls.Server(b, server), tls.Client(a, client)
	done := make(chan error, 1)
	go func() { done <- s.HandshakeContext(t.Context()) }()
	if err := errors.Join(c.HandshakeContext(t.Context()), <-done); err != nil {
		t.Fatal(err)
	}
	d := &dialer{keys: keysOf(t, testToken)}
	if d.proof("dials", c, []byte("h"), []byte("n")) != nil || d.proof("accepts", s, []byte("h"), []byte("n")) == nil {
		t.Error("a proof without a binding, or none with one")
	}
	own := TLS{Server: server, Client: client}
	if err := own.validate(); err != nil {
		t.Errorf("TLS 1.3: %v", err)
	}
	client.MinVersion = tls.VersionTLS12
	if err := own.validate(); err == nil {
		t.Error("TLS 1.2 is taken")
	}
}

// TestWrongToken: a node with another token stays out and is told nothing but that; the others go on. A silent
// connection holds nobody up (P9).
func TestWrongToken(t *testing.T) {
	t.Parallel() // it waits more than it works
	hosts := freePorts(t, 3)
	run := func(self string, token Secret, plain bool) *Node {
		n, err := New(Config{
			Hosts: hosts, Self: self, AuthToken: token, TLS: TLS{Disabled: plain},
			ElectionTimeout: 250 * time.Millisecond, QuorumLossTimeout: time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		return n
	}
	a, b := run(hosts[0], testToken, true), run(hosts[1], testToken, true)
	out := run(hosts[2], "another token", true)
	for range 20 {
		conn, err := net.Dial("tcp", hosts[0])
		if err != nil {
			continue // it is about to listen
		}
		defer func() { _ = conn.Close() }()
	}
	waitFor(t, 15*time.Second, "the two that know the token", func() bool {
		return a.Health().Status == Degraded && b.Health().Status == Degraded
	})
	if _, err := a.Cache("c").Put(t.Context(), "k", nil, NoExpiry, Quorum); err != nil {
		t.Fatal(err)
	}
	if out.Health().Status != Bad {
		t.Fatalf("without the token: %+v", out.Health())
	}
	if s := Secret(testToken).String(); strings.Contains(s, "token") {
		t.Error("a secret prints itself")
	}
}
