package memory

import (
	"sync"
	"time"

	"github.com/locum-ha/locum/physical"
)

// Store is one data store in memory. It is empty at first and lives as long as somebody points to it.
type Store struct {
	clock Clock
	caps  physical.Caps

	mu      sync.Mutex
	values  map[string][]byte
	keys    []string // the keys of values, in ascending byte order
	fence   physical.Fence
	lock    lock
	changed chan struct{} // closed and made anew when the lock's record changes
}

// Clock is what a lock's TTL is measured on.
type Clock interface {
	// Now returns the present instant.
	Now() time.Time
	// NewTimer returns a channel that receives once after d, and a function that lets go of the timer.
	NewTimer(d time.Duration) (c <-chan time.Time, stop func())
}

// Option changes how a store behaves.
type Option func(*Store)

// WithClock measures TTLs on c instead of on Go's monotonic clock (which is the bubble's own inside
// testing/synctest).
func WithClock(c Clock) Option { return func(s *Store) { s.clock = c } }

// WithLimits gives the store the limits of limits (MaxKey, MaxValue, MaxOps, MaxCommit); it has none of
// its own.
func WithLimits(limits physical.Caps) Option {
	return func(s *Store) {
		s.caps.MaxKey, s.caps.MaxValue = limits.MaxKey, limits.MaxValue
		s.caps.MaxOps, s.caps.MaxCommit = limits.MaxOps, limits.MaxCommit
	}
}

// NewStore makes an empty store.
func NewStore(options ...Option) *Store {
	s := &Store{
		clock:   wallClock{},
		values:  make(map[string][]byte),
		changed: make(chan struct{}),
		caps: physical.Caps{
			Name:       "inmem",
			Entries:    true,
			HA:         true,
			Watch:      true,
			MinTTL:     100 * time.Millisecond,
			DefaultTTL: 2 * time.Second,
			Failover:   "Lock and entries live in the process and end with it.",
		},
	}
	for _, option := range options {
		option(s)
	}
	return s
}

// Open returns a new handle on the store: one node's way to it.
func (s *Store) Open() *Handle { return &Handle{store: s, done: make(chan struct{})} }

type wallClock struct{}

func (wallClock) Now() time.Time { return time.Now() }

func (wallClock) NewTimer(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}
