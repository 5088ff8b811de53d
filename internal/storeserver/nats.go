package storeserver

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// NATSVersion is the version that "make faults STORE=nats" builds, beside the one that Debian has.
const NATSVersion = "2.15.2"

// NATS is a server of NATS with JetStream on disk.
type NATS struct {
	*Process
	Addr string // "host:port"
}

// URL is the server's URL; address stands in for its own unless it is "", a proxy's say.
func (n *NATS) URL(address string) string {
	if address == "" {
		address = n.Addr
	}
	return "nats://" + address
}

// StartNATS starts a server that syncs each write. settings are lines of its configuration file.
func StartNATS(t T, settings ...string) *NATS {
	t.Helper()
	return launchNATS(t, Program(t, "nats-server", "nats-server"), append([]string{"server_name: test"}, settings...))
}

// StartNewestNATSs starts a cluster of n servers of the version that "make faults STORE=nats" has built. They tell clients nothing of each other, so that a client has the addresses that it was given.
func StartNewestNATSs(t T, n int) []*NATS {
	t.Helper()
	path := Built(t, "nats", NATSVersion)
	var routes, urls []string
	for range n {
		routes = append(routes, Loopback(FreePort(t)))
		urls = append(urls, strconv.Quote("nats://"+routes[len(routes)-1]))
	}
	var servers []*NATS
	for i := range n {
		servers = append(servers, launchNATS(t, path, []string{
			fmt.Sprintf("server_name: n%d", i), "cluster {", "  name: test", "  listen: " + strconv.Quote(routes[i]),
			"  no_advertise: true", "  routes: [" + strings.Join(urls, ", ") + "]", "}",
		}))
	}
	return servers
}

func launchNATS(t T, path string, settings []string) *NATS {
	t.Helper()
	dir := Dir(t, "")
	addr := Loopback(FreePort(t))
	lines := append([]string{
		"listen: " + strconv.Quote(addr), "jetstream {",
		"  store_dir: " + strconv.Quote(filepath.Join(dir, "data")), "}",
	}, settings...)
	file := filepath.Join(dir, "nats.conf")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatalf("nats: %v", err)
	}
	return &NATS{Addr: addr, Process: Launch(t, Spec{
		Name: "nats", Dir: dir, Path: path, Args: []string{"-c", file},
		Ready: func(ctx context.Context) error { return natsServes(ctx, addr) },
	})}
}

// natsServes reads what the server says first.
func natsServes(ctx context.Context, addr string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	hello := make([]byte, 4096)
	n, err := conn.Read(hello)
	if err == nil && !strings.Contains(string(hello[:n]), `"jetstream":true`) {
		err = fmt.Errorf("it says %q", hello[:n])
	}
	return err
}
