package footprint

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// headroom is how much the heap of a busy process may grow between two collections, where it would be less.
	headroom = 24 << 20

	// Collections per second from which on a process is busy, and below which it is not any more.
	busy, calm = 3, 1

	breath = time.Second
)

// Breathe has a busy process collect its garbage less often: the heap of a node is small, so that a collection is due every few
// megabytes, many times a second under load. An idle process stays as small as it is. It returns when ctx ends. GOGC in the
// environment is the operator's word, and nothing is done.
func Breathe(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	samples := []metrics.Sample{{Name: "/gc/cycles/automatic:gc-cycles"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(samples)
	cycles, percent := samples[0].Value.Uint64(), 100
	defer func() { debug.SetGCPercent(100) }()
	tick := time.NewTicker(breath)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		metrics.Read(samples)
		n := samples[0].Value.Uint64() - cycles
		cycles += n
		if want := percentFor(percent, n, samples[1].Value.Uint64()); want != percent {
			debug.SetGCPercent(want)
			percent = want
		}
	}
}

// percentFor is by how much of what is live the heap may grow, after n collections in a breath.
func percentFor(now int, n, live uint64) int {
	switch {
	case n >= busy || now > 100 && n >= calm:
		return int(max(100, min(400, headroom*100/max(live, 1))))
	case now > 100:
		return 100
	}
	return now
}
