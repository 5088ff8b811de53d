package resp

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/cache"
)

// loopback joins the nodes of a test by name.
type loopback struct {
	net.Listener
	addresses map[string]string // complete before any node starts
}

func (l loopback) Dial(ctx context.Context, host string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", l.addresses[host])
}

// startThree runs a cache of three hosts for as long as the test does, and returns it as its leader and as a follower have it. An election
// is not to be expected, on a busy machine either.
func startThree(t testing.TB) (leader, follower *Shared) {
	t.Helper()
	addresses := map[string]string{}
	var hosts []string
	var listeners []net.Listener
	for i := range 3 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		hosts = append(hosts, fmt.Sprintf("n%d:1", i))
		addresses[hosts[i]] = ln.Addr().String()
		listeners = append(listeners, ln)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	var nodes []*cache.Node
	for i, host := range hosts {
		node, err := cache.New(cache.Config{Hosts: hosts, Self: host, Layer: loopback{listeners[i], addresses}, ElectionTimeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, node)
		running.Go(func() {
			if err := node.Run(ctx); err != nil {
				t.Errorf("cache: %v", err)
			}
		})
	}
	for i, node := range nodes {
		for health, changed := node.HealthChanges(); health.Status != cache.Good; health, changed = node.HealthChanges() {
			select {
			case <-changed:
			case <-time.After(time.Minute):
				t.Fatalf("%s: %+v", hosts[i], health)
			}
		}
		shared := NewShared(node, 16, hosts[i], "test")
		if node.IsLeader() {
			leader = shared
		} else {
			follower = shared
		}
	}
	if leader == nil || follower == nil {
		t.Fatal("three nodes have no leader and no follower")
	}
	return leader, follower
}
