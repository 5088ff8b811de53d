package redis

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	client "github.com/redis/go-redis/v9"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical"
)

// In a cluster the two keys lie in one slot, scripts run there, and watchers are woken.
func TestCluster(t *testing.T) {
	server := storeserver.StartRedis(t, "--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf")
	admin := client.NewClient(&client.Options{Addr: server.Addr})
	defer admin.Close()
	if err := admin.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		info, err := admin.ClusterInfo(t.Context()).Result()
		if err == nil && !strings.Contains(info, "cluster_state:ok") {
			err = errors.New("the cluster is not up")
		}
		return err
	})
	s := mustOpen(t, Config{Addresses: []string{server.Addr}, Cluster: true})
	lifeOfALock(t, s)
	waits := mustOpen(t, Config{Addresses: []string{server.Addr}, Cluster: true, WaitReplicas: 1, WaitTimeout: 50 * time.Millisecond})
	if _, err := waits.Acquire(t.Context(), holder, time.Minute, 0); !errors.Is(err, physical.ErrUnavailable) {
		t.Errorf("a lock that no replica has: %v", err)
	}
}

// lifeOfALock takes, renews, watches and releases it.
func lifeOfALock(t *testing.T, s *Store) {
	t.Helper()
	g, err := s.Acquire(t.Context(), holder, time.Minute, 0)
	if err != nil {
		t.Fatal(err)
	}
	if g, err = s.Renew(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	woken := make(chan error, 1)
	go func() {
		r, err := s.Watch(t.Context(), g.Record)
		if err == nil && (r.Holder != "" || r.Next != "b" || r.Term != g.Term()) {
			err = fmt.Errorf("woke with %+v", r)
		}
		woken <- err
	}()
	if err := s.Release(t.Context(), g, "b"); err != nil {
		t.Fatal(err)
	}
	if err := <-woken; err != nil {
		t.Errorf("watch: %v", err)
	}
	next, err := s.Acquire(t.Context(), holder, time.Minute, 0)
	if err != nil || next.Term() <= g.Term() {
		t.Fatalf("acquire again: %+v, %v", next, err)
	}
	if err := s.Release(t.Context(), next, ""); err != nil {
		t.Fatal(err)
	}
}

// A sentinel says who is master; when the master is gone and a replica was promoted, the lock is taken there, with a higher term.
func TestSentinel(t *testing.T) {
	master := storeserver.StartRedis(t, "--repl-diskless-sync-delay", "0")
	host, port, _ := net.SplitHostPort(master.Addr)
	replica := storeserver.StartRedis(t, "--replicaof", host+" "+port)
	config := filepath.Join(t.TempDir(), "sentinel.conf")
	text := "sentinel monitor mymaster " + host + " " + port + " 1\nsentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 3000\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel := storeserver.StartSentinel(t, config)
	s := mustOpen(t, Config{Addresses: []string{sentinel.Addr}, SentinelMaster: "mymaster"})
	lifeOfALock(t, s)
	g, err := s.Acquire(t.Context(), holder, time.Minute, 0)
	if err != nil {
		t.Fatal(err)
	}
	onReplica := mustOpen(t, Config{Addresses: []string{replica.Addr}})
	eventually(t, func() error {
		r, err := onReplica.Holder(t.Context())
		if err == nil && r != g.Record {
			err = fmt.Errorf("the replica says %+v", r)
		}
		return err
	})
	master.Kill()
	eventually(t, func() error { return s.Release(t.Context(), g, "") })
	next, err := s.Acquire(t.Context(), holder, time.Minute, 0)
	if err != nil || next.Term() <= g.Term() {
		t.Errorf("after the failover: %+v, %v", next, err)
	}
}
