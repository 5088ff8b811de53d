package metrics

import (
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// State is what can be read of a node at any time.
type State struct {
	Active         bool          // this node is the active one, and its lease is valid
	Sealed         bool          // sealed, or not initialised
	LeaderKnown    bool          // some node is active, as far as this one knows
	Term           uint64        // the highest term that this node knows of
	LeaseRemaining time.Duration // until the lease runs out; 0 on a node without one
	Leaderless     time.Duration // how long nobody has been active by now; 0 while somebody is
	KeyTerm        uint32        // of the encryption key in use
	KeyUses        uint64        // encryptions under that key
}

// Metrics is the registry of one node. Its methods may be called concurrently.
type Metrics struct {
	registry *prometheus.Registry
	state    atomic.Pointer[func() State]

	election electionMetrics
	storage  *operations
	lock     *operations
	barrier  barrierMetrics
	requests requestMetrics
	api      apiMetrics
	port     portMetrics
	raft     raftMetrics
	engine   *engineSink
	locks    lockMetrics

	applications applicationMetrics
	serving      servingMetrics

	fenceRejections prometheus.Counter
}

// latencyBuckets span a call in memory and a wait for a failover, in seconds.
var latencyBuckets = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// New makes the registry with everything in it. The version is the program's, for locum_build_info.
func New(version string) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.Watch(func() State { return State{} })
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		stateCollector{m},
	)
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "locum_build_info", Help: "Always 1; the labels say what runs."}, []string{"version", "go"})
	build.WithLabelValues(version, runtime.Version()).Set(1)
	m.registry.MustRegister(build)

	f := factory{m.registry}
	m.fenceRejections = f.counter("locum_fence_rejections_total", "Writes that the storage refused because another term may write.")
	m.election = newElectionMetrics(f)
	m.storage = newOperations(f, "locum_storage_operation_seconds", "Operations on the storage, by what was done and how it ended.", "get", "list", "commit", "raise_fence", "fence")
	m.lock = newOperations(f, "locum_lock_operation_seconds", "Operations on the HA lock, by what was done and how it ended.", "acquire", "renew", "release", "holder", "yield")
	m.barrier = newBarrierMetrics(f)
	m.requests = newRequestMetrics(f)
	m.api = newAPIMetrics(f)
	m.port = newPortMetrics(f)
	m.raft = newRaftMetrics(f)
	m.applications = newApplicationMetrics(f)
	m.serving = newServingMetrics(f)
	m.locks = newLockMetrics(f)
	m.engine = newEngineSink()
	m.registry.MustRegister(m.engine)
	return m
}

// Watch says where the node's state is read at each scrape. The func must not block.
func (m *Metrics) Watch(state func() State) { m.state.Store(&state) }

// Handler serves the metrics as Prometheus text. How many ask at once is for the caller to bound.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Registry is where an embedding program can add metrics of its own.
func (m *Metrics) Registry() *prometheus.Registry { return m.registry }

// factory makes metrics and registers them. Two of one name are a mistake in this package: it panics at the first New.
type factory struct{ registry *prometheus.Registry }

func (f factory) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	f.registry.MustRegister(c)
	return c
}

func (f factory) counterVec(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	f.registry.MustRegister(c)
	return c
}

func (f factory) gauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	f.registry.MustRegister(g)
	return g
}

func (f factory) gaugeVec(name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	f.registry.MustRegister(g)
	return g
}

func (f factory) histogram(name, help string, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	f.registry.MustRegister(h)
	return h
}

func (f factory) histogramVec(name, help string, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: latencyBuckets}, labels)
	f.registry.MustRegister(h)
	return h
}

// stateCollector reads the State once for each scrape.
type stateCollector struct{ m *Metrics }

var (
	descActive     = prometheus.NewDesc("locum_is_active", "1 on the active node while its lease is valid, else 0.", nil, nil)
	descSealed     = prometheus.NewDesc("locum_is_sealed", "1 while the node is sealed or not initialised, else 0.", nil, nil)
	descLeader     = prometheus.NewDesc("locum_active_node_known", "1 while this node knows of an active node, else 0.", nil, nil)
	descTerm       = prometheus.NewDesc("locum_term", "The highest term that this node knows of.", nil, nil)
	descLease      = prometheus.NewDesc("locum_lease_remaining_seconds", "Until this node's lease runs out; 0 on a node without one.", nil, nil)
	descLeaderless = prometheus.NewDesc("locum_without_active_now_seconds", "How long no node has been active by now; 0 while one is.", nil, nil)
	descKeyTerm    = prometheus.NewDesc("locum_barrier_key_term", "The number of the encryption key in use.", nil, nil)
	descKeyUses    = prometheus.NewDesc("locum_barrier_key_encryptions", "Encryptions under the key in use, as far as this node knows.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c stateCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descActive, descSealed, descLeader, descTerm, descLease, descLeaderless, descKeyTerm, descKeyUses} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c stateCollector) Collect(ch chan<- prometheus.Metric) {
	st := (*c.m.state.Load())()
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	gauge(descActive, one(st.Active))
	gauge(descSealed, one(st.Sealed))
	gauge(descLeader, one(st.LeaderKnown))
	gauge(descTerm, float64(st.Term))
	gauge(descLease, max(0, st.LeaseRemaining.Seconds()))
	gauge(descLeaderless, max(0, st.Leaderless.Seconds()))
	gauge(descKeyTerm, float64(st.KeyTerm))
	gauge(descKeyUses, float64(st.KeyUses))
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
