package etcd_test

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical"
)

// Issue 4: "entries written and read per second … beside the same operations straight on the store with its own client
// (≥ 60 % at 64 connections for 1 KiB values)". This is the share of the store's part of it: commits under a fence and
// current reads, beside plain writes and reads of the same kind.
func BenchmarkAgainstOwnClient(b *testing.B) {
	server := storeserver.StartEtcd(b)
	w := newWorld(b, server)
	w.direct = true
	store, err := w.open(0)
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	fence := physical.Fence{Lineage: "bench", Term: 1}
	if err := store.RaiseFence(b.Context(), physical.Fence{}, fence); err != nil {
		b.Fatal(err)
	}
	value := bytes.Repeat([]byte("x"), 1<<10)
	key := func(n int64) string { return fmt.Sprintf("bench/%d", n%512) }
	many := func(name string, do func(n int64) error) {
		b.Run(name, func(b *testing.B) {
			var n atomic.Int64
			b.SetParallelism(32) // times the processors: 64 on two
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := do(n.Add(1)); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
		})
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + server.Addr}})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	for n := range int64(512) {
		if err := store.Commit(b.Context(), &fence, physical.Put(key(n), value)); err != nil {
			b.Fatal(err)
		}
	}
	many("put/locum", func(n int64) error { return store.Commit(b.Context(), &fence, physical.Put(key(n), value)) })
	many("put/client", func(n int64) error { _, err := client.Put(b.Context(), "own/"+key(n), string(value)); return err })
	many("get/locum", func(n int64) error { _, err := store.Get(b.Context(), key(n)); return err })
	many("get/client", func(n int64) error { _, err := client.Get(b.Context(), "own/"+key(n)); return err })
}
