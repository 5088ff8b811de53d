package metrics

import (
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/locum-ha/locum/cache"
	"github.com/locum-ha/locum/cache/resp"
)

type cacheMetrics struct {
	writes    *prometheus.HistogramVec
	elections prometheus.Counter
	transfers *prometheus.HistogramVec
	emptied   prometheus.Counter
	clients   prometheus.Gauge
	refused   *prometheus.CounterVec
}

// Cache registers the cache's metrics and makes its observer. It is called once, on a node that has a cache; stats and health are asked
// at each scrape, and are nil until they are known.
func (m *Metrics) Cache(node func() *cache.Node) (cache.Observer, resp.Observer) {
	f := factory{m.registry}
	c := cacheMetrics{
		writes:    f.histogramVec("locum_cache_write_seconds", "Writes to the cache through this node, by level and whether they were done.", "level", "done"),
		elections: f.counter("locum_cache_elections_total", "How many times this node became the cache's leader."),
		transfers: f.histogramVec("locum_cache_transfer_seconds", "Transfers of the cache's whole state, by direction.", "direction"),
		emptied:   f.counter("locum_cache_emptied_total", "How many times this node dropped all its data, since it had lost the quorum."),
		clients:   f.gauge("locum_cache_resp_clients", "Clients of Redis that are connected."),
		refused:   f.counterVec("locum_cache_resp_closed_total", "Connections of clients of Redis that were refused or closed, by the reason.", "why"),
	}
	m.registry.MustRegister(cacheCollector{node})
	written := map[cache.Level][2]prometheus.Observer{}
	for level := cache.Quorum; level <= cache.Direct; level++ {
		written[level] = [2]prometheus.Observer{c.writes.WithLabelValues(level.String(), "false"), c.writes.WithLabelValues(level.String(), "true")}
	}
	return cache.Observer{
			Write: func(level cache.Level, took time.Duration, ok bool) {
				written[level][int(one(ok))].Observe(took.Seconds())
			},
			Elected: func(uint64) { c.elections.Inc() },
			Transfer: func(received bool, _, _ int64, took time.Duration) {
				direction := "sent"
				if received {
					direction = "received"
				}
				c.transfers.WithLabelValues(direction).Observe(took.Seconds())
			},
			Emptied: func(string) { c.emptied.Inc() },
		}, resp.Observer{
			Connected: func(clients int) { c.clients.Set(float64(clients)) },
			Refused:   func(why string) { c.refused.WithLabelValues(why).Inc() },
		}
}

// cacheCollector reads the cache's counters and sizes at each scrape.
type cacheCollector struct{ node func() *cache.Node }

var (
	descCacheStatus  = prometheus.NewDesc("locum_cache_status", "2 while the cache is good on this node, 1 degraded, 0 bad: then it refuses reads and writes.", nil, nil)
	descCacheLeader  = prometheus.NewDesc("locum_cache_is_leader", "1 while this node is the cache's leader, else 0.", nil, nil)
	descCacheTerm    = prometheus.NewDesc("locum_cache_term", "The term of the cache's leadership.", nil, nil)
	descCacheHosts   = prometheus.NewDesc("locum_cache_hosts", "Configured hosts of the cache, and those of them that are connected.", []string{"state"}, nil)
	descCacheReads   = prometheus.NewDesc("locum_cache_reads_total", "Reads of the cache through this node, by whether there was such an entry.", []string{"hit"}, nil)
	descCacheEntries = prometheus.NewDesc("locum_cache_entries", "Entries in a cache.", []string{"cache"}, nil)
	descCacheBytes   = prometheus.NewDesc("locum_cache_bytes", "Bytes of a cache: keys, values and what an entry costs.", []string{"cache"}, nil)
	descCacheEvicted = prometheus.NewDesc("locum_cache_evictions_total", "Entries that gave way to newer ones.", []string{"cache"}, nil)
	descCacheExpired = prometheus.NewDesc("locum_cache_expired_total", "Entries whose time was over.", []string{"cache"}, nil)
)

// maxCacheSeries bounds how many caches have series of their own: names may come from clients.
const maxCacheSeries = 100

// Describe implements prometheus.Collector.
func (c cacheCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descCacheStatus, descCacheLeader, descCacheTerm, descCacheHosts, descCacheReads, descCacheEntries, descCacheBytes, descCacheEvicted, descCacheExpired,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c cacheCollector) Collect(ch chan<- prometheus.Metric) {
	n := c.node()
	if n == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	health, stats := n.Health(), n.Stats()
	gauge(descCacheStatus, float64(health.Status))
	gauge(descCacheLeader, one(health.State == cache.Leads))
	gauge(descCacheTerm, float64(health.Term))
	gauge(descCacheHosts, float64(len(health.Hosts)), "configured")
	gauge(descCacheHosts, float64(len(health.Connected)), "connected")
	counter(descCacheReads, stats.Hits, "true")
	counter(descCacheReads, stats.Misses, "false")
	names := slices.Sorted(maps.Keys(stats.Caches)) // the same ones at each scrape
	for _, name := range names[:min(len(names), maxCacheSeries)] {
		one := stats.Caches[name]
		gauge(descCacheEntries, float64(one.Entries), name)
		gauge(descCacheBytes, float64(one.Bytes), name)
		counter(descCacheEvicted, one.Evictions, name)
		counter(descCacheExpired, one.Expired, name)
	}
}
