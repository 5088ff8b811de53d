package conns_test

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/locum-ha/locum/internal/conns"
)

// Close ends what was dialled and lets nothing further be dialled; a connection closed by its user is not closed twice.
func TestCloseEndsAll(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var set conns.Set
	first, err := set.Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := first.(syscall.Conn); !ok {
		t.Error("libraries cannot look whether the other side has closed")
	}
	second, err := set.Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() {
		_, err := second.Read(make([]byte, 1))
		read <- err
	}()
	set.Close()
	if err := <-read; !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
		t.Errorf("a read under way: got %v, want it to end as on a closed connection", err)
	}
	if _, err := set.Dial(t.Context(), "tcp", l.Addr().String()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("dial after Close: got %v, want net.ErrClosed", err)
	}
}
