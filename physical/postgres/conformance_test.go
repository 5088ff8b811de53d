package postgres

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/physicaltest"
)

// place is a server with a proxy before it for each node.
type place struct {
	server *storeserver.PostgreSQL
	cert   storeserver.Certificate
	next   atomic.Int64

	answers func() storeserver.Fault // what CutAnswers does; nil: it cuts at the first byte
}

// fresh returns the name of a schema that nobody has used.
func (p *place) fresh() string { return fmt.Sprintf("t%d", p.next.Add(1)) }

// admin runs SQL as the administrator.
func (p *place) admin(t testing.TB, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.server.AdminURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// crash kills the server and starts it again.
func (p *place) crash() error { return p.server.Crash() }

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

// harness gives each check a schema of its own, and each node a proxy.
func (p *place) harness(change func(*Config)) physicaltest.Harness {
	return func(t testing.TB) physicaltest.Store {
		schema := p.fresh()
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
				cfg := Config{URL: physical.Secret(p.server.URL(proxy(n).Addr())), Schema: schema}
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
	cert := storeserver.NewCertificate(t, "postgres")
	p := &place{cert: cert, server: storeserver.StartPostgreSQL(t,
		"ssl = on", "ssl_cert_file = '"+cert.CertFile+"'", "ssl_key_file = '"+cert.KeyFile+"'")}
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
	t.Run("LockAfterFailoverOfTheDatabase", p.testLockAfterFailoverOfTheDatabase)
	t.Run("Pooler", p.testPooler)
	t.Run("SimpleProtocol", p.testSimpleProtocol)
	t.Run("SessionOfAnotherRole", p.testSessionOfAnotherRole)
	t.Run("Serialisation", p.testSerialisation)
	t.Run("SeveralServers", p.testSeveralServers)
	t.Run("FrozenRows", p.testFrozenRows)
	t.Run("NewerFormat", p.testNewerFormat)
	t.Run("MissingRights", p.testMissingRights)
	t.Run("LeaseBesideEntries", p.testLeaseBesideEntries)
	t.Run("TLS", p.testTLS)
	t.Run("SecretsStaySecret", p.testSecretsStaySecret)
	t.Run("ReadOnlyServer", p.testReadOnlyServer)
	t.Run("IsolationLevel", p.testIsolationLevel) // the last one: it changes the role
}
