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

// TestDirectConnection: on a connection that writes at level direct, a later command sees an earlier one, and FLUSHALL leaves nothing,
// also in a database that this node did not know of.
func TestDirectConnection(t *testing.T) {
	_, follower := startThree(t)
	c := dial(t, start(t, follower, Config{}))
	c.want("LOCUM.ACK direct", "+OK")
	for db := 1; db < 16; db++ {
		c.send(encode("SELECT", fmt.Sprint(db)) + encode("SET", "k", "5") + encode("SELECT", "0") + encode("FLUSHALL"))
		for range 4 {
			if got := c.receive(); got != "+OK" {
				t.Fatal(got)
			}
		}
		c.want(fmt.Sprint("SELECT ", db), "+OK", "GET k", "$-1", "SET k 5", "+OK", "GET k", `$"5"`, "INCR k", ":6",
			"SET k 7", "+OK", "EXPIRE k 100", ":1", "SET k 8", "+OK", "SET k x NX", "$-1",
			"SET k 9", "+OK", "GETDEL k", `$"9"`, "GET k", "$-1", "SET k 10", "+OK", "DEL k", ":1", "GET k", "$-1")
	}
	if err := follower.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.want("DBSIZE", ":0")
}
