package postgres

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical"
)

const benchClients = 64

// BenchmarkStore compares puts and gets of 1 KiB at 64 callers with the same on the database's own client, with as many
// connections as callers. "own" is the client, "store" this package; "kv" is what a write of the versioned entries
// commits: a condition and two puts.
func BenchmarkStore(b *testing.B) {
	server := storeserver.StartPostgreSQL(b)
	s, err := open(Config{URL: physical.Secret(server.URL(""))})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	cfg, err := pgxpool.ParseConfig(server.URL(""))
	if err != nil {
		b.Fatal(err)
	}
	cfg.MaxConns = benchClients
	own, err := pgxpool.NewWithConfig(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer own.Close()
	if _, err := own.Exec(b.Context(), "CREATE TABLE own (key text PRIMARY KEY, value bytea NOT NULL)"); err != nil {
		b.Fatal(err)
	}
	f := physical.Fence{Lineage: "bench", Term: 1}
	if err := s.RaiseFence(b.Context(), physical.Fence{}, f); err != nil {
		b.Fatal(err)
	}
	values := make([][]byte, 64) // that differ: a put of what is there already costs less
	for i := range values {
		values[i] = bytes.Repeat([]byte{byte(i)}, 1<<10)
	}
	value := func(n int64) []byte { return values[n/10000%64] }
	key := func(n int64) string { return fmt.Sprintf("bench/%06d", n%10000) }
	var fresh atomic.Int64
	for _, c := range []struct {
		name string
		call func(ctx context.Context, n int64) error
	}{
		{"put/own", func(ctx context.Context, n int64) error {
			_, err := own.Exec(ctx, "INSERT INTO own VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value", key(n), value(n))
			return err
		}},
		{"put/store", func(ctx context.Context, n int64) error { return s.Commit(ctx, &f, physical.Put(key(n), value(n))) }},
		{"kv/store", func(ctx context.Context, n int64) error {
			k := fmt.Sprintf("kv/%08d", fresh.Add(1))
			return s.Commit(ctx, &f, physical.RequireAbsent(k), physical.Put(k, value(n)), physical.Put(k+"/slot", nil))
		}},
		{"get/own", func(ctx context.Context, n int64) error {
			var v []byte
			return own.QueryRow(ctx, "SELECT value FROM own WHERE key = $1", key(n%1000)).Scan(&v)
		}},
		{"get/store", func(ctx context.Context, n int64) error { _, err := s.Get(ctx, key(n%1000)); return err }},
	} {
		b.Run(c.name, func(b *testing.B) { parallel(b, c.call) })
	}
}

func parallel(b *testing.B, call func(ctx context.Context, n int64) error) {
	var n atomic.Int64
	b.SetParallelism(benchClients / 2)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := call(b.Context(), n.Add(1)-1); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}
