package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/locum-ha/locum/cluster"
)

type portMetrics struct {
	handshakes  *prometheus.HistogramVec
	connections *prometheus.GaugeVec
	refused     *prometheus.CounterVec
	open        prometheus.Gauge
}

func newPortMetrics(f factory) portMetrics {
	return portMetrics{
		handshakes:  f.histogramVec("locum_cluster_handshake_seconds", "TLS handshakes on the cluster port that a protocol began with.", "protocol"),
		connections: f.gaugeVec("locum_cluster_connections", "Connections of other nodes on the cluster port.", "protocol"),
		refused:     f.counterVec("locum_cluster_refused_total", "Connections on the cluster port that were refused, by why.", "reason"),
		open:        f.gauge("locum_cluster_port_open", "1 while the cluster port is open, else 0."),
	}
}

// Cluster makes the observer of the cluster port.
func (m *Metrics) Cluster() cluster.Observer {
	p := &m.port
	return cluster.Observer{
		Accepted: func(protocol string, handshake time.Duration) {
			p.handshakes.WithLabelValues(protocol).Observe(handshake.Seconds())
			p.connections.WithLabelValues(protocol).Inc()
		},
		Ended:   func(protocol string) { p.connections.WithLabelValues(protocol).Dec() },
		Refused: func(reason string) { p.refused.WithLabelValues(reason).Inc() },
		Open:    func(open bool) { p.open.Set(one(open)) },
	}
}
