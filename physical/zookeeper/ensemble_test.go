package zookeeper_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical/physicaltest"
	"github.com/locum-ha/locum/physical/zookeeper"
)

// Three servers, each node with another one first. What restarts is one server after another, killed: a follower or the
// leader. So renewals, current reads and conditions go through followers too.
func TestEnsemble(t *testing.T) {
	if !storeserver.Faults() {
		t.Skip("three servers: make faults STORE=zookeeper")
	}
	servers := storeserver.StartZooKeepers(t, 3)
	var paths, victim atomic.Int64
	harness := func(t testing.TB) physicaltest.Store {
		path := fmt.Sprintf("/ensemble-%d", paths.Add(1))
		var mu sync.Mutex
		proxies := map[int][]*storeserver.Proxy{}
		of := func(n int) []*storeserver.Proxy {
			mu.Lock()
			defer mu.Unlock()
			for i := 0; len(proxies[n]) < len(servers); i++ {
				proxies[n] = append(proxies[n], storeserver.NewProxy(t, servers[(n+i)%len(servers)].Addr))
			}
			return proxies[n]
		}
		all := func(n int, do func(*storeserver.Proxy)) {
			for _, p := range of(n) {
				do(p)
			}
		}
		return physicaltest.Store{
			Open: func(n int) (physicaltest.Handle, error) {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				var addresses []string
				all(n, func(p *storeserver.Proxy) { addresses = append(addresses, p.Addr()) })
				return zookeeper.Open(ctx, zookeeper.Config{Servers: addresses, Path: path})
			},
			Restart: func() error {
				server := servers[victim.Add(1)%int64(len(servers))]
				server.Kill()
				return server.Start()
			},
			Isolate: func(n int) func() {
				all(n, (*storeserver.Proxy).Stall)
				return func() { all(n, (*storeserver.Proxy).Heal) }
			},
			CutAnswers: func(n int) func() {
				all(n, (*storeserver.Proxy).CutAnswers)
				return func() { all(n, (*storeserver.Proxy).Heal) }
			},
			Settle: 30 * time.Second,
			Late:   2 * time.Second, // a killed leader: the next one counts sessions anew
		}
	}
	t.Run("Backend", func(t *testing.T) { physicaltest.Backend(t, harness) })
	t.Run("HABackend", func(t *testing.T) { physicaltest.HABackend(t, harness) })
	physicaltest.Outages(t, harness, 3)
}
