package metrics

import (
	"sort"
	"strings"
	"sync"

	gometrics "github.com/hashicorp/go-metrics"
	"github.com/prometheus/client_golang/prometheus"
)

// maxSeries bounds what the raft library can make up: it has some 60 names, a few of them by peer.
const maxSeries = 1000

// engineSink takes what the raft library reports of itself. Names and labels come as they are used, so that the
// series are collected unchecked: nothing can clash, as no other metric begins alike.
type engineSink struct {
	mu     sync.Mutex
	series map[string]*series
}

const (
	gaugeSeries = iota
	counterSeries
	sampleSeries
)

type series struct {
	kind   int
	name   string
	labels []gometrics.Label
	value  float64 // of a gauge or counter; the sum of samples
	count  uint64  // of samples
}

func newEngineSink() *engineSink { return &engineSink{series: map[string]*series{}} }

// CaptureRaft makes the raft library report here. The library has one place to report to for the whole process, so
// this is for a process that runs one node.
func (m *Metrics) CaptureRaft() error {
	cfg := gometrics.DefaultConfig("")
	cfg.EnableHostname = false
	cfg.EnableRuntimeMetrics = false
	_, err := gometrics.NewGlobal(cfg, m.engine)
	return err
}

// at finds a series, or makes it; nil when there are too many.
func (s *engineSink) at(kind int, key []string, labels []gometrics.Label) *series {
	name := engineName(key)
	id := name
	if len(labels) > 0 {
		labels = append([]gometrics.Label(nil), labels...)
		sort.Slice(labels, func(i, j int) bool { return labels[i].Name < labels[j].Name })
		for _, l := range labels {
			id += "\x00" + l.Name + "\x00" + l.Value
		}
	}
	found := s.series[id]
	if found == nil {
		if len(s.series) >= maxSeries {
			return nil
		}
		found = &series{kind: kind, name: name, labels: labels}
		s.series[id] = found
	}
	if found.kind != kind {
		return nil
	}
	return found
}

// engineName is locum_raft_engine_commitTime for raft.commitTime: the library's word, so that it can be looked up.
func engineName(key []string) string {
	if len(key) > 0 && key[0] == "raft" {
		key = key[1:]
	}
	return "locum_raft_engine_" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_':
			return r
		}
		return '_'
	}, strings.Join(key, "_"))
}

// SetGauge implements the library's sink, as do the methods below.
func (s *engineSink) SetGauge(key []string, v float32) { s.SetGaugeWithLabels(key, v, nil) }

// SetGaugeWithLabels keeps the last value.
func (s *engineSink) SetGaugeWithLabels(key []string, v float32, labels []gometrics.Label) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one := s.at(gaugeSeries, key, labels); one != nil {
		one.value = float64(v)
	}
}

// SetPrecisionGauge keeps the last value.
func (s *engineSink) SetPrecisionGauge(key []string, v float64) {
	s.SetPrecisionGaugeWithLabels(key, v, nil)
}

// SetPrecisionGaugeWithLabels keeps the last value.
func (s *engineSink) SetPrecisionGaugeWithLabels(key []string, v float64, labels []gometrics.Label) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one := s.at(gaugeSeries, key, labels); one != nil {
		one.value = v
	}
}

// EmitKey is not used by the raft library.
func (s *engineSink) EmitKey([]string, float32) {}

// IncrCounter adds.
func (s *engineSink) IncrCounter(key []string, v float32) { s.IncrCounterWithLabels(key, v, nil) }

// IncrCounterWithLabels adds.
func (s *engineSink) IncrCounterWithLabels(key []string, v float32, labels []gometrics.Label) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one := s.at(counterSeries, key, labels); one != nil && v > 0 {
		one.value += float64(v)
	}
}

// AddSample counts and sums.
func (s *engineSink) AddSample(key []string, v float32) { s.AddSampleWithLabels(key, v, nil) }

// AddSampleWithLabels counts and sums.
func (s *engineSink) AddSampleWithLabels(key []string, v float32, labels []gometrics.Label) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one := s.at(sampleSeries, key, labels); one != nil {
		one.value += float64(v)
		one.count++
	}
}

// Describe sends nothing: an unchecked collector.
func (s *engineSink) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (s *engineSink) Collect(ch chan<- prometheus.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.series {
		names, values := make([]string, len(one.labels)), make([]string, len(one.labels))
		for i, l := range one.labels {
			names[i], values[i] = l.Name, l.Value
		}
		desc := prometheus.NewDesc(one.name, "The raft library's own number; times are in milliseconds.", names, nil)
		var metric prometheus.Metric
		var err error
		switch one.kind {
		case gaugeSeries:
			metric, err = prometheus.NewConstMetric(desc, prometheus.GaugeValue, one.value, values...)
		case counterSeries:
			metric, err = prometheus.NewConstMetric(desc, prometheus.CounterValue, one.value, values...)
		default:
			metric, err = prometheus.NewConstSummary(desc, one.count, one.value, nil, values...)
		}
		if err == nil { // a label that Prometheus does not take is left out
			ch <- metric
		}
	}
}
