package mysql

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/physicaltest"
)

// P3: what was acknowledged is there after the server was killed, frozen and cut off in the middle of commits, and
// no error says that nothing was written where something was.
func (p *place) testChaos(t *testing.T) {
	proxy := storeserver.NewProxy(t, p.server.Addr)
	physicaltest.Chaos(t, p.harness(func(c *Config) { c.Addresses = []string{proxy.Addr()} }), rounds(),
		storeserver.Disturbances(t, p.crash, p.server.Process, proxy)...)
}

// "A fence raise that is not blocked by a dead session": one that was left in the middle of a commit, with and without the right to
// see transactions.
func (p *place) testRaiseEndsSessionThatBlocksIt(t *testing.T) {
	admin := p.admin(t)
	if _, err := admin.Exec("CREATE USER IF NOT EXISTS 'blind'@'%' IDENTIFIED BY 'secret'"); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Exec("GRANT ALL ON locum.* TO 'blind'@'%'"); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"locum", "blind"} {
		t.Run(user, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			cfg := p.config("")
			cfg.Username = user
			s, err := open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			now := physical.Fence{Lineage: "l", Term: 1}
			if err := s.RaiseFence(ctx, physical.Fence{}, now); err != nil {
				t.Fatal(err)
			}
			conn, err := s.db.Conn(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			sql, args := s.schema.commit(now, [][]physical.Op{{physical.Put("half", nil)}})
			sql, _, _ = strings.Cut(sql, "COMMIT; ")
			if _, err := conn.ExecContext(ctx, sql, args...); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			if err := s.RaiseFence(ctx, now, physical.Fence{Lineage: "l", Term: 2}); err != nil {
				t.Fatalf("raise: %v", err)
			}
			if took := time.Since(began); took > 6*time.Second {
				t.Errorf("the raise took %v", took)
			}
			if _, err := conn.ExecContext(ctx, "COMMIT"); err == nil {
				t.Errorf("the session that blocked the raise could commit afterwards")
			}
			if _, err := s.Get(ctx, "half"); !errors.Is(err, physical.ErrNotFound) {
				t.Errorf("what the session that was ended had written: %v", err)
			}
		})
	}
}

// Times of two servers are never compared: while the row was written by another server's clock, the lock is held for a full
// TTL of the challenger's own, however the clocks differ, and no longer.
func (p *place) testLockAfterFailoverOfTheServer(t *testing.T) {
	cfg := p.config("")
	var stores [2]*Store
	for i := range stores {
		s, err := open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		stores[i] = s
	}
	for name, expires := range map[string]string{"behind": "'2000-01-01'", "ahead": "'2100-01-01'"} {
		t.Run(name, func(t *testing.T) {
			const ttl = 600 * time.Millisecond
			failover := func() {
				t.Helper()
				if _, err := stores[0].db.Exec("UPDATE " + stores[0].schema.lock + " SET clock = 'another', expires = " + expires); err != nil {
					t.Fatal(err)
				}
			}
			g, err := stores[0].Acquire(t.Context(), physical.Record{Holder: "a"}, ttl, 0)
			if err != nil {
				t.Fatal(err)
			}
			failover()
			if _, err := stores[1].Acquire(t.Context(), physical.Record{Holder: "b"}, ttl, 0); !errors.Is(err, physical.ErrHeld) {
				t.Fatalf("while two servers' clocks differ: %v", err)
			}
			began := time.Now()
			if g, err = stores[0].Renew(t.Context(), g); err != nil {
				t.Fatalf("the holder renews after the failover: %v", err)
			}
			failover()
			var next physical.Grant
			ticker := time.NewTicker(10 * time.Millisecond)
			defer ticker.Stop()
			for range ticker.C {
				if next, err = stores[1].Acquire(t.Context(), physical.Record{Holder: "b"}, ttl, 0); err == nil || time.Since(began) > 5*time.Second {
					break
				}
			}
			if took := time.Since(began); err != nil || took < ttl || next.Term() <= g.Term() {
				t.Fatalf("after %v: %+v, %v", took, next, err)
			}
			if _, err := stores[0].Renew(t.Context(), g); !errors.Is(err, physical.ErrLost) {
				t.Errorf("the holder renews a lock that another has taken: %v", err)
			}
			if err := stores[1].Release(t.Context(), next, ""); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// It makes its tables itself, or says which right is missing, with the SQL to run: what it says works.
func (p *place) testMissingRights(t *testing.T) {
	admin := p.admin(t)
	run := func(sql string) {
		t.Helper()
		for statement := range strings.SplitSeq(sql, ";\n") {
			statement, _, _ = strings.Cut(statement, "; --")
			if strings.TrimSpace(statement) == "" {
				continue
			}
			if _, err := admin.Exec(strings.TrimSuffix(statement, ";")); err != nil {
				t.Fatalf("%s: %v", statement, err)
			}
		}
	}
	run("CREATE DATABASE poor;\nCREATE USER 'poor'@'%' IDENTIFIED BY 'secret';\nGRANT SELECT, INSERT, UPDATE, DELETE ON poor.* TO 'poor'@'%'")
	cfg := p.config("")
	cfg.Username, cfg.Database = "poor", "poor"
	_, err := open(cfg)
	if err == nil || !strings.Contains(err.Error(), "GRANT") || !strings.Contains(err.Error(), "CREATE TABLE") {
		t.Fatalf("got %v, want it to say what is missing", err)
	}
	_, sql, _ := strings.Cut(err.Error(), "as an administrator:\n")
	run(sql)
	s, err := open(cfg)
	if err != nil {
		t.Fatalf("after the SQL was run: %v", err)
	}
	defer s.Close()
	if err := s.Commit(t.Context(), nil, physical.Put("a", nil)); err != nil {
		t.Errorf("commit: %v", err)
	}
}

// "Retries" what the server undid because another session came in between: of two that wait for each other, the lighter one is
// rolled back, which is the commit here, and it is made again.
func (p *place) testDeadlock(t *testing.T) {
	s, err := open(p.config(""))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.Commit(ctx, nil, physical.Put("a", []byte("old"))); err != nil {
		t.Fatal(err)
	}
	admin := p.admin(t)
	other, err := admin.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	exec := func(sql string) {
		t.Helper()
		if _, err := other.ExecContext(ctx, s.schema.expand(sql)); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	deadlocks := func() (n int) {
		t.Helper()
		var name string
		if err := admin.QueryRow("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'").Scan(&name, &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := deadlocks()
	exec("START TRANSACTION")
	exec("INSERT INTO @entries SELECT CONCAT('heavy-', b), '' FROM @keys WHERE b < 200")
	exec("SELECT * FROM @entries WHERE k = 'a' FOR UPDATE")
	committed := make(chan error, 1)
	go func() { committed <- s.Commit(ctx, nil, physical.Put("a", []byte("new"))) }()
	ticker := time.NewTicker(200 * time.Millisecond) // innodb_trx is a copy that is not renewed while it is read more often than every 100 ms
	defer ticker.Stop()
	for waiting := 0; waiting == 0; <-ticker.C { // until it has the lock that stands for the key, and waits for the entry
		if err := admin.QueryRowContext(ctx, "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'").Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
	exec("SELECT * FROM @keys WHERE b IN (" + hashes([][]physical.Op{{physical.Put("a", nil)}}) + ") FOR UPDATE")
	exec("ROLLBACK")
	if err := <-committed; err != nil {
		t.Errorf("the commit that was rolled back once: %v", err)
	}
	if e, err := s.Get(ctx, "a"); err != nil || string(e.Value) != "new" {
		t.Errorf("read %+v, %v", e, err)
	}
	if deadlocks() == before {
		t.Error("there was no deadlock: the test tests nothing")
	}
}

// "A node that meets a newer format says so and stays standby."
func (p *place) testNewerFormat(t *testing.T) {
	s, err := open(p.config(""))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, table := range []string{s.schema.fence, s.schema.lock} {
		if _, err := s.db.Exec("UPDATE " + table + " SET format = 2"); err != nil {
			t.Fatal(err)
		}
	}
	_, fence := s.Fence(t.Context())
	_, acquire := s.Acquire(t.Context(), physical.Record{Holder: "a"}, time.Minute, 0)
	for call, err := range map[string]error{"fence": fence, "acquire": acquire} {
		if !errors.Is(err, physical.ErrUnavailable) || !strings.Contains(err.Error(), "format 2") {
			t.Errorf("%s: %v", call, err)
		}
	}
}

// P1: servers of which several take writes do not see each other's locks on rows, and are refused, unless it is promised that all
// nodes reach the same one.
func TestSeveralWritersAreRefused(t *testing.T) {
	const group = "group_replication_group_name"
	for _, c := range []struct {
		variables map[string]string
		promised  bool
		packet    int64
		want      string
	}{
		{variables: nil},
		{variables: map[string]string{"wsrep_on": "OFF"}},
		{variables: map[string]string{"wsrep_on": "ON"}, want: "single_writer"},
		{variables: map[string]string{"wsrep_on": "ON"}, promised: true},
		{variables: map[string]string{"group_replication_single_primary_mode": "OFF", group: "g"}, want: "single_writer"},
		{variables: map[string]string{"group_replication_single_primary_mode": "OFF", group: "g"}, promised: true},
		{variables: map[string]string{"group_replication_single_primary_mode": "ON", group: "g"}},
		{variables: map[string]string{"group_replication_single_primary_mode": "OFF", group: ""}},
		{packet: 64 << 10, want: "max_allowed_packet"},
	} {
		l := limits{version: "10.11", packet: 16 << 20}
		if c.packet != 0 {
			l.packet = c.packet
		}
		l.read(c.variables)
		err := l.unfit(c.promised)
		if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, promised %v: %v, want %q", c.variables, c.promised, err, c.want)
		}
	}
}

// Through TLS, with a password from a file.
func (p *place) testTLS(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := p.config("")
	cfg.Password, cfg.PasswordFile, cfg.ClientTLS = "", file, physical.ClientTLS{CAFile: p.cert.CertFile}
	s, err := open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var name, cipher string
	if err := s.db.QueryRow("SHOW STATUS LIKE 'Ssl_cipher'").Scan(&name, &cipher); err != nil || cipher == "" {
		t.Errorf("the cipher is %q, %v", cipher, err)
	}
	cfg.ClientTLS, cfg.TLS = physical.ClientTLS{}, true
	if _, err := open(cfg); err == nil {
		t.Error("a server whose certificate nobody vouches for was believed")
	}
}

// Secrets are never printed.
func (p *place) testSecretsStaySecret(t *testing.T) {
	const secret = "hunter2-Zq9"
	cfg := p.config("")
	cfg.Password = secret
	_, err := open(cfg)
	if err == nil || strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "Access denied") {
		t.Errorf("a wrong password: %v", err)
	}
	if text := fmt.Sprintf("%v %+v %#v", cfg, cfg, cfg); strings.Contains(text, secret) {
		t.Errorf("a printed Config shows the password: %s", text)
	}
}

// A server that takes no writes, as one that was demoted, is unavailable, and the store serves again when it does.
func (p *place) testReadOnlyServer(t *testing.T) {
	s, err := open(p.config(""))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	admin := p.admin(t)
	for _, c := range []struct {
		set string
		ok  func(error) bool
	}{
		{"ON", func(err error) bool { return errors.Is(err, physical.ErrUnavailable) }},
		{"OFF", func(err error) bool { return err == nil }},
	} {
		if _, err := admin.Exec("SET GLOBAL read_only = " + c.set); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err := s.Commit(ctx, nil, physical.Put("a", nil))
		cancel()
		if !c.ok(err) {
			t.Errorf("commit with read_only %s: %v", c.set, err)
		}
	}
}

// Of several servers the first that takes writes is used.
func (p *place) testSeveralServers(t *testing.T) {
	cfg := p.config("")
	cfg.Addresses = []string{"127.0.0.1:1", p.server.Addr}
	s, err := open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	cfg.Addresses = []string{"127.0.0.1:1"}
	if _, err := open(cfg); !errors.Is(err, physical.ErrUnavailable) {
		t.Errorf("nobody listens: %v", err)
	}
}

// "They are tried in turn until one takes writes": also where the first one is frozen, which takes connections and says nothing, and
// a call has less time than a dial may take.
func (p *place) testFrozenServer(t *testing.T) {
	proxy := storeserver.NewProxy(t, p.server.Addr)
	cfg := p.config("")
	cfg.Addresses = []string{proxy.Addr(), p.server.Addr}
	s, err := open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	proxy.Stall()
	for began := time.Now(); ; {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err := s.Fence(ctx)
		cancel()
		if err == nil {
			break
		}
		if time.Since(began) > 15*time.Second {
			t.Fatalf("the second server is never reached: %v", err)
		}
	}
}

// A lease does not wait behind entries: with every connection for them in use, the lock is renewed and the fence read.
func (p *place) testLeaseBesideEntries(t *testing.T) {
	cfg := p.config("")
	cfg.MaxConns = 3
	s, err := open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	g, err := s.Acquire(ctx, physical.Record{Holder: "a"}, time.Minute, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range cfg.MaxConns {
		conn, err := s.db.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if _, err := s.Renew(ctx, g); err != nil {
		t.Errorf("renew: %v", err)
	}
	if _, err := s.Fence(ctx); err != nil {
		t.Errorf("fence: %v", err)
	}
}
