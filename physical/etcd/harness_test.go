package etcd_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical/etcd"
	"github.com/locum-ha/locum/physical/physicaltest"
)

// world is a server with nodes that reach it each through a proxy of its own.
type world struct {
	t      testing.TB
	server *storeserver.Etcd
	path   string
	direct bool // without proxies

	mu      sync.Mutex
	proxies map[int]*storeserver.Proxy
}

// startServer starts etcd with an election time-out of 200 ms, so that leases can be as short as a second.
func startServer(t *testing.T) *storeserver.Etcd {
	t.Helper()
	return storeserver.StartEtcd(t, "--heartbeat-interval", "40", "--election-timeout", "400")
}

// startNewest is startServer with the newest version.
func startNewest(t *testing.T) *storeserver.Etcd {
	t.Helper()
	return storeserver.StartNewestEtcd(t, "--heartbeat-interval", "40", "--election-timeout", "400")
}

var paths atomic.Int64

func newWorld(t testing.TB, server *storeserver.Etcd) *world {
	return &world{t: t, server: server, path: fmt.Sprintf("test-%d", paths.Add(1)), proxies: make(map[int]*storeserver.Proxy)}
}

// proxy returns the proxy before node n.
func (w *world) proxy(n int) *storeserver.Proxy {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.proxies[n] == nil {
		w.proxies[n] = storeserver.NewProxy(w.t, w.server.Addr)
	}
	return w.proxies[n]
}

// addr is where node n reaches the server.
func (w *world) addr(n int) string {
	if w.direct {
		return w.server.Addr
	}
	return w.proxy(n).Addr()
}

func (w *world) open(n int) (*etcd.Store, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return etcd.Open(ctx, etcd.Config{Endpoints: []string{"http://" + w.addr(n)}, Path: w.path})
}

// harness cuts answers as answers says, by turns; nil: at their first byte.
func harness(server *storeserver.Etcd, answers func() storeserver.Fault) physicaltest.Harness {
	return func(t testing.TB) physicaltest.Store {
		w := newWorld(t, server)
		return physicaltest.Store{
			Open:       func(n int) (physicaltest.Handle, error) { return w.open(n) },
			Restart:    server.Restart,
			Isolate:    func(n int) func() { w.proxy(n).Stall(); return w.proxy(n).Heal },
			CutAnswers: func(n int) func() { return w.proxy(n).Disturb(answers) },
			Late:       1500 * time.Millisecond, // etcd looks for leases that have run out every half second
		}
	}
}

// Every promise of package physical, against a real server.
func TestConformance(t *testing.T) {
	server := startServer(t)
	t.Run("Backend", func(t *testing.T) { physicaltest.Backend(t, harness(server, nil)) })
	t.Run("HABackend", func(t *testing.T) { physicaltest.HABackend(t, harness(server, nil)) })
}

// The same against the newest version; the lock, which takes a minute of waiting for leases, with LOCUM_FAULTS=1.
func TestConformanceWithNewest(t *testing.T) {
	server := startNewest(t)
	t.Run("Backend", func(t *testing.T) { physicaltest.Backend(t, harness(server, nil)) })
	if storeserver.Faults() {
		t.Run("HABackend", func(t *testing.T) { physicaltest.HABackend(t, harness(server, nil)) })
		physicaltest.Outages(t, harness(server, storeserver.AnswerFaults()), 1)
	}
}
