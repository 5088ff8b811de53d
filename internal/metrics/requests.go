package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/locum-ha/locum/forward"
)

// codeClasses are the first digits of status codes, as the label "code".
var codeClasses = [...]string{"other", "1xx", "2xx", "3xx", "4xx", "5xx"}

// latencyByCode is found by index: it is on the way of every request.
type latencyByCode [len(codeClasses)]prometheus.Observer

func (l *latencyByCode) done(took time.Duration, status int) {
	class := status / 100
	if class < 1 || class >= len(l) {
		class = 0
	}
	l[class].Observe(took.Seconds())
}

type requestMetrics struct {
	local, forwarded latencyByCode
	held             *prometheus.HistogramVec
	heldNow          prometheus.Gauge
	redirected       prometheus.Counter
	repeated         prometheus.Counter
	unknown          prometheus.Counter
	refused          prometheus.Counter
	connections      prometheus.Gauge
}

func newRequestMetrics(f factory) requestMetrics {
	latency := f.histogramVec("locum_request_seconds",
		"Requests that this node answered, from arrival to answer: way=local ran here, on the active node; way=forwarded ran on the active node, through this standby.", "way", "code")
	m := requestMetrics{
		held:        f.histogramVec("locum_hold_seconds", "How long requests waited here for an active node, and whether they were served then.", "served"),
		heldNow:     f.gauge("locum_held_requests", "Requests that wait here for an active node."),
		redirected:  f.counter("locum_requests_redirected_total", "Requests answered 307 with the active node's address."),
		repeated:    f.counter("locum_requests_repeated_total", "Requests sent again after they may have been delivered."),
		unknown:     f.counter("locum_requests_unknown_total", "Requests answered that their outcome is unknown."),
		refused:     f.counter("locum_requests_refused_total", "Requests answered 503 for want of an active node or of room to wait for one."),
		connections: f.gauge("locum_forward_connections", "Forwarding connections, to the active node or from standbys."),
	}
	for i, code := range codeClasses {
		m.local[i] = latency.WithLabelValues("local", code)
		m.forwarded[i] = latency.WithLabelValues("forwarded", code)
	}
	for _, served := range []string{"true", "false"} {
		m.held.WithLabelValues(served) // a series that is there at 0 can be alerted on
	}
	return m
}

// Forward makes the observer of the requests' way.
func (m *Metrics) Forward() forward.Observer {
	r := &m.requests
	return forward.Observer{
		Local:     r.local.done,
		Forwarded: r.forwarded.done,
		Held: func(d time.Duration, served bool) {
			r.held.WithLabelValues(strconv.FormatBool(served)).Observe(d.Seconds())
		},
		HeldNow:    func(delta int) { r.heldNow.Add(float64(delta)) },
		Redirected: r.redirected.Inc,
		Repeated:   r.repeated.Inc,
		Unknown:    r.unknown.Inc,
		Refused:    r.refused.Inc,
		Connected: func(_ string, connected bool) {
			if connected {
				r.connections.Inc()
			} else {
				r.connections.Dec()
			}
		},
	}
}
