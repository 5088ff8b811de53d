package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/locum-ha/locum/barrier"
)

type barrierMetrics struct {
	ops     *operations
	rotated *prometheus.CounterVec
	reloads *prometheus.CounterVec
}

func newBarrierMetrics(f factory) barrierMetrics {
	return barrierMetrics{
		ops:     newOperations(f, "locum_barrier_operation_seconds", "Operations through the encryption, the storage's part included, by what was done and how it ended.", "get", "list", "commit"),
		rotated: f.counterVec("locum_barrier_rotations_total", "New encryption keys that this node made, by itself or because somebody asked.", "automatic"),
		reloads: f.counterVec("locum_barrier_keyring_reloads_total", "How many times this node read the keyring again.", "outcome"),
	}
}

// Barrier makes the observer of the encryption.
func (m *Metrics) Barrier() barrier.Observer {
	b := &m.barrier
	return barrier.Observer{
		Operation: b.ops.done,
		Rotated:   func(_ uint32, automatic bool) { b.rotated.WithLabelValues(strconv.FormatBool(automatic)).Inc() },
		Reloaded:  func(err error) { b.reloads.WithLabelValues(outcomeOf(err)).Inc() },
	}
}
