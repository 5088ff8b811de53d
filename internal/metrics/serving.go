package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/locum-ha/locum/forward/keyed"
	"github.com/locum-ha/locum/forward/upstream"
)

// servingMetrics are of the way of applications' requests beyond what newRequestMetrics counts, which is of all requests together.
type servingMetrics struct {
	connections *prometheus.CounterVec
	broken      *prometheus.CounterVec
	malformed   *prometheus.CounterVec
	tunnels     *prometheus.GaugeVec
	keys        *prometheus.CounterVec
}

func newServingMetrics(f factory) servingMetrics {
	return servingMetrics{
		connections: f.counterVec("locum_application_connections_total", "Connections made to the application, by how that ended.", "application", "outcome"),
		broken:      f.counterVec("locum_application_broken_total", "Requests that the application broke off without an answer.", "application"),
		malformed:   f.counterVec("locum_application_malformed_total", "Answers of the application that could not be read.", "application"),
		tunnels:     f.gaugeVec("locum_application_tunnels", "Upgraded connections and byte streams through this node's own proxy.", "application"),
		keys:        f.counterVec("locum_application_keyed_total", "Requests with an Idempotency-Key, by what became of them.", "application", "outcome"),
	}
}

// Upstream makes the observer of the way to one application.
func (m *Metrics) Upstream(application string) upstream.Observer {
	s := &m.serving
	up, down := s.connections.WithLabelValues(application, "ok"), s.connections.WithLabelValues(application, "failed")
	tunnels := s.tunnels.WithLabelValues(application)
	malformed := s.malformed.WithLabelValues(application)
	return upstream.Observer{
		Dialed: func(err error) {
			if err != nil {
				down.Inc()
			} else {
				up.Inc()
			}
		},
		Broken:   s.broken.WithLabelValues(application).Inc,
		BadReply: func(error) { malformed.Inc() },
		Tunnels:  func(change int64) { tunnels.Add(float64(change)) },
	}
}

// Keyed makes the observer of one application's requests with an Idempotency-Key.
func (m *Metrics) Keyed(application string) keyed.Observer {
	keys := m.serving.keys
	return keyed.Observer{Decided: func(outcome string) { keys.WithLabelValues(application, outcome).Inc() }}
}
