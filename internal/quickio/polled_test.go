//go:build linux

package quickio

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
)

// Whatever of a stream is read by one that waits and one that only looks, at the same time, is all of it and in order.
func TestPolledByTwo(t *testing.T) {
	pairs(t, func(t *testing.T, a, b net.Conn) {
		sent := make([]byte, 1<<20)
		for i := range sent {
			sent[i] = byte(i >> 7)
		}
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			defer a.Close()
			for rest := sent; len(rest) > 0; {
				n := min(len(rest), 1+rand.IntN(9000))
				if _, err := a.Write(rest[:n]); err != nil {
					t.Errorf("write: %v", err)
					return
				}
				rest = rest[n:]
			}
		})
		p := PolledOf(tls.Client(Poll(b), &tls.Config{})) // found below what wraps it
		if p == nil {
			t.Fatal("a socket cannot be polled")
		}
		p.NoWait()
		var (
			mu   sync.Mutex
			got  []byte
			done error
		)
		read := func() error { // until there is nothing more
			mu.Lock()
			defer mu.Unlock()
			part := make([]byte, 5000)
			for done == nil {
				n, err := p.Read(part[:1+rand.IntN(len(part))])
				got = append(got, part[:n]...)
				if errors.Is(err, ErrAgain) {
					return nil
				}
				done = err
			}
			return done
		}
		wg.Go(func() {
			for read() == nil {
				runtime.Gosched()
			}
		})
		for read() == nil {
			if err := p.Wait(); err != nil {
				t.Errorf("wait: %v", err)
				return
			}
		}
		if !errors.Is(done, io.EOF) || !bytes.Equal(got, sent) {
			t.Errorf("%d bytes of %d, %v", len(got), len(sent), done)
		}
	})
}

// A read that finds nothing says so in a way that a TLS connection survives, and Close ends who waits.
func TestPolledEnds(t *testing.T) {
	a, b := pair(t, "tcp", "127.0.0.1:0")
	p := PolledOf(Poll(a))
	if _, err := b.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := p.Read(make([]byte, 10)); n != 1 || err != nil { // as any other, yet
		t.Errorf("%d, %v", n, err)
	}
	p.NoWait()
	_, err := p.Read(make([]byte, 1))
	var ne net.Error
	if !errors.Is(err, ErrAgain) || !errors.As(err, &ne) || !ne.Timeout() || !ne.Temporary() { //nolint:staticcheck // crypto/tls asks for Temporary
		t.Errorf("nothing to be read: %v", err)
	}
	ended := make(chan error)
	go func() { ended <- p.Wait() }()
	a.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("wait for a closed connection: %v", err)
	}
	if _, err := p.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read of a closed connection: %v", err)
	}
	c, d := net.Pipe()
	defer c.Close()
	defer d.Close()
	if PolledOf(Poll(c)) != nil {
		t.Error("a pipe can be polled")
	}
}
