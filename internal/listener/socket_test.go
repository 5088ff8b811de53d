package listener

import (
	"context"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func socketAt(path string, mode fs.FileMode) func(*Config) {
	return func(c *Config) { c.Network, c.Address, c.Socket.Mode = "unix", path, mode }
}

// sockets is a folder whose name is short enough.
func sockets(t *testing.T) string {
	dir, err := os.MkdirTemp("", "locum")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(sockets(t), "l.sock")
	group := os.Getgid()
	if os.Getuid() == 0 {
		group = 12345 // one that no name is known for
	} else {
		t.Log("not root: the group is not changed")
	}
	l := started(t, whoami, socketAt(path, 0o660), forwardedFrom("unix"), func(c *Config) {
		c.Socket.User, c.Socket.Group = strconv.Itoa(os.Getuid()), strconv.Itoa(group)
	})
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if stat := info.Sys().(*syscall.Stat_t); info.Mode() != fs.ModeSocket|0o660 || int(stat.Uid) != os.Getuid() || int(stat.Gid) != group {
		t.Errorf("%v, %d:%d", info.Mode(), stat.Uid, stat.Gid)
	}
	if l.Addr().String() != path {
		t.Errorf("listens on %s", l.Addr())
	}
	c := l.dial(t)
	send(t, c, "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\nConnection: close\r\n\r\n")
	if code, body := answer(t, c); code != 200 || body != "192.0.2.7:0 authorized" {
		t.Errorf("%d %q", code, body)
	}
	if err := l.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A balancer on this machine may send the PROXY protocol over a socket; others' claims are not believed.
func TestUnixSocketSources(t *testing.T) {
	dir := sockets(t)
	proxied := started(t, whoami, socketAt(filepath.Join(dir, "p"), 0o600), proxyFrom("unix"))
	c := proxied.dial(t)
	send(t, c, "PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n"+get)
	if _, body := answer(t, c); body != "192.0.2.7:56324" {
		t.Errorf("%q", body)
	}
	plain := started(t, whoami, socketAt(filepath.Join(dir, "n"), 0o600))
	c = plain.dial(t)
	send(t, c, "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n")
	if _, body := answer(t, c); strings.Contains(body, "192.0.2.7") || strings.Contains(body, "authorized") {
		t.Errorf("%q", body)
	}
}

func TestUnixSocketReplaced(t *testing.T) {
	path := filepath.Join(sockets(t), "l.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil { // as a process that was killed leaves it
		t.Fatal(err)
	}
	l := started(t, whoami, socketAt(path, 0o600))
	c := l.dial(t)
	send(t, c, get)
	if code, _ := answer(t, c); code != 200 {
		t.Error(code)
	}

	// One that somebody listens on is not taken.
	other, err := New(l.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Open(); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("%v", err)
	}
	// Nor one that another has put in its place removed.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	next := started(t, whoami, socketAt(path, 0o600))
	if err := l.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	c = next.dial(t)
	send(t, c, get)
	if code, _ := answer(t, c); code != 200 {
		t.Error(code)
	}
}

func TestUnixSocketInTheWay(t *testing.T) {
	path := filepath.Join(sockets(t), "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := opened(t, whoami).cfg
	socketAt(path, 0o600)(&cfg)
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Open(); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("%v", err)
	}
	if data, err := os.ReadFile(path); string(data) != "data" || err != nil {
		t.Errorf("%q, %v", data, err)
	}
	for _, s := range []Socket{{User: "nobody-at-all"}, {Group: "nobody-at-all"}} {
		cfg.Address, cfg.Socket = path+"2", s
		if l, err = New(cfg); err != nil {
			t.Fatal(err)
		}
		if err := l.Open(); err == nil || !strings.Contains(err.Error(), "socket_") {
			t.Errorf("%v", err)
		}
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}
