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
	cert   storeserver.Certificate
	next   atomic.Int64

	answers func() storeserver.Fault // what CutAnswers does; nil: it cuts at the first byte
}

// fresh returns a prefix of tables that nobody has used.
func (p *place) fresh() string { return fmt.Sprintf("t%d_", p.next.Add(1)) }

// admin returns a connection of the administrator.
func (p *place) admin(t testing.TB) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", "admin:secret@tcp("+p.server.Addr+")/locum")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// config reaches the server at an address, its own unless that of a proxy.
func (p *place) config(address string) Config {
	if address == "" {
		address = p.server.Addr
	}
	return Config{Addresses: []string{address}, Password: "secret", Prefix: p.fresh()}
}

// crash kills the server and starts it again.
func (p *place) crash() error {
	p.server.Kill()
	return p.server.Start()
}

// rounds is how often the long checks are made.
func rounds() int {
	if storeserver.Faults() {
		return 6
	}
	return 1
}

func open(cfg Config) (*Store, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return Open(ctx, cfg)
}

// harness gives each check tables of its own, and each node a proxy.
func (p *place) harness(change func(*Config)) physicaltest.Harness {
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
				cfg := p.config(proxy(n).Addr())
				cfg.Prefix = prefix
				if change != nil {
					change(&cfg)
				}
				return open(cfg)
			},
			Restart:    p.crash,
			Late:       time.Second, // machines that test are busy
			Isolate:    func(n int) func() { proxy(n).Stall(); return proxy(n).Heal },
			CutAnswers: func(n int) func() { return proxy(n).Disturb(p.answers) },
		}
	}
}

// One server, which takes a moment to make, serves all tests. The first ones are the suites: every promise of package physical,
// with real faults of the network.
func TestStore(t *testing.T) {
	cert := storeserver.NewCertificate(t, "mysql")
	p := &place{cert: cert, server: storeserver.StartMariaDB(t, "--ssl-cert="+cert.CertFile, "--ssl-key="+cert.KeyFile, "--ssl-ca="+cert.CertFile)}
	t.Run("Backend", func(t *testing.T) { physicaltest.Backend(t, p.harness(nil)) })
	t.Run("HABackend", func(t *testing.T) { physicaltest.HABackend(t, p.harness(nil)) })
	t.Run("Outages", func(t *testing.T) {
		p.answers = storeserver.AnswerFaults()
		defer func() { p.answers = nil }()
		physicaltest.Outages(t, p.harness(nil), rounds())
	})
	if storeserver.Faults() { // Outages has the shorter form
		t.Run("Chaos", p.testChaos)
	}
	t.Run("RaiseEndsSessionThatBlocksIt", p.testRaiseEndsSessionThatBlocksIt)
	t.Run("LockAfterFailoverOfTheServer", p.testLockAfterFailoverOfTheServer)
	t.Run("Deadlock", p.testDeadlock)
	t.Run("FrozenRows", p.testFrozenRows)
	t.Run("NewerFormat", p.testNewerFormat)
	t.Run("MissingRights", p.testMissingRights)
	t.Run("LeaseBesideEntries", p.testLeaseBesideEntries)
	t.Run("TLS", p.testTLS)
	t.Run("SecretsStaySecret", p.testSecretsStaySecret)
	t.Run("ReadOnlyServer", p.testReadOnlyServer)
	t.Run("SeveralServers", p.testSeveralServers)
	t.Run("FrozenServer", p.testFrozenServer)
	t.Run("ReplicaThatTakesWrites", p.testReplicaThatTakesWrites)
}
