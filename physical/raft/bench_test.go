//go:build unix

package raft

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
)

// cpuTime is what this process has used: unlike time it does not depend on what else the machine does.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkCommit writes 1 KiB entries to three nodes in this process, over loopback TCP, with syncs.
func BenchmarkCommit(b *testing.B) {
	for _, writers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			var entries, syncs, commits atomic.Int64
			c := newCluster(b, 3, func(cfg *Config) {
				cfg.Observer.Stored = func(n int, _ time.Duration) { entries.Add(int64(n)); syncs.Add(1) }
				cfg.Observer.Committed = func(n, _ int, _ time.Duration) { commits.Add(int64(n)) }
			})
			l := c.leader()
			value := make([]byte, 1024)
			var next atomic.Int64
			took := make([][]time.Duration, writers)
			entries.Store(0)
			syncs.Store(0)
			commits.Store(0)
			b.ResetTimer()
			before := cpuTime()
			var all sync.WaitGroup
			for w := range writers {
				all.Go(func() {
					for {
						i := next.Add(1)
						if i > int64(b.N) {
							return
						}
						start := time.Now()
						if err := l.Commit(b.Context(), nil, physical.Put(fmt.Sprintf("bench/%d", i%20000), value)); err != nil {
							b.Error(err)
							return
						}
						took[w] = append(took[w], time.Since(start))
					}
				})
			}
			all.Wait()
			b.StopTimer()
			b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "cpu-µs/commit")
			flat := slices.Concat(took...)
			slices.Sort(flat)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
			b.ReportMetric(float64(flat[len(flat)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(flat[len(flat)*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(float64(commits.Load())/max(float64(entries.Load()), 1)*3, "commits/entry")
			b.ReportMetric(float64(syncs.Load())/3/float64(b.N), "writes/commit")
		})
	}
}
