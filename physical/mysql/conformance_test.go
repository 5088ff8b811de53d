package mysql

import (
	"context"
	"database/sql"
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
	server *storeserver.MariaDB
	next   atomic.Int64
}

// fresh returns a prefix of tables that nobody has used.
func (p *place) fresh() string { return fmt.Sprintf("t%d_", p.next.Add(1)) }

// admin returns a connection of the administrator.
func (p *place) admin(t testing.TB) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", "root:secret@tcp("+p.server.Addr+")/locum")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func open(cfg Config) (*Store, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return Open(ctx, cfg)
}

// harness gives each check tables of its own, and each node a proxy.
func (p *place) harness() physicaltest.Harness {
	return func(t testing.TB) physicaltest.Store {
		prefix := p.fresh()
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
				return open(Config{Addresses: []string{proxy(n).Addr()}, Password: "secret", Prefix: prefix})
			},
			Restart:    p.server.Restart,
			Isolate:    func(n int) func() { proxy(n).Stall(); return proxy(n).Heal },
			CutAnswers: func(n int) func() { proxy(n).CutAnswers(); return proxy(n).Heal },
		}
	}
}

// Every promise of package physical, against a real server, with real faults of the network.
func TestConformance(t *testing.T) {
	p := &place{server: storeserver.StartMariaDB(t)}
	t.Run("Backend", func(t *testing.T) { physicaltest.Backend(t, p.harness()) })
	t.Run("HABackend", func(t *testing.T) { physicaltest.HABackend(t, p.harness()) })
	t.Run("P1", func(t *testing.T) { physicaltest.FrozenWriter(t, p.harness()) })
}
