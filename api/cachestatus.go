package api

import (
	"net/http"
	"sort"

	"github.com/locum-ha/locum/cache"
)

// CacheStatus is the answer of sys/cache: what this node knows of the cache, from memory (P10).
type CacheStatus struct {
	Status    string   `json:"status"` // good, degraded, bad
	State     string   `json:"state"`  // stopped, forming, joining, follower, leader
	IsLeader  bool     `json:"is_leader"`
	Leader    string   `json:"leader"`
	Term      uint64   `json:"term"`
	Hosts     []string `json:"hosts"`
	Connected []string `json:"connected"`
	Quorum    int      `json:"quorum"`
	Reason    string   `json:"reason,omitempty"`

	Caches         map[string]CacheSize       `json:"caches"`
	Hits           uint64                     `json:"hits"`
	Misses         uint64                     `json:"misses"`
	Writes         map[string]CacheWriteStats `json:"writes"`
	Elections      uint64                     `json:"elections"`
	Emptied        uint64                     `json:"emptied"`
	TransfersIn    uint64                     `json:"transfers_in"`
	TransfersOut   uint64                     `json:"transfers_out"`
	LastTransferMS int64                      `json:"last_transfer_ms"`
	Applied        uint64                     `json:"applied"`
}

// CacheSize is about one cache.
type CacheSize struct {
	Entries    int64  `json:"entries"`
	Bytes      int64  `json:"bytes"`
	MaxEntries int64  `json:"max_entries"`
	MaxBytes   int64  `json:"max_bytes"`
	Evictions  uint64 `json:"evictions"`
	Expired    uint64 `json:"expired"`
}

// CacheWriteStats are about the writes of one level through this node.
type CacheWriteStats struct {
	Done    uint64 `json:"done"`
	Failed  uint64 `json:"failed"`
	Unknown uint64 `json:"unknown"`
	MeanUS  int64  `json:"mean_us"`
}

// CacheStatusOf describes a node.
func CacheStatusOf(n *cache.Node) CacheStatus {
	h, s := n.Health(), n.Stats()
	out := CacheStatus{
		Status: h.Status.String(), State: h.State.String(), IsLeader: h.State == cache.Leads, Leader: h.Leader, Term: h.Term,
		Hosts: h.Hosts, Connected: h.Connected, Quorum: h.Quorum, Reason: h.Reason,
		Caches: map[string]CacheSize{}, Hits: s.Hits, Misses: s.Misses, Writes: map[string]CacheWriteStats{}, Elections: s.Elections,
		Emptied: s.Emptied, TransfersIn: s.TransfersIn, TransfersOut: s.TransfersOut, LastTransferMS: s.LastTransfer.Milliseconds(), Applied: s.Applied,
	}
	for name, c := range s.Caches {
		out.Caches[name] = CacheSize{c.Entries, c.Bytes, c.Options.MaxEntries, c.Options.MaxBytes, c.Evictions, c.Expired}
	}
	for level, w := range s.Writes {
		stats := CacheWriteStats{Done: w.Done, Failed: w.Failed, Unknown: w.Unknown}
		if w.Done > 0 {
			stats.MeanUS = w.Total.Microseconds() / int64(w.Done)
		}
		out.Writes[cache.Level(level).String()] = stats
	}
	return out
}

// cacheStatus answers 200 while the cache serves on this node, and 503 while it does not.
func (rs responder) cacheStatus(w http.ResponseWriter, r *http.Request) {
	if rs.cfg.Cache == nil {
		rs.fail(w, r, Errorf(http.StatusNotFound, "this node has no cache: write a cache block into its configuration"))
		return
	}
	status := CacheStatusOf(rs.cfg.Cache)
	code := http.StatusOK
	if status.Status == cache.Bad.String() {
		code = http.StatusServiceUnavailable
	}
	rs.reply(w, code, status)
}

func sorted(names []string) []string {
	sort.Strings(names)
	return names
}
