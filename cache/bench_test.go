package cache

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	hraft "github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/locum-ha/locum/internal/storeserver"
)

// BenchmarkGet is a local read in process.
func BenchmarkGet(b *testing.B) {
	for _, n := range []int{1, 2, 16} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			node := startB(b, Config{})
			awaitGood(b, node)
			c := node.Cache("c")
			keys := make([]string, 10000)
			for i := range keys {
				keys[i] = fmt.Sprint("key-", i)
				if _, err := c.Put(b.Context(), keys[i], make([]byte, 100), NoExpiry, Quorum); err != nil {
					b.Fatal(err)
				}
			}
			ctx := b.Context()
			b.ReportAllocs()
			b.ResetTimer()
			parallel(b, n, func(i int) error {
				_, err := c.Get(ctx, keys[i*7919%10000], Local)
				return err
			})
		})
	}
}

// parallel does b.N calls by n goroutines.
func parallel(b *testing.B, n int, f func(i int) error) {
	var before, after unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &before)
	defer func() {
		_ = unix.Getrusage(unix.RUSAGE_SELF, &after)
		used := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
		b.ReportMetric(float64(used)/float64(b.N), "cpu-ns/op") // does not depend on who else uses the machine
	}()
	var wg sync.WaitGroup
	for g := range n {
		wg.Go(func() {
			for i := g; i < b.N; i += n {
				if err := f(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func startB(b *testing.B, cfg Config) *Node {
	n, err := New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- n.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	return n
}

func awaitGood(b *testing.B, n *Node) {
	for {
		h, changed := n.HealthChanges()
		if h.Status == Good {
			return
		}
		<-changed
	}
}

func freePorts(tb testing.TB, n int) []string {
	tb.Helper()
	var addrs []string
	for range n {
		addrs = append(addrs, storeserver.Loopback(storeserver.FreePort(tb)))
	}
	return addrs
}

var inFlight = []int{1, 16, 64, 256}

// BenchmarkPut is a put of 100 bytes acknowledged at quorum, three nodes in this process.
func BenchmarkPut(b *testing.B) {
	for _, plain := range []bool{true, false} {
		hosts := freePorts(b, 3)
		var nodes []*Node
		for _, h := range hosts {
			nodes = append(nodes, startB(b, Config{Hosts: hosts, Self: h, AuthToken: "0123456789abcdef", TLS: TLS{Disabled: plain}}))
		}
		for _, n := range nodes {
			awaitGood(b, n)
		}
		for _, where := range []string{"leader", "follower"} {
			for _, n := range inFlight {
				b.Run(fmt.Sprintf("tls=%v/%s/%d", !plain, where, n), func(b *testing.B) {
					var node *Node
					for _, o := range nodes {
						if o.IsLeader() == (where == "leader") {
							node = o
						}
					}
					c, value := node.Cache("c"), make([]byte, 100)
					ctx := b.Context()
					parallel(b, n, func(i int) error {
						_, err := c.Put(ctx, fmt.Sprint("key-", i%10000), value, NoExpiry, Quorum)
						return err
					})
					b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
				})
			}
		}
	}
}

// BenchmarkRaft is what the library does by itself: Apply on the leader of three, in memory, over plain TCP.
func BenchmarkRaft(b *testing.B) {
	var rafts []*hraft.Raft
	var servers []hraft.Server
	var trans []*hraft.NetworkTransport
	for i := range 3 {
		t, err := hraft.NewTCPTransport("127.0.0.1:0", nil, 3, time.Second, nil)
		if err != nil {
			b.Fatal(err)
		}
		trans = append(trans, t)
		servers = append(servers, hraft.Server{ID: hraft.ServerID(fmt.Sprint(i)), Address: t.LocalAddr()})
	}
	for i := range 3 {
		c := hraft.DefaultConfig()
		c.LocalID, c.LogLevel, c.SnapshotThreshold = servers[i].ID, "ERROR", 1<<40
		store := hraft.NewInmemStore()
		r, err := hraft.NewRaft(c, &hraft.MockFSM{}, store, store, hraft.NewInmemSnapshotStore(), trans[i])
		if err != nil {
			b.Fatal(err)
		}
		rafts = append(rafts, r)
	}
	if err := rafts[0].BootstrapCluster(hraft.Configuration{Servers: servers}).Error(); err != nil {
		b.Fatal(err)
	}
	var leader *hraft.Raft
	for leader == nil {
		for _, r := range rafts {
			if r.State() == hraft.Leader {
				leader = r
			}
		}
		<-time.After(time.Millisecond)
	}
	defer func() {
		for _, r := range rafts {
			_ = r.Shutdown().Error()
		}
	}()
	for _, n := range inFlight {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			data := make([]byte, 120)
			parallel(b, n, func(int) error { return leader.Apply(data, 0).Error() })
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
		})
	}
}
