// Package notify tells systemd how a service is (sd_notify(3)): a datagram to the socket that NOTIFY_SOCKET names.
// Where there is none, everything here does nothing.
package notify

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// What can be told.
const (
	Ready    = "READY=1"
	Stopping = "STOPPING=1"
	watchdog = "WATCHDOG=1"
)

// Notifier speaks to one service manager. The zero Notifier speaks to nobody.
type Notifier struct {
	socket string
	every  time.Duration // half of what the watchdog allows; 0 for none
}

// New reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID.
func New(lookup func(string) (string, bool)) Notifier {
	n := Notifier{}
	n.socket, _ = lookup("NOTIFY_SOCKET")
	micros, _ := lookup("WATCHDOG_USEC")
	usec, err := strconv.ParseInt(micros, 10, 64)
	pid, isSet := lookup("WATCHDOG_PID")
	if err == nil && usec > 0 && (!isSet || pid == strconv.Itoa(os.Getpid())) {
		n.every = time.Duration(usec) * time.Microsecond / 2
	}
	return n
}

// Tell sends one state.
func (n Notifier) Tell(state string) error {
	if n.socket == "" {
		return nil
	}
	name := n.socket
	if name[0] == '@' {
		name = "\x00" + name[1:] // the abstract namespace
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("telling systemd: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("telling systemd: %w", err)
	}
	return nil
}

// Watch keeps the watchdog content until ctx ends.
func (n Notifier) Watch(ctx context.Context) {
	if n.socket == "" || n.every == 0 {
		return
	}
	ticker := time.NewTicker(n.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			_ = n.Tell(watchdog) // a manager that is gone has no watchdog either
		}
	}
}
