package metrics

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/locum-ha/locum/api"
)

type apiMetrics struct {
	requests *prometheus.HistogramVec
}

func newAPIMetrics(f factory) apiMetrics {
	return apiMetrics{
		requests: f.histogramVec("locum_api_request_seconds", "Requests that this node's HTTP API answered, by class of path, method and status code.", "class", "method", "code"),
	}
}

// API makes the observer of the HTTP API.
func (m *Metrics) API() api.Observer {
	return api.Observer{Request: func(class, method string, code int, took time.Duration) {
		m.api.requests.WithLabelValues(class, methodLabel(method), strconv.Itoa(code)).Observe(took.Seconds())
	}}
}

// methodLabel keeps a client from making labels up.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, "LIST":
		return method
	}
	return "other"
}
