package cache

import (
	"slices"
	"sync"
	"time"
)

// Condition of a node, as one word.
type Status uint8

const (
	// Bad: no quorum. The node has no data and refuses reads and writes.
	Bad Status = iota
	// Degraded: the node serves, but not all hosts are connected, or the node is still waiting for a leader.
	Degraded
	// Good: a quorum is there, and all configured hosts.
	Good
)

// String returns the status as Locum's interfaces spell it.
func (s Status) String() string {
	switch s {
	case Good:
		return "good"
	case Degraded:
		return "degraded"
	}
	return "bad"
}

// State is where a node stands.
type State uint8

const (
	Stopped  State = iota // Run was not called, or has ended
	Forming               // looking for the others
	Joining               // found them, receives the state
	Follower              // takes part
	Leads                 // is the leader
)

// String returns the state as Locum's interfaces spell it.
func (s State) String() string {
	switch s {
	case Forming:
		return "forming"
	case Joining:
		return "joining"
	case Follower:
		return "follower"
	case Leads:
		return "leader"
	}
	return "stopped"
}

// Health is what a node knows of itself and the others. It comes from memory, at once (P10).
type Health struct {
	Status    Status
	State     State
	Leader    string   // the leader's entry of Hosts, "" while none is known
	Term      uint64   // of the leadership; rises with every election of this cache
	Hosts     []string // as configured
	Connected []string // of those, the ones that take part now, this node included
	Quorum    int      // how many of the hosts a write at Quorum needs
	Reason    string   // why the status is not Good
}

// Stats are counters since the start and present sizes.
type Stats struct {
	Caches              map[string]CacheStats
	Hits, Misses        uint64
	Writes              [4]WriteStats // by level
	Elections           uint64        // leaderships of this node
	Emptied             uint64        // times this node dropped its data (P11)
	TransfersIn         uint64        // states received as a whole
	TransfersOut        uint64        // and sent
	LastTransfer        time.Duration // how long the last one took
	Applied             uint64        // index of the last entry applied
	LogEntries, LogSize int64         // what is kept of the log; bytes
}

// CacheStats are about one cache.
type CacheStats struct {
	Entries            int64
	Bytes              int64 // keys, values and some 144 bytes per entry
	Evictions, Expired uint64
	Options            Options
}

// WriteStats are about the writes of one level through this node.
type WriteStats struct {
	Done, Failed, Unknown uint64
	Total                 time.Duration // of the done ones together
}

// healthBoard holds the present health and wakes those who wait for the next.
type healthBoard struct {
	mu      sync.Mutex
	now     Health
	changed chan struct{}
	tell    func(Health)
}

func (b *healthBoard) init(h Health, tell func(Health)) {
	b.now, b.changed, b.tell = h, make(chan struct{}), tell
}

func (b *healthBoard) get() Health {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *healthBoard) watch() (Health, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now, b.changed
}

// set puts a new health up and reports whether it differs.
func (b *healthBoard) set(h Health) bool {
	b.mu.Lock()
	same := b.now.Status == h.Status && b.now.State == h.State && b.now.Leader == h.Leader && b.now.Term == h.Term &&
		b.now.Reason == h.Reason && b.now.Quorum == h.Quorum && slices.Equal(b.now.Hosts, h.Hosts) && slices.Equal(b.now.Connected, h.Connected)
	if !same {
		b.now = h
		close(b.changed)
		b.changed = make(chan struct{})
	}
	b.mu.Unlock()
	if !same && b.tell != nil {
		b.tell(h)
	}
	return !same
}
