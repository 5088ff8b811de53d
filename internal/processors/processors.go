// Package processors keeps a process to one processor for as long as one is enough for it.
//
// DESIGN. When a goroutine becomes ready and a processor is idle, Go wakes a thread for it. A server that hands each request on between a
// few goroutines and is far from busy has threads woken and put to sleep several times for each: for a cache's leader that was two fifths
// of its work (docs/adr/0028), and it was taken from its neighbours on the machine. With one processor the goroutine that was
// made ready is simply the next one. So [Keep] looks every so often how much the process needs, and gives it all processors as soon as
// that comes near to one. Where others on the machine leave it less than one it keeps to that: more threads would only take more from them.
package processors

import (
	"context"
	"os"
	"runtime"
	"time"
)

// How much of one processor is used is looked at so often. One is enough where less than most is used of all of them, for so many looks: of
// one it will be less still. It is not enough any more where most is used of it for longer than a collection of garbage takes it.
const (
	every  = 50 * time.Millisecond
	most   = 0.9
	calm   = 20
	strain = 4
)

// Keep does so until ctx ends; then the process has all processors again. It does nothing where there is one, where the environment sets
// GOMAXPROCS, or on a system that does not tell what a process uses. It is for a process that has nothing else to do.
func Keep(ctx context.Context) { keep(ctx, processorTime) }

// keep is Keep with what tells how long the process's threads have run.
func keep(ctx context.Context, processorTime func() (time.Duration, bool)) {
	used, ok := processorTime()
	if !ok || os.Getenv("GOMAXPROCS") != "" || runtime.GOMAXPROCS(0) == 1 {
		return
	}
	defer runtime.SetDefaultGOMAXPROCS()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var k keeper
	for last := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := time.Now()
		total, _ := processorTime()
		was := k.one
		switch k.look(float64(total-used) / float64(now.Sub(last))); {
		case k.one && !was:
			runtime.GOMAXPROCS(1)
		case was && !k.one:
			runtime.SetDefaultGOMAXPROCS()
		}
		last, used = now, total
	}
}

// keeper decides.
type keeper struct {
	one   bool // one processor is enough
	looks int  // in a row that speak against that
}

// look takes in how much was used since the last time: 1 is all of one processor.
func (k *keeper) look(used float64) {
	if (used < most) == k.one {
		k.looks = 0
		return
	}
	k.looks++
	if k.one && k.looks >= strain || !k.one && k.looks >= calm {
		k.one, k.looks = !k.one, 0
	}
}
