package storeserver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// StartZooKeepers starts an ensemble of n servers.
func StartZooKeepers(t T, n int) []*ZooKeeper {
	t.Helper()
	var peers []string
	for i := range n {
		peers = append(peers, fmt.Sprintf("server.%d=127.0.0.1:%d:%d", i+1, FreePort(t), FreePort(t)))
	}
	var servers []*ZooKeeper
	for i := range n {
		dir := Dir(t, "")
		if err := os.WriteFile(filepath.Join(dir, "myid"), fmt.Appendln(nil, i+1), 0o600); err != nil {
			t.Fatalf("zookeeper: %v", err)
		}
		// A server serves when a majority is there: only the last one's start can be waited for.
		settings := append([]string{"dataDir=" + dir, "initLimit=50", "syncLimit=20"}, peers...)
		servers = append(servers, launchZooKeeper(t, small, settings, i == n-1, nil))
	}
	serving(t, func(ctx context.Context) error {
		for _, s := range servers {
			if err := zooKeeperServes(ctx, s.Addr); err != nil {
				return err
			}
		}
		return nil
	})
	return servers
}

// StartEtcds starts a cluster of n servers.
func StartEtcds(t T, n int, args ...string) []*Etcd {
	t.Helper()
	path := Program(t, "etcd-server", "etcd")
	var peers, initial []string
	for i := range n {
		peers = append(peers, "http://"+Loopback(FreePort(t)))
		initial = append(initial, fmt.Sprintf("e%d=%s", i, peers[i]))
	}
	var servers []*Etcd
	for i := range n {
		own := append([]string{
			"--name", fmt.Sprintf("e%d", i), "--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i],
			"--initial-cluster", strings.Join(initial, ","),
		}, args...)
		servers = append(servers, launchEtcd(t, path, own, i == n-1))
	}
	serving(t, func(ctx context.Context) error {
		for _, s := range servers {
			if err := getOK(ctx, "http://"+s.Addr+"/health"); err != nil {
				return err
			}
		}
		return nil
	})
	return servers
}

// serving waits until ready returns nil.
func serving(t T, ready func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("not all servers serve: %v", err)
		}
	}
}

// started is the readiness of a server that need not serve yet.
func started(context.Context) error { return nil }
