//go:build linux

package quickio

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// pair is both ends of a connection.
func pair(t *testing.T, network, address string) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err = net.Dial(network, ln.Addr().String())
	if err == nil {
		b, err = ln.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func pairs(t *testing.T, run func(t *testing.T, a, b net.Conn)) {
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": t.TempDir() + "/s"} {
		t.Run(network, func(t *testing.T) {
			a, b := pair(t, network, address)
			run(t, a, b)
		})
	}
}

// More than any socket's buffer goes through whole, also when the writer has to wait, and its end is an io.EOF.
func TestAllOfAStream(t *testing.T) {
	pairs(t, func(t *testing.T, a, b net.Conn) {
		sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<19) // 8 MiB
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			defer a.Close()
			if n, err := Of(a).Write(sent); n != len(sent) || err != nil {
				t.Errorf("wrote %d: %v", n, err)
			}
		})
		got, err := io.ReadAll(Of(b))
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d bytes of %d, %v", len(got), len(sent), err)
		}
	})
}

// Deadlines and Close end what waits, with package net's errors: an HTTP server goes by them.
func TestDeadlineAndClose(t *testing.T) {
	pairs(t, func(t *testing.T, a, b net.Conn) {
		s := Of(a)
		if err := a.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		_, err := s.Read(make([]byte, 1))
		var ne net.Error
		if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
			t.Errorf("after the deadline: %v", err)
		}
		if err := a.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		much := make([]byte, 64<<20)
		_ = a.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		n, err := s.Write(much)
		if n == 0 || n == len(much) || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("written to nobody: %d, %v", n, err)
		}
		ended := make(chan error)
		go func() { _, err := s.Read(make([]byte, 1)); ended <- err }()
		a.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("read of a closed connection: %v", err)
		}
		if _, err := s.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write to a closed connection: %v", err)
		}
	})
}

// What the other end broke off is an error and no end of the program (SIGPIPE).
func TestBrokenOff(t *testing.T) {
	a, b := pair(t, "tcp", "127.0.0.1:0")
	_ = b.(*net.TCPConn).SetLinger(0)
	b.Close()
	if _, err := Of(a).Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v", err)
	}
	if _, err := Of(a).Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write: %v", err)
	}
}

// Where there is no socket there is nothing to speed up.
func TestNoSocket(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if Of(a) != nil {
		t.Error("a pipe has a socket")
	}
}
