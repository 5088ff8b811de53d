// Package boottime is the clock that leases are measured on (P4): CLOCK_BOOTTIME, which no wall-clock
// step moves and which goes on while the process is stopped or the machine is suspended. Go's own
// monotonic clock stops during a suspend, so a deadline must be compared on this clock before it is
// trusted, also when a timer says that there is time left.
package boottime

import "time"

// Instant is a point on the boot clock of this machine: the time since it was started. Instants of two
// machines, or of one machine before and after a restart, must never be compared.
type Instant time.Duration

// Add returns the instant d later.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns how much later i is than o.
func (i Instant) Sub(o Instant) time.Duration { return time.Duration(i - o) }

// Before reports whether i is earlier than o.
func (i Instant) Before(o Instant) bool { return i < o }

// Until returns how long it is from now to i; negative when i has passed.
func Until(i Instant) time.Duration { return i.Sub(Now()) }

// Since returns how long ago i was.
func Since(i Instant) time.Duration { return Now().Sub(i) }
