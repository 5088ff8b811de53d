package storeserver

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
)

// EtcdVersion is the version that "make deps" builds, beside the one that Debian has.
const EtcdVersion = "3.7.3"

// Etcd is a server of etcd, alone in its cluster.
type Etcd struct {
	*Process
	Addr string // where clients connect to, "host:port"
}

// StartEtcd starts etcd with its data on disk. args are added to its command line; with --cert-file among them it speaks
// TLS alone.
func StartEtcd(t T, args ...string) *Etcd {
	t.Helper()
	return startEtcd(t, Program(t, "etcd-server", "etcd"), args)
}

// StartNewestEtcd starts the version that "make deps" has built.
func StartNewestEtcd(t T, args ...string) *Etcd {
	t.Helper()
	return startEtcd(t, Built(t, "etcd", EtcdVersion), args)
}

func startEtcd(t T, path string, args []string) *Etcd {
	t.Helper()
	return launchEtcd(t, path, args, true)
}

// launchEtcd starts a server, and waits until it serves if told to.
func launchEtcd(t T, path string, args []string, wait bool) *Etcd {
	t.Helper()
	dir := Dir(t, "")
	addr, peer := Loopback(FreePort(t)), Loopback(FreePort(t))
	url := "http://" + addr
	ready := func(ctx context.Context) error { return getOK(ctx, url+"/health") }
	if slices.Contains(args, "--cert-file") {
		url = "https://" + addr
		ready = func(ctx context.Context) error { return dials(ctx, addr) }
	}
	if !wait {
		ready = started
	}
	args = append([]string{
		"--name", "test", "--data-dir", filepath.Join(dir, "data"), "--log-level", "warn",
		"--listen-client-urls", url, "--advertise-client-urls", url,
		"--listen-peer-urls", "http://" + peer, "--initial-advertise-peer-urls", "http://" + peer,
		"--initial-cluster", "test=http://" + peer,
	}, args...)
	return &Etcd{Addr: addr, Process: Launch(t, Spec{Name: "etcd", Dir: dir, Path: path, Args: args, Ready: ready})}
}

// dials reports whether somebody listens.
func dials(ctx context.Context, addr string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

// getOK asks for a URL and wants a 200.
func getOK(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return nil
}
