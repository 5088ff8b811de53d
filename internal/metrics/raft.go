package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/locum-ha/locum/physical"
)

type raftMetrics struct {
	leading   prometheus.Gauge
	commit    prometheus.Histogram
	batch     prometheus.Histogram
	bytes     prometheus.Counter
	logWrite  prometheus.Histogram
	logBatch  prometheus.Histogram
	snapshots *prometheus.HistogramVec
	refused   *prometheus.CounterVec
}

func newRaftMetrics(f factory) raftMetrics {
	powers := prometheus.ExponentialBuckets(1, 2, 10)
	return raftMetrics{
		leading:   f.gauge("locum_raft_is_leader", "1 while this node leads the raft cluster, else 0."),
		commit:    f.histogram("locum_raft_commit_seconds", "From handing an entry to raft to its being applied.", latencyBuckets),
		batch:     f.histogram("locum_raft_commit_batch", "Commits that shared one log entry.", powers),
		bytes:     f.counter("locum_raft_commit_bytes_total", "Bytes handed to raft."),
		logWrite:  f.histogram("locum_raft_log_write_seconds", "Writes to the log, sync included.", latencyBuckets),
		logBatch:  f.histogram("locum_raft_log_batch", "Entries that shared one write to the log.", powers),
		snapshots: f.histogramVec("locum_raft_snapshot_seconds", "Snapshots that this node took.", "outcome"),
		refused:   f.counterVec("locum_raft_refused_total", "Raft messages that this node refused in order to keep a promise, by what was refused.", "what"),
	}
}

// Raft makes the observer of the raft storage.
func (m *Metrics) Raft() physical.EngineObserver {
	r := &m.raft
	return physical.EngineObserver{
		Leading: func(leading bool) { r.leading.Set(one(leading)) },
		Committed: func(commits, bytes int, took time.Duration) {
			r.commit.Observe(took.Seconds())
			r.batch.Observe(float64(commits))
			r.bytes.Add(float64(bytes))
		},
		Stored: func(entries int, took time.Duration) {
			r.logWrite.Observe(took.Seconds())
			r.logBatch.Observe(float64(entries))
		},
		Snapshot: func(took time.Duration, err error) {
			r.snapshots.WithLabelValues(outcomeOf(err)).Observe(took.Seconds())
		},
		Refused: func(what string) { r.refused.WithLabelValues(what).Inc() },
	}
}
