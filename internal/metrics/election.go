package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/locum-ha/locum/election"
)

type electionMetrics struct {
	leaderships   prometheus.Counter
	ended         *prometheus.CounterVec
	activation    prometheus.Histogram
	renewals      *prometheus.HistogramVec
	renewed       prometheus.Observer
	renewalFailed prometheus.Counter
	fences        prometheus.Counter
	leaderless    prometheus.Histogram
	leaderlessSum prometheus.Counter
}

func newElectionMetrics(f factory) electionMetrics {
	m := electionMetrics{
		leaderships: f.counter("locum_leaderships_total", "How many times this node became active."),
		ended:       f.counterVec("locum_leaderships_ended_total", "Leaderships of this node that ended, planned or not.", "planned"),
		activation:  f.histogram("locum_activation_seconds", "From winning the lock to serving as the active node.", latencyBuckets),
		renewals:    f.histogramVec("locum_lock_renewal_seconds", "Attempts to renew the HA lock, by how they ended.", "outcome"),
		renewalFailed: f.counter("locum_lock_renewal_failures_total",
			"Attempts to renew the HA lock that failed. Several in a row cost the leadership."),
		fences:        f.counter("locum_fence_raises_total", "How many times this node raised the fence."),
		leaderless:    f.histogram("locum_without_active_seconds", "Each time without an active node, as seen by this node.", latencyBuckets),
		leaderlessSum: f.counter("locum_without_active_seconds_total", "All time without an active node, as seen by this node."),
	}
	m.renewed = m.renewals.WithLabelValues("ok")
	for _, planned := range []string{"true", "false"} {
		m.ended.WithLabelValues(planned) // a series that is there at 0 can be alerted on
	}
	return m
}

// Election makes the observer of the election.
func (m *Metrics) Election() election.Observer {
	e := &m.election
	return election.Observer{
		Renewed: func(latency time.Duration, err error) {
			if err == nil {
				e.renewed.Observe(latency.Seconds())
				return
			}
			e.renewalFailed.Inc()
			e.renewals.WithLabelValues(outcomeOf(err)).Observe(latency.Seconds())
		},
		Fenced: func(uint64) { e.fences.Inc() },
		Activated: func(_ uint64, took time.Duration) {
			e.leaderships.Inc()
			e.activation.Observe(took.Seconds())
		},
		Ended: func(_ uint64, planned bool, _ error) { e.ended.WithLabelValues(strconv.FormatBool(planned)).Inc() },
		LeaderlessFor: func(d time.Duration) {
			e.leaderless.Observe(d.Seconds())
			e.leaderlessSum.Add(max(0, d.Seconds()))
		},
	}
}
