package storeserver

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
)

// Etcd is a server of etcd, alone in its cluster.
type Etcd struct {
	*Process
	Addr string // where clients connect to, "host:port", without TLS
}

// StartEtcd starts etcd with its data on disk. args are added to its command line.
func StartEtcd(t T, args ...string) *Etcd {
	t.Helper()
	path := Program(t, "etcd-server", "etcd")
	dir := Dir(t, "")
	addr, peer := Loopback(FreePort(t)), Loopback(FreePort(t))
	args = append([]string{
		"--name", "test", "--data-dir", filepath.Join(dir, "data"), "--log-level", "warn",
		"--listen-client-urls", "http://" + addr, "--advertise-client-urls", "http://" + addr,
		"--listen-peer-urls", "http://" + peer, "--initial-advertise-peer-urls", "http://" + peer,
		"--initial-cluster", "test=http://" + peer,
	}, args...)
	return &Etcd{Addr: addr, Process: Launch(t, Spec{
		Name: "etcd", Dir: dir, Path: path, Args: args,
		Ready: func(ctx context.Context) error { return getOK(ctx, "http://"+addr+"/health") },
	})}
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
