package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/locum-ha/locum/lock"
)

// lockMetrics are about the cluster's named locks, on the active node. The HA lock is another.
type lockMetrics struct {
	waited  prometheus.Histogram
	refused prometheus.Counter
	expired prometheus.Counter
}

func newLockMetrics(f factory) lockMetrics {
	return lockMetrics{
		waited:  f.histogram("locum_named_lock_wait_seconds", "How long those who were given a named lock had waited for it.", latencyBuckets),
		refused: f.counter("locum_named_lock_refused_total", "Requests for a named lock that somebody else held for longer than they waited."),
		expired: f.counter("locum_named_lock_expired_total", "Named locks taken from a holder that had not renewed in time."),
	}
}

// Locks makes the observer of the named locks.
func (m *Metrics) Locks() lock.Observer {
	l := &m.locks
	return lock.Observer{
		Acquired: func(waited time.Duration) { l.waited.Observe(waited.Seconds()) },
		Refused:  l.refused.Inc,
		Expired:  l.expired.Inc,
	}
}
