package gather

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// slow notes what it is given, one call after another, when it is let.
type slow struct {
	mu    sync.Mutex
	calls [][]byte
	let   chan error
}

func (s *slow) Write(p []byte) (int, error) {
	err := <-s.let
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, bytes.Clone(p))
	return len(p), err
}

func TestWriterGathers(t *testing.T) {
	s := &slow{let: make(chan error)}
	w := New(s)
	_, _ = w.Write([]byte("first"))
	s.let <- nil
	var want []byte
	for i := range 100 {
		p := []byte{byte(i)}
		want = append(want, p...)
		if _, err := w.Write(p); err != nil {
			t.Fatal(err)
		}
		p[0] = 255 // the caller's again
	}
	close(s.let)
	w.Close()
	if got := bytes.Join(s.calls, nil); !bytes.Equal(got, append([]byte("first"), want...)) || len(s.calls) > 5 {
		t.Errorf("%d calls: %q", len(s.calls), got)
	}
	if _, err := w.Write([]byte("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// A connection that takes nothing holds its writers, and a broken one tells them (P12).
func TestWriterBoundedAndBroken(t *testing.T) {
	s := &slow{let: make(chan error)}
	w := New(s)
	failed := make(chan error)
	go func() {
		for {
			if _, err := w.Write(make([]byte, 1000)); err != nil {
				failed <- err
				return
			}
		}
	}()
	select {
	case err := <-failed:
		t.Fatal(err)
	case <-time.After(20 * time.Millisecond):
	}
	w.mu.Lock()
	n := len(w.buf)
	w.mu.Unlock()
	if n > limit+1000 {
		t.Errorf("%d bytes wait", n)
	}
	s.let <- io.ErrShortWrite
	if err := <-failed; !errors.Is(err, io.ErrShortWrite) {
		t.Error(err)
	}
	w.Close()
}

func TestConnCloseSendsTheRest(t *testing.T) {
	a, b := net.Pipe()
	c := NewConn(a)
	got := make(chan []byte)
	go func() {
		data, _ := io.ReadAll(b)
		got <- data
	}()
	_, _ = c.Write([]byte("last words"))
	_ = c.Close()
	if data := <-got; string(data) != "last words" {
		t.Errorf("%q", data)
	}
}
