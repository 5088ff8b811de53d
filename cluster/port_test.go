package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const patience = 10 * time.Second

// startPort runs a port on a free port until the test ends, and checks that nothing is left of it then.
func startPort(t *testing.T, cfg Config) *Port {
	t.Helper()
	cfg.Address = "127.0.0.1:0"
	p, err := NewPort(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run did not return")
		}
	})
	return p
}

func echo(_ context.Context, conn *tls.Conn) { _, _ = io.Copy(conn, conn) }

func handle(t *testing.T, p *Port, proto Protocol) (remove func()) {
	t.Helper()
	remove, err := p.Handle(proto)
	if err != nil {
		t.Fatal(err)
	}
	return remove
}

func newActive(t *testing.T, term uint64) *ActiveIdentity {
	t.Helper()
	a, err := NewActiveIdentity(term, "node-a", "id-a", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newStandby(t *testing.T, ad Advertisement) *StandbyIdentity {
	t.Helper()
	s, err := NewStandbyIdentity(ad, "node-b", "id-b")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newPeer(t *testing.T, ring Ring, id string) *PeerIdentity {
	t.Helper()
	p, err := NewPeerIdentity(ring, "name-"+id, id)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newRing(t *testing.T) Ring {
	t.Helper()
	a, err := NewClusterAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return NewRing(a)
}

// pingPong proves that the server let the client in: with TLS 1.3 that shows at the first read only.
func pingPong(conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write([]byte("ping")); err != nil {
		return err
	}
	answer := make([]byte, 4)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if string(answer) != "ping" {
		return errors.New("wrong answer " + string(answer))
	}
	return nil
}

func dialAndPing(t *testing.T, p *Port, cfg *tls.Config) error {
	t.Helper()
	conn, err := Dial(t.Context(), p.Addr().String(), cfg)
	if err != nil {
		return err
	}
	defer conn.Close()
	return pingPong(conn)
}

func TestForwardingBetweenActiveAndStandby(t *testing.T) {
	p := startPort(t, Config{})
	active := newActive(t, 7)
	names := make(chan string, 1)
	handle(t, p, Protocol{ALPN: ALPNForward, TLS: active.ServerTLS, Serve: func(ctx context.Context, conn *tls.Conn) {
		names <- PeerName(conn) + "/" + PeerID(conn)
		echo(ctx, conn)
	}})
	standby := newStandby(t, active.Advertise("https://a:1", "https://a:2", time.Now()))
	if err := dialAndPing(t, p, standby.ClientTLS()); err != nil {
		t.Fatal(err)
	}
	if got := <-names; got != "node-b/id-b" {
		t.Errorf("the active node sees %q", got)
	}
}

// P9: a protocol that is not registered is refused in the handshake, as is a client that names none.
func TestUnknownProtocolIsRefusedInTheHandshake(t *testing.T) {
	p := startPort(t, Config{})
	ring := newRing(t)
	peer := newPeer(t, ring, "n1")
	handle(t, p, Protocol{ALPN: ALPNRaft, TLS: peer.ServerTLS, Serve: echo})
	active := newActive(t, 1)
	standby := newStandby(t, active.Advertise("", "", time.Now()))
	_, err := Dial(t.Context(), p.Addr().String(), standby.ClientTLS())
	if err == nil || !strings.Contains(err.Error(), "no application protocol") {
		t.Errorf("forwarding to a standby: %v, want the alert no application protocol", err)
	}
	cfg := newPeer(t, ring, "n2").ClientTLS(ALPNRaft, "n1")
	cfg.NextProtos = nil
	if _, err := Dial(t.Context(), p.Addr().String(), cfg); err == nil {
		t.Error("a client without ALPN shook hands")
	}
	cfg = newPeer(t, ring, "n2").ClientTLS(ALPNRaft, "n1")
	cfg.MaxVersion = tls.VersionTLS12
	if err := dialAndPing(t, p, cfg); err != nil {
		t.Errorf("TLS 1.2: %v", err)
	}
	cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS11, tls.VersionTLS11
	if _, err := Dial(t.Context(), p.Addr().String(), cfg); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
}

// P9: no protocol can be registered that would let in a client without a key.
func TestProtocolWithoutClientCertificatesIsRefused(t *testing.T) {
	p := startPort(t, Config{})
	for name, cfg := range map[string]*tls.Config{
		"none": nil, "empty": {}, "any": {ClientAuth: tls.RequireAnyClientCert}, "no pool": {ClientAuth: tls.RequireAndVerifyClientCert},
	} {
		_, err := p.Handle(Protocol{ALPN: "x/1", TLS: func() *tls.Config { return cfg }, Serve: echo})
		if err == nil {
			t.Errorf("%s: registered", name)
		}
	}
	if p.Addr() != nil {
		t.Error("a refused protocol opened the port")
	}
}

// The port is open exactly while a protocol is registered, and opens again on the same port.
func TestOpenOnlyWhileAProtocolIsRegistered(t *testing.T) {
	var open atomic.Int32
	p := startPort(t, Config{Observer: Observer{Open: func(o bool) {
		if o {
			open.Add(1)
		} else {
			open.Add(-1)
		}
	}}})
	active := newActive(t, 1)
	standby := newStandby(t, active.Advertise("", "", time.Now()))
	proto := Protocol{ALPN: ALPNForward, TLS: active.ServerTLS, Serve: echo}
	var first string
	for range 3 {
		remove := handle(t, p, proto)
		if first == "" {
			first = p.Addr().String()
		}
		if got := p.Addr().String(); got != first {
			t.Errorf("listens on %s, was %s", got, first)
		}
		if err := dialAndPing(t, p, standby.ClientTLS()); err != nil {
			t.Fatal(err)
		}
		remove()
		remove() // does nothing
		if conn, err := net.Dial("tcp", first); err == nil {
			conn.Close()
			t.Fatal("the port is open without a protocol")
		}
	}
	if open.Load() != 0 {
		t.Errorf("observer counts %d open listeners", open.Load())
	}
	if _, err := p.Handle(proto); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Handle(proto); err == nil {
		t.Error("one name registered twice")
	}
}

// A protocol that is removed has its connections cut and its Serves waited for; another one goes on.
func TestRemovalCutsAndWaits(t *testing.T) {
	p := startPort(t, Config{})
	ring := newRing(t)
	peer := newPeer(t, ring, "n1")
	var serving atomic.Int32
	entered := make(chan struct{}, 10)
	stuck := func(ctx context.Context, conn *tls.Conn) {
		serving.Add(1)
		defer serving.Add(-1)
		entered <- struct{}{}
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), errRemoved) {
			t.Errorf("cause: %v", context.Cause(ctx))
		}
	}
	handle(t, p, Protocol{ALPN: ALPNRaft, TLS: peer.ServerTLS, Serve: echo})
	remove := handle(t, p, Protocol{ALPN: ALPNCache, TLS: peer.ServerTLS, Serve: stuck})
	client := newPeer(t, ring, "n2")
	raftConn, err := Dial(t.Context(), p.Addr().String(), client.ClientTLS(ALPNRaft, "n1"))
	if err != nil {
		t.Fatal(err)
	}
	defer raftConn.Close()
	for range 3 {
		conn, err := Dial(t.Context(), p.Addr().String(), client.ClientTLS(ALPNCache, "n1"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		<-entered
	}
	remove()
	if n := serving.Load(); n != 0 {
		t.Errorf("%d Serves go on after the removal", n)
	}
	if err := pingPong(raftConn); err != nil {
		t.Errorf("the other protocol's connection: %v", err)
	}
	if _, err := Dial(t.Context(), p.Addr().String(), client.ClientTLS(ALPNCache, "n1")); err == nil {
		t.Error("a removed protocol shook hands")
	}
}

// A peer that does not read must not delay the removal (deposition must not wait for a frozen standby).
func TestRemovalDoesNotWaitForAFrozenPeer(t *testing.T) {
	p := startPort(t, Config{})
	active := newActive(t, 1)
	full := make(chan struct{})
	remove := handle(t, p, Protocol{ALPN: ALPNForward, TLS: active.ServerTLS, Serve: func(_ context.Context, conn *tls.Conn) {
		block := make([]byte, 1<<20)
		for i := range 1 << 10 { // more than the sockets can hold
			if i == 1 {
				close(full)
			}
			if _, err := conn.Write(block); err != nil {
				return
			}
		}
	}})
	standby := newStandby(t, active.Advertise("", "", time.Now()))
	conn, err := Dial(t.Context(), p.Addr().String(), standby.ClientTLS())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	<-full
	start := time.Now()
	remove()
	if took := time.Since(start); took > 4*time.Second { // less than what it must not wait for may last: 5s
		t.Errorf("removal took %s", took)
	}
}

// P9: silent and hostile connections, more of them than the port keeps, do not delay a genuine one.
func TestSilentAndHostileConnectionsDelayNobody(t *testing.T) {
	var refused atomic.Int32
	p := startPort(t, Config{MaxHandshakes: 16, Observer: Observer{Refused: func(string) { refused.Add(1) }}})
	active := newActive(t, 1)
	remove := handle(t, p, Protocol{ALPN: ALPNForward, TLS: active.ServerTLS, Serve: echo})
	standby := newStandby(t, active.Advertise("", "", time.Now()))
	const hostile = 64
	for i := range hostile {
		conn, err := net.Dial("tcp", p.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		switch i % 3 {
		case 0: // silent
		case 1: // the beginning of a handshake that never goes on
			_, _ = conn.Write([]byte{22, 3, 1, 2, 0, 1})
		case 2: // something else altogether
			_, _ = conn.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		}
		if i%8 == 0 {
			start := time.Now()
			if err := dialAndPing(t, p, standby.ClientTLS()); err != nil {
				t.Fatalf("beside %d hostile connections: %v", i+1, err)
			}
			if took := time.Since(start); took > 4*time.Second { // less than what it must not wait for may last: 5s
				t.Errorf("beside %d hostile connections a genuine one took %s", i+1, took)
			}
		}
	}
	if refused.Load() < hostile-16-hostile/3 {
		t.Errorf("only %d of %d hostile connections were refused", refused.Load(), hostile)
	}
	start := time.Now()
	remove()
	if took := time.Since(start); took > 4*time.Second { // less than what it must not wait for may last: 5s
		t.Errorf("closing beside silent connections took %s", took)
	}
}

func TestHandshakeHasADeadline(t *testing.T) {
	reasons := make(chan string, 1)
	p := startPort(t, Config{HandshakeTimeout: 20 * time.Millisecond, Observer: Observer{Refused: func(r string) { reasons <- r }}})
	handle(t, p, Protocol{ALPN: ALPNForward, TLS: newActive(t, 1).ServerTLS, Serve: echo})
	conn, err := net.Dial("tcp", p.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := <-reasons; got != "timeout" {
		t.Errorf("refused for %q", got)
	}
}

// The crowd of one host is thinned before anything of another host is touched.
func TestEvictionTakesTheOldestOfTheMostNumerousHost(t *testing.T) {
	h := newHalfOpen(4)
	enter := func(host string) (*halfSlot, net.Conn) {
		a, b := net.Pipe()
		t.Cleanup(func() { a.Close(); b.Close() })
		return h.enter(named{a, host}), b
	}
	good, _ := enter("10.0.0.1:1")
	first, _ := enter("10.0.0.2:1")
	for range 10 {
		enter("10.0.0.2:2")
	}
	if good.evicted || !first.evicted || len(h.slots) != 4 {
		t.Errorf("good evicted %t, oldest of the crowd evicted %t, %d slots", good.evicted, first.evicted, len(h.slots))
	}
	if h.leave(good) || !h.leave(first) {
		t.Error("leave reports the wrong evictions")
	}
	for _, s := range append([]*halfSlot(nil), h.slots...) {
		h.leave(s)
	}
	if len(h.slots) != 0 || len(h.count) != 0 {
		t.Errorf("left over: %d slots, %v", len(h.slots), h.count)
	}
}

type named struct {
	net.Conn
	host string
}

func (n named) RemoteAddr() net.Addr { return hostAddr(n.host) }

type hostAddr string

func (hostAddr) Network() string  { return "tcp" }
func (h hostAddr) String() string { return string(h) }

func TestPortInUse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	p, err := NewPort(Config{Address: ln.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	proto := Protocol{ALPN: ALPNForward, TLS: newActive(t, 1).ServerTLS, Serve: echo}
	if _, err := p.Handle(proto); err == nil {
		t.Fatal("opened a port that is in use")
	}
	ln.Close()
	remove, err := p.Handle(proto)
	if err != nil {
		t.Fatalf("after the port became free: %v", err)
	}
	remove()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Run(ctx); err != nil {
		t.Error(err)
	}
	if _, err := p.Handle(proto); !errors.Is(err, ErrPortClosed) {
		t.Errorf("after Run: %v", err)
	}
}
