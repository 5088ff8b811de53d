package client

import (
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// "The CLI speaks to a Unix socket": the node behind it answers, and where it redirects to is reached over TCP.
func TestUnixSocket(t *testing.T) {
	active := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-Locum-Node", "active") })
	socket := filepath.Join(t.TempDir(), "locum.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Locum-Node", "behind the socket")
		if r.URL.Path == "/v1/elsewhere" {
			http.Redirect(w, r, active.URL+r.URL.Path, http.StatusTemporaryRedirect)
		}
	})}
	done := make(chan error, 1)
	go func() { done <- server.Serve(ln) }()
	c := newClient(t, "unix://"+socket)
	for path, want := range map[string]string{"/here": "behind the socket", "/elsewhere": "active"} {
		if meta, err := c.Do(t.Context(), "GET", path, nil, nil); err != nil || meta.Node != want {
			t.Errorf("%s: %+v, %v", path, meta, err)
		}
	}
	if c.Address() != "unix://"+socket {
		t.Errorf("address %q", c.Address())
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	<-done
	c.Close()
	if _, err := c.Do(t.Context(), "GET", "/here", nil, nil); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), socket) {
		t.Errorf("without a node: %v", err)
	}
	for _, address := range []string{"unix://locum.sock", "unix://host/locum.sock", "unix:"} {
		if _, err := New(Config{Address: address}); err == nil || !strings.Contains(err.Error(), "unix:///run/locum.sock") {
			t.Errorf("%s: %v", address, err)
		}
	}
}
