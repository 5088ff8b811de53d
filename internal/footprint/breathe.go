package footprint

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// Headroom is how much the heap of a busy node may grow between two collections, where it would be less; CacheHeadroom, of one that is a
	// cache and nothing else: memory is what that is for.
	Headroom      = 24 << 20
	CacheHeadroom = 96 << 20

	// A process is busy when one collection followed another within a few breaths, and not any more when there was none in many.
	breath = 250 * time.Millisecond
	soon   = 4
	calm   = 40
)

// Breathe has a busy process collect its garbage less often: the heap of a node is small, so that a collection is due every few
// megabytes, many times a second under load. An idle process stays as small as it is. It returns when ctx ends. GOGC in the
// environment is the operator's word, and nothing is done.
func Breathe(ctx context.Context, headroom uint64) {
	if os.Getenv("GOGC") != "" {
		return
	}
	samples := []metrics.Sample{{Name: "/gc/cycles/automatic:gc-cycles"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(samples)
	cycles, percent, quiet := samples[0].Value.Uint64(), 100, calm
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
		now := samples[0].Value.Uint64()
		quiet++
		busy := now > cycles+1 || now > cycles && quiet <= soon
		if now > cycles {
			cycles, quiet = now, 0
		}
		want := percent
		switch {
		case busy:
			want = percentFor(headroom, samples[1].Value.Uint64())
		case quiet >= calm:
			want = 100
		}
		if want != percent {
			debug.SetGCPercent(want)
			percent = want
		}
	}
}

// percentFor is by how much of what is live the heap of a busy process may grow.
func percentFor(headroom, live uint64) int { return int(max(100, min(400, headroom*100/max(live, 1)))) }
