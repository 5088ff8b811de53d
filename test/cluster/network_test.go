package cluster

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// TestMain lets the test binary be its own peer: an echo server in a namespace.
func TestMain(m *testing.M) {
	if address := os.Getenv("LOCUM_TEST_ECHO"); address != "" {
		echo(address)
		return
	}
	os.Exit(m.Run())
}

func echo(address string) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go io.Copy(conn, conn)
	}
}

// A cut drops what goes one way and tells nobody; what was sent meanwhile arrives after the heal.
func TestNetworkCut(t *testing.T) {
	network := NetworkFor(t, 1)
	address := network.IP(0) + ":7"
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	argv := append(network.exec(0), self)
	process, err := StartProcess(t.TempDir()+"/log", []string{"LOCUM_TEST_ECHO=" + address}, argv[0], argv[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(process.Kill)

	var conn net.Conn
	err = Poll(t.Context(), "the peer listens", func() error {
		conn, err = net.DialTimeout("tcp", address, time.Second)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	exchange := func(limit time.Duration) error {
		_ = conn.SetReadDeadline(time.Now().Add(limit))
		if _, err := conn.Write([]byte("x")); err != nil {
			return err
		}
		_, err := io.ReadFull(conn, make([]byte, 1))
		return err
	}
	if err := exchange(5 * time.Second); err != nil {
		t.Fatalf("before the cut: %v", err)
	}
	for _, cut := range [][2]int{{Client, 0}, {0, Client}} {
		if err := network.Cut(cut[0], cut[1]); err != nil {
			t.Fatal(err)
		}
		if err := exchange(150 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("cut from %d to %d: %v, want no answer", cut[0], cut[1], err)
		}
		if err := network.HealAll(); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil { // the one sent into the cut
			t.Errorf("after the heal from %d to %d: %v", cut[0], cut[1], err)
		}
	}
}

// A frozen process neither runs nor ends, and its numbers can be read.
func TestProcess(t *testing.T) {
	process, err := StartProcess(t.TempDir()+"/log", nil, "sleep", "60")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(process.Kill)
	n := &Node{Name: "sleeper", process: process}
	if err := n.Freeze(); err != nil {
		t.Fatal(err)
	}
	if !n.Running() || process.RSS() == 0 || process.PeakRSS() < process.RSS() {
		t.Errorf("running %v, RSS %d, peak %d", n.Running(), process.RSS(), process.PeakRSS())
	}
	if err := n.Wake(); err != nil {
		t.Fatal(err)
	}
	if err := n.Stop(5 * time.Second); err == nil || n.Running() {
		t.Errorf("after SIGTERM: error %v, running %v", err, n.Running())
	}
}
