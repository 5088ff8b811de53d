package cluster

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

func TestRaftLayer(t *testing.T) {
	ring := newRing(t)
	p := startPort(t, Config{})
	layer, err := NewRaftLayer(p, newPeer(t, ring, "n1"))
	if err != nil {
		t.Fatal(err)
	}
	otherPort := startPort(t, Config{})
	other, err := NewRaftLayer(otherPort, newPeer(t, ring, "n2"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()

	out, err := other.Dial(t.Context(), "n1", layer.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := layer.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if PeerID(in) != "n2" || PeerID(out) != "n1" {
		t.Errorf("accepted from %q, dialled %q", PeerID(in), PeerID(out))
	}
	go func() { _, _ = io.Copy(in, in) }()
	if err := pingPong(out); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Dial(t.Context(), "n9", layer.Addr().String()); !errors.Is(err, ErrPeer) {
		t.Errorf("dialling the wrong identity: %v, want ErrPeer", err)
	}

	accepted := make(chan error, 1)
	go func() {
		_, err := layer.Accept()
		accepted <- err
	}()
	if err := layer.Close(); err != nil {
		t.Error(err)
	}
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
	_ = out.SetReadDeadline(time.Now().Add(patience))
	if _, err := out.Read(make([]byte, 1)); err == nil {
		t.Error("the connection outlived its layer")
	}
	if err := layer.Close(); err != nil {
		t.Error(err)
	}
	if conn, err := net.Dial("tcp", p.Addr().String()); err == nil {
		conn.Close()
		t.Error("the port is open after its only protocol closed")
	}
}

// A closed connection ends the Serve that keeps it: nothing piles up while raft redials.
func TestRaftLayerForgetsClosedConnections(t *testing.T) {
	ring := newRing(t)
	ended := make(chan string, 8)
	p := startPort(t, Config{Observer: Observer{Ended: func(alpn string) { ended <- alpn }}})
	layer, err := NewRaftLayer(p, newPeer(t, ring, "n1"))
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		out, err := layer.Dial(t.Context(), "n1", layer.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		in, err := layer.Accept()
		if err != nil {
			t.Fatal(err)
		}
		in.Close()
		in.Close() // does nothing
		if got := <-ended; got != ALPNRaft {
			t.Errorf("%s ended", got)
		}
		out.Close()
	}
}
