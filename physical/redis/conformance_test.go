package redis

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical/physicaltest"
)

// place is a server with a proxy before it for each node.
type place struct {
	server *storeserver.Redis
	next   atomic.Int64

	answers func() storeserver.Fault // what CutAnswers does; nil: it cuts at the first byte
}

func open(cfg Config) (*Store, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return Open(ctx, cfg)
}

// harness gives each check keys of its own, and each node a proxy.
func (p *place) harness() physicaltest.Harness {
	return func(t testing.TB) physicaltest.Store {
		prefix := fmt.Sprintf("t%d", p.next.Add(1))
		var mu sync.Mutex
		proxies := map[int]*storeserver.Proxy{}
		proxy := func(n int) *storeserver.Proxy {
			mu.Lock()
			defer mu.Unlock()
			if proxies[n] == nil {
				proxies[n] = storeserver.NewProxy(t, p.server.Addr)
			}
			return proxies[n]
		}
		return physicaltest.Store{
			Open: func(n int) (physicaltest.Handle, error) {
				return open(Config{Addresses: []string{proxy(n).Addr()}, Prefix: prefix})
			},
			Restart:    p.server.Restart,
			Isolate:    func(n int) func() { proxy(n).Stall(); return proxy(n).Heal },
			CutAnswers: func(n int) func() { return proxy(n).Disturb(p.answers) },
		}
	}
}

// Every promise on the lock, against a real server, with real faults of the network.
func TestConformance(t *testing.T) {
	p := &place{server: storeserver.StartRedis(t)}
	physicaltest.HABackend(t, p.harness())
	rounds := 1
	if storeserver.Faults() {
		rounds = 10
	}
	p.answers = storeserver.AnswerFaults()
	physicaltest.LockOutages(t, p.harness(), rounds)
}
