package mysql

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical"
)

const benchClients = 64

// BenchmarkStore compares puts and gets of 1 KiB at 64 callers with the same on the database's own client, with as many
// connections as callers and prepared statements. "own" is the client, "store" this package; "kv" is what a write of the versioned entries
// commits: a condition and two puts.
func BenchmarkStore(b *testing.B) {
	server := storeserver.StartMariaDB(b)
	s, err := open(Config{Addresses: []string{server.Addr}, Password: "secret"})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	own, err := sql.Open("mysql", "locum:secret@tcp("+server.Addr+")/locum")
	if err != nil {
		b.Fatal(err)
	}
	defer own.Close()
	own.SetMaxOpenConns(benchClients)
	own.SetMaxIdleConns(benchClients)
	if _, err := own.Exec("CREATE TABLE own (k VARBINARY(255) PRIMARY KEY, v LONGBLOB NOT NULL)"); err != nil {
		b.Fatal(err)
	}
	put, err := own.Prepare("INSERT INTO own VALUES (?, ?) ON DUPLICATE KEY UPDATE v = VALUES(v)")
	if err != nil {
		b.Fatal(err)
	}
	defer put.Close()
	get, err := own.Prepare("SELECT v FROM own WHERE k = ?")
	if err != nil {
		b.Fatal(err)
	}
	defer get.Close()
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
			_, err := put.ExecContext(ctx, key(n), value(n))
			return err
		}},
		{"put/store", func(ctx context.Context, n int64) error { return s.Commit(ctx, &f, physical.Put(key(n), value(n))) }},
		{"kv/store", func(ctx context.Context, n int64) error {
			k := fmt.Sprintf("kv/%08d", fresh.Add(1))
			return s.Commit(ctx, &f, physical.RequireAbsent(k), physical.Put(k, value(n)), physical.Put(k+"/slot", nil))
		}},
		{"get/own", func(ctx context.Context, n int64) error {
			var v []byte
			return get.QueryRowContext(ctx, key(n%1000)).Scan(&v)
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
