package processors

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// TestLook: one processor after a calm while, all of them after a short one with too few, and no back and forth between.
func TestLook(t *testing.T) {
	var k keeper
	looks := func(used float64, times int, want bool) {
		t.Helper()
		for range times {
			k.look(used)
		}
		if k.one != want {
			t.Fatalf("after %d looks at %v: one processor is enough: %v", times, used, k.one)
		}
	}
	looks(0.1, calm-1, false)
	looks(1.4, 1, false)
	looks(0.85, calm-1, false)
	looks(0.85, 1, true)
	looks(0.8, 100, true)    // what all of them would use more
	looks(1, strain-1, true) // garbage is collected
	looks(0.5, 1, true)
	looks(1, strain, false)
	looks(0.95, 100, false)
	looks(0, calm, true)
}

// TestKeep: a process that needs little comes to have one processor, one that needs more all of them, and so has one that is not kept any more.
func TestKeep(t *testing.T) {
	t.Setenv("GOMAXPROCS", "")
	all := runtime.GOMAXPROCS(0)
	if all == 1 {
		t.Skip("there is one processor")
	}
	var busy atomic.Bool
	var used time.Duration
	last := time.Now()
	processorTime := func() (time.Duration, bool) {
		now := time.Now()
		if busy.Load() {
			used += now.Sub(last)
		}
		last = now
		return used, true
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		keep(ctx, processorTime)
	}()
	until := func(want int, what string) {
		t.Helper()
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for deadline := time.Now().Add(time.Minute); runtime.GOMAXPROCS(0) != want; <-ticker.C {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d processors, want %d", what, runtime.GOMAXPROCS(0), want)
			}
		}
	}
	until(1, "idle")
	busy.Store(true)
	until(all, "busy")
	busy.Store(false)
	until(1, "idle again")
	cancel()
	<-done
	until(all, "not kept")
}

// TestProcessorTime: the time that the process's threads ran is told.
func TestProcessorTime(t *testing.T) {
	before, ok := processorTime()
	if !ok {
		t.Skip("not on this system")
	}
	for after := before; after < before+10*time.Millisecond; {
		after, _ = processorTime()
	}
}

// TestLeftAlone: who sets GOMAXPROCS has it.
func TestLeftAlone(t *testing.T) {
	t.Setenv("GOMAXPROCS", "2")
	Keep(context.Background()) // returns
}
