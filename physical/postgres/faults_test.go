package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/physicaltest"
)

// P3: what was acknowledged is there after the server was killed, frozen and cut off in the middle of commits, and
// no error says that nothing was written where something was.
func (p *place) testChaos(t *testing.T) {
	proxy := storeserver.NewProxy(t, p.server.Addr)
	physicaltest.Chaos(t, p.harness(func(c *Config) { c.URL = physical.Secret(p.server.URL(proxy.Addr())) }), rounds(),
		storeserver.Disturbances(t, p.crash, p.server.Process, proxy)...)
}

// "No lock on the fence row spans a client's round trip, and a raise ends a session that blocks it": a client that was cut off
// between two packets of a commit, and a person who has left a transaction open.
func (p *place) testRaiseEndsSessionThatBlocksIt(t *testing.T) {
	for name, block := range map[string]func(s *Store, now physical.Fence) (sql string, args []any){
		"commit without end": func(s *Store, now physical.Fence) (string, []any) {
			return "SELECT " + s.schema.commit + "($1::text, $2::bigint, $3::bytea, $4::integer[], $5::integer[], $6::text[], $7::bytea[], $8::integer[], $9::text[], $10::integer[], $11::text[], $12::bytea[])",
				arguments(now, [][]physical.Op{{physical.Put("half", nil)}})
		},
		"transaction left open": func(s *Store, _ physical.Fence) (string, []any) {
			return "SELECT * FROM " + s.schema.fence + " FOR UPDATE", nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			s, err := open(Config{URL: physical.Secret(p.server.URL("")), Schema: p.fresh()})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			now := physical.Fence{Lineage: "l", Term: 1}
			if err := s.RaiseFence(ctx, physical.Fence{}, now); err != nil {
				t.Fatal(err)
			}
			conn, err := pgx.Connect(ctx, p.server.URL(""))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(ctx)
			tx, err := conn.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			sql, args := block(s, now)
			if _, err := tx.Exec(ctx, sql, args...); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			if err := s.RaiseFence(ctx, now, physical.Fence{Lineage: "l", Term: 2}); err != nil {
				t.Fatalf("raise: %v", err)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("the raise took %v", took)
			}
			if err := tx.Commit(ctx); err == nil {
				t.Errorf("the session that blocked the raise could commit afterwards")
			}
			if _, err := s.Get(ctx, "half"); err == nil {
				t.Errorf("what the session that was ended had written is there")
			}
		})
	}
}

// A session of another role blocks a raise: what it does is hidden from Locum's role until that may see it. Then it is ended; before,
// the raise fails soon, and the log names the right that is missing.
func (p *place) testSessionOfAnotherRole(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var log bytes.Buffer // written by the calls made here alone
	s, err := open(Config{URL: physical.Secret(p.server.URL("")), Schema: p.fresh(), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p.admin(t, "CREATE ROLE stranger LOGIN PASSWORD 'secret'; GRANT USAGE ON SCHEMA "+s.schema.name+" TO stranger; GRANT SELECT, UPDATE ON "+s.schema.fence+" TO stranger")
	conn, err := pgx.Connect(ctx, p.with("stranger").Reveal())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "SELECT * FROM "+s.schema.fence+" FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	to := physical.Fence{Lineage: "l", Term: 1}
	err = s.RaiseFence(ctx, physical.Fence{}, to)
	if !errors.Is(err, physical.ErrUnavailable) || !strings.Contains(log.String(), "GRANT pg_read_all_stats, pg_signal_backend TO") {
		t.Fatalf("the raise: %v; the log: %s", err, log.String())
	}
	p.admin(t, "GRANT pg_read_all_stats, pg_signal_backend TO locum")
	defer p.admin(t, "REVOKE pg_read_all_stats, pg_signal_backend FROM locum")
	if err := s.RaiseFence(ctx, physical.Fence{}, to); err != nil {
		t.Errorf("with the rights that the log names: %v", err)
	}
	if err := tx.Commit(ctx); err == nil {
		t.Error("the session that blocked the raise could commit afterwards")
	}
}

// "Retries serialisation failures": one that the server made up, once. A sequence does not roll back.
func (p *place) testSerialisation(t *testing.T) {
	s, err := open(Config{URL: physical.Secret(p.server.URL("")), Schema: p.fresh()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i, code := range []string{codeSerialization, codeDeadlock} {
		p.admin(t, fmt.Sprintf(`SET search_path = %s; CREATE SEQUENCE tries%d; GRANT ALL ON tries%d TO locum;
			CREATE FUNCTION fail%d() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
				IF nextval('%s.tries%d') = 1 THEN RAISE EXCEPTION USING ERRCODE = '%s'; END IF; RETURN NEW; END $$;
			CREATE TRIGGER fail%d BEFORE INSERT ON locum_entries FOR EACH ROW EXECUTE FUNCTION fail%d()`, s.schema.name, i, i, i, s.schema.name, i, code, i, i))
		if err := s.Commit(t.Context(), nil, physical.Put("a", nil)); err != nil {
			t.Errorf("SQLSTATE %s once: %v", code, err)
		}
		var tries int
		if err := s.pool.QueryRow(t.Context(), fmt.Sprintf("SELECT last_value FROM %s.tries%d", s.schema.name, i)).Scan(&tries); err != nil || tries != 2 {
			t.Errorf("SQLSTATE %s: %d tries, %v", code, tries, err)
		}
	}
}

// "Name all hosts: they are tried in turn": one where nobody listens, and one that takes connections and says nothing.
func (p *place) testSeveralServers(t *testing.T) {
	silent := storeserver.NewProxy(t, p.server.Addr)
	url := strings.Replace(p.server.URL(""), p.server.Addr, "127.0.0.1:1,"+silent.Addr()+","+p.server.Addr, 1)
	s, err := open(Config{URL: physical.Secret(url), Schema: p.fresh(), ConnectTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	silent.Stall()
	for began := time.Now(); ; {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		err := s.Commit(ctx, nil, physical.Put("a", nil))
		cancel()
		if err == nil {
			break
		}
		if time.Since(began) > 20*time.Second {
			t.Fatalf("the last server is never reached: %v", err)
		}
	}
}

// Times of two servers are never compared: while the row was written by another server's clock, the lock is held for a full
// TTL of the challenger's own, however the clocks differ, and no longer.
func (p *place) testLockAfterFailoverOfTheDatabase(t *testing.T) {
	schema := p.fresh()
	var stores [2]*Store
	for i := range stores {
		s, err := open(Config{URL: physical.Secret(p.server.URL("")), Schema: schema})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		stores[i] = s
	}
	for name, expires := range map[string]string{"behind": "'epoch'", "ahead": "now() + interval '1 day'"} {
		t.Run(name, func(t *testing.T) {
			const ttl = 600 * time.Millisecond
			g, err := stores[0].Acquire(t.Context(), physical.Record{Holder: "a"}, ttl, 0)
			if err != nil {
				t.Fatal(err)
			}
			p.admin(t, "UPDATE "+stores[0].schema.lock+" SET clock = now() - interval '1 hour', expires = "+expires)
			began := time.Now()
			if _, err := stores[1].Acquire(t.Context(), physical.Record{Holder: "b"}, ttl, 0); err == nil {
				t.Fatal("a lock was taken from its holder because two servers' clocks differ")
			}
			if g, err = stores[0].Renew(t.Context(), g); err != nil {
				t.Fatalf("the holder renews after the failover: %v", err)
			}
			p.admin(t, "UPDATE "+stores[0].schema.lock+" SET clock = now() - interval '1 hour', expires = "+expires)
			ticker := time.NewTicker(10 * time.Millisecond)
			defer ticker.Stop()
			for range ticker.C {
				next, err := stores[1].Acquire(t.Context(), physical.Record{Holder: "b"}, ttl, 0)
				took := time.Since(began)
				if err != nil && took < 5*time.Second {
					continue
				}
				if err != nil || took < ttl || next.Term() <= g.Term() {
					t.Fatalf("after %v: %+v, %v", took, next, err)
				}
				if _, err := stores[0].Renew(t.Context(), g); err == nil {
					t.Error("the holder renewed a lock that another has taken")
				}
				if err := stores[1].Release(t.Context(), next, ""); err != nil {
					t.Fatal(err)
				}
				return
			}
		})
	}
}

// A lease does not wait behind entries: with every connection for them in use, the lock is renewed and the fence read.
func (p *place) testLeaseBesideEntries(t *testing.T) {
	s, err := open(Config{URL: physical.Secret(p.server.URL("")), Schema: p.fresh(), MaxConns: 2})
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
	for range s.cfg.MaxConns {
		conn, err := s.pool.Acquire(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
	}
	if _, err := s.Renew(ctx, g); err != nil {
		t.Errorf("renew: %v", err)
	}
	if _, err := s.Fence(ctx); err != nil {
		t.Errorf("fence: %v", err)
	}
}
