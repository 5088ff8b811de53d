package notify

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

func TestTellAndWatch(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	env := map[string]string{"NOTIFY_SOCKET": socket, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": strconv.Itoa(os.Getpid())}
	n := New(func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	receive := func() string {
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		buf := make([]byte, 100)
		k, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:k])
	}
	if err := n.Tell(Ready); err != nil || receive() != "READY=1" {
		t.Errorf("ready: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); n.Watch(ctx) }()
	if got := receive(); got != "WATCHDOG=1" {
		t.Errorf("got %s", got)
	}
	cancel()
	<-done
	env["WATCHDOG_PID"] = "1"
	if other := New(func(name string) (string, bool) { v, ok := env[name]; return v, ok }); other.every != 0 {
		t.Error("keeps another process's watchdog")
	}
}

func TestWithoutManager(t *testing.T) {
	n := New(func(string) (string, bool) { return "", false })
	if err := n.Tell(Ready); err != nil {
		t.Error(err)
	}
	n.Watch(t.Context())
	gone := Notifier{socket: filepath.Join(t.TempDir(), "none")}
	if err := gone.Tell(Ready); err == nil {
		t.Error("told nobody")
	}
}
