package supervise

import (
	"time"

	"github.com/locum-ha/locum/internal/boottime"
)

// killAt is when the guardian kills what a lease covers, so that all of it has ended by the lease's deadline: a twentieth of
// the TTL before it, between 5 ms and 250 ms. The kernel needs a few milliseconds for a tree; what it needs longer lies within
// the election's own margin between deadline and TTL. 0, for no lease, stays 0; a deadline that leaves no lead is as good
// as passed.
func killAt(deadline boottime.Instant, ttl time.Duration) boottime.Instant {
	if deadline == 0 {
		return 0
	}
	return max(deadline.Add(-min(max(ttl/20, 5*time.Millisecond), 250*time.Millisecond)), 1)
}
