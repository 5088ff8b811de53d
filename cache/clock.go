package cache

import (
	"sync/atomic"
	"time"

	"github.com/locum-ha/locum/internal/boottime"
)

// machineClock is Go's monotonic clock, which is cheap and stands still while the machine is suspended, and what CLOCK_BOOTTIME says that
// it has missed. That is asked for every clockStep: a machine that is put to sleep is busy with its devices for longer than that, by the
// same clock, between the last step of its processes and the first one after.
type machineClock struct {
	start time.Time
	boot  boottime.Instant // at start, or later
	ask   func() boottime.Instant
	asked atomic.Int64 // when, by the monotonic clock
	slept atomic.Int64 // how long the machine did since start; it grows only
}

// clockStep is how long the clock may go without asking the machine's.
const clockStep = int64(200 * time.Microsecond)

func newMachineClock(ask func() boottime.Instant) *machineClock {
	return &machineClock{start: time.Now(), boot: ask(), ask: ask}
}

func (c *machineClock) now() int64 {
	awake := int64(time.Since(c.start))
	if awake-c.asked.Load() > clockStep {
		awake = c.compare()
	}
	return awake + c.slept.Load()
}

// compare finds out how long the machine has slept, a little less rather than more, and returns the monotonic clock.
func (c *machineClock) compare() int64 {
	boot := int64(c.ask().Sub(c.boot))
	awake := int64(time.Since(c.start))
	for slept := boot - awake; ; {
		known := c.slept.Load()
		if slept <= known || c.slept.CompareAndSwap(known, slept) {
			break
		}
	}
	c.asked.Store(awake)
	return awake
}

var machine = newMachineClock(boottime.Now)

// now is a clock for this process: nanoseconds, not moved by changes of the wall clock, and not stopped by a suspended machine.
func now() int64 { return machine.now() }
