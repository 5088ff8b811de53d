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

// world is a server with nodes that reach it each through a proxy of its own.
type world struct {
	t      testing.TB
	server *storeserver.ZooKeeper
	path   string
	direct bool // without proxies

	mu      sync.Mutex
	proxies map[int]*storeserver.Proxy
}

var (
	paths     atomic.Int64
	lastWorld atomic.Pointer[world] // that a harness made
)

func newWorld(t testing.TB, server *storeserver.ZooKeeper) *world {
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

func (w *world) open(n int) (*zookeeper.Store, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return zookeeper.Open(ctx, zookeeper.Config{Servers: []string{w.addr(n)}, Path: w.path})
}

func harness(server *storeserver.ZooKeeper) physicaltest.Harness {
	return func(t testing.TB) physicaltest.Store {
		w := newWorld(t, server)
		lastWorld.Store(w)
		return physicaltest.Store{
			Open:    func(n int) (physicaltest.Handle, error) { return w.open(n) },
			Restart: server.Restart,
			Isolate: func(n int) func() { w.proxy(n).Stall(); return w.proxy(n).Heal },
			CutAnswers: func(n int) func() {
				w.proxy(n).CutAnswers()
				return w.proxy(n).Heal
			},
		}
	}
}

// Every promise of package physical, against a real server.
func TestConformance(t *testing.T) {
	server := storeserver.StartZooKeeper(t)
	t.Run("Backend", func(t *testing.T) { physicaltest.Backend(t, harness(server)) })
	t.Run("HABackend", func(t *testing.T) { physicaltest.HABackend(t, harness(server)) })
	t.Run("SilentServer", func(t *testing.T) { testSilentServer(t, server) })
}

// "A node whose server falls silent goes on with another": also where it takes connections and says nothing, and the caller has
// more patience than that.
func testSilentServer(t *testing.T, server *storeserver.ZooKeeper) {
	w := newWorld(t, server)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	store, err := zookeeper.Open(ctx, zookeeper.Config{Servers: []string{w.addr(0), w.addr(1)}, Path: w.path})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	w.proxy(0).Stall()
	for range 2 { // one of them begins with the silent server
		w.proxy(0).CloseConns()
		w.proxy(1).CloseConns()
		began := time.Now()
		if _, err := store.Fence(ctx); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("the other server was reached after %v", took)
		}
	}
}
