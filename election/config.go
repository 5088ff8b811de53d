package election

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
)

// Fencer is the part of the storage that election needs. Every physical.Backend is one.
type Fencer interface {
	Fence(ctx context.Context) (physical.Fence, error)
	RaiseFence(ctx context.Context, from, to physical.Fence) error
}

// Config is what an Election needs to know. ID, Lock, Store, Activate, Drain and Deactivate are required.
type Config struct {
	ID   string // the node's identity, stable over restarts, unique in the cluster
	Name string // the node's name, for people; default: ID

	// Candidate says whether the node may become active (see SetCandidate). Priority orders the candidates: of
	// those that compete for a lock that became free without naming a successor, lower ones wait (see SetRival).
	// Default: 100.
	Candidate bool
	Priority  *int

	Lock  physical.HABackend
	Store Fencer

	// TTL of the lock. It must be the same on all nodes. Default: the store's own (Caps.DefaultTTL).
	TTL time.Duration

	// Activate is called once the lock is held and the fence raised; ctx is the lease's. When it returns nil
	// the node is active. When it fails, or when ctx ends, the leadership is over, and Deactivate is called.
	Activate func(ctx context.Context, l *Leadership) error
	// Drain is called in a planned step-down only: hold new work, let work in flight end, stop the application,
	// withdraw the advertisement. The lock is renewed meanwhile. ctx ends at the drain limit, or when the
	// lease is lost; Drain then returns at once. An error is logged and changes nothing.
	Drain func(ctx context.Context, l *Leadership) error
	// Deactivate ends everything that Activate began, and returns when it has ended. It is called exactly once
	// for each call of Activate, also if that failed, never while Activate or Drain runs, and before the lock is
	// released (P2). cause says why: ErrSteppedDown and ErrShutdown are planned.
	Deactivate func(l *Leadership, cause error)
	// Successor returns the identity of the node that should take over in a planned step-down that names none;
	// "" or nil: whichever comes first.
	Successor func() string

	DrainTimeout      time.Duration // limit of Drain. Default 15 s
	DeactivateTimeout time.Duration // for how long a Deactivate that does not return keeps the lock. Default 30 s
	FenceTimeout      time.Duration // limit of raising the fence. Default 2 TTL within 2 s and 10 s
	MinFailover       time.Duration // how long a leadership must have lasted before another node takes over unplanned. Default 0
	StepDownGrace     time.Duration // how long the node stays out after a step-down if nobody takes over. Default 2 TTL within 1 s and 5 s
	PollInterval      time.Duration // where the store cannot wake. Default TTL/10 within 10 ms and 1 s
	BackoffMin        time.Duration // first wait of a node that could not activate. Default TTL/2 within 200 ms and 2 s
	BackoffMax        time.Duration // it doubles up to this. Default 1 min

	Clock    func() boottime.Instant // default boottime.Now
	Logger   *slog.Logger            // default: discard
	Observer Observer
}

// validate fills in defaults and reports all faults at once.
func (c *Config) validate() error {
	var faults []error
	missing := func(name string, absent bool) {
		if absent {
			faults = append(faults, fmt.Errorf("election: %s is required", name))
		}
	}
	missing("ID", c.ID == "")
	missing("Lock", c.Lock == nil)
	missing("Store", c.Store == nil)
	missing("Activate", c.Activate == nil)
	missing("Drain", c.Drain == nil)
	missing("Deactivate", c.Deactivate == nil)
	for name, d := range map[string]time.Duration{
		"TTL": c.TTL, "DrainTimeout": c.DrainTimeout, "DeactivateTimeout": c.DeactivateTimeout, "FenceTimeout": c.FenceTimeout,
		"MinFailover": c.MinFailover, "StepDownGrace": c.StepDownGrace, "PollInterval": c.PollInterval, "BackoffMin": c.BackoffMin, "BackoffMax": c.BackoffMax,
	} {
		if d < 0 {
			faults = append(faults, fmt.Errorf("election: %s is negative: %s", name, d))
		}
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	caps := c.Lock.Caps()
	if !caps.HA {
		return fmt.Errorf("election: storage %q cannot hold the HA lock", caps.Name)
	}
	c.fill(caps)
	if c.TTL < caps.MinTTL {
		return fmt.Errorf("election: lock TTL %s is below %s, the least that %q can do", c.TTL, caps.MinTTL, caps.Name)
	}
	if c.TTL < minTTL {
		return fmt.Errorf("election: lock TTL %s is below %s", c.TTL, minTTL)
	}
	return nil
}

// minTTL leaves a margin of 10 ms and time for a few renewals.
const minTTL = 50 * time.Millisecond

func (c *Config) fill(caps physical.Caps) {
	def := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	def(&c.TTL, caps.DefaultTTL)
	def(&c.DrainTimeout, 15*time.Second)
	def(&c.DeactivateTimeout, 30*time.Second)
	def(&c.FenceTimeout, within(2*c.TTL, 2*time.Second, 10*time.Second))
	def(&c.StepDownGrace, within(2*c.TTL, time.Second, 5*time.Second))
	def(&c.PollInterval, within(c.TTL/10, 10*time.Millisecond, time.Second))
	def(&c.BackoffMin, within(c.TTL/2, 200*time.Millisecond, 2*time.Second))
	def(&c.BackoffMax, time.Minute)
	if c.Name == "" {
		c.Name = c.ID
	}
	if c.Priority == nil {
		c.Priority = new(defaultPriority)
	}
	if c.Clock == nil {
		c.Clock = boottime.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

const defaultPriority = 100

func within(d, low, high time.Duration) time.Duration { return min(max(d, low), high) }

// marginOf is by how much a lease ends before the lock can have run out; see the package's Design section.
func marginOf(ttl time.Duration) time.Duration {
	return within(ttl/10, 10*time.Millisecond, time.Second)
}

// params are the constants of the core.
type params struct {
	id, name string
	priority int
	watch    bool // the store wakes standbys
	yields   bool // the store chooses who may acquire

	ttl    time.Duration
	margin func(ttl time.Duration) time.Duration

	renewEvery, renewRetry           time.Duration
	callLimit, watchLimit, pollEvery time.Duration
	retryMax                         time.Duration // longest gap between two attempts that fail
	nextGrace                        time.Duration // for the successor that the record names, before others compete
	pausedYield                      time.Duration // how long a paused node keeps the right to acquire that the store gave it
	priorityDelay                    time.Duration // the longest wait of a lower priority
	stepDownGrace, minFailover       time.Duration
	fenceLimit                       time.Duration
	drainLimit, deactivateLimit      time.Duration
	backoffMin, backoffMax           time.Duration
	stable                           time.Duration // active for so long: earlier failures are forgotten
}

func (c *Config) params() params {
	_, watch := c.Lock.(physical.Watcher)
	_, yields := c.Lock.(physical.Yielder)
	p := timesOf(c.TTL)
	p.id, p.name, p.priority = c.ID, c.Name, *c.Priority
	p.watch, p.yields = watch && c.Lock.Caps().Watch, yields
	p.pollEvery = c.PollInterval
	if !p.watch {
		p.priorityDelay = max(p.priorityDelay, 3*p.pollEvery)
	}
	p.stepDownGrace, p.minFailover, p.fenceLimit = c.StepDownGrace, c.MinFailover, c.FenceTimeout
	p.drainLimit, p.deactivateLimit = c.DrainTimeout, c.DeactivateTimeout
	p.backoffMin, p.backoffMax = c.BackoffMin, max(c.BackoffMax, c.BackoffMin)
	p.stable = p.backoffMax
	return p
}

// timesOf derives from the TTL what is not configured.
func timesOf(ttl time.Duration) params {
	return params{
		ttl: ttl, margin: marginOf,
		renewEvery: ttl / 3, renewRetry: within(ttl/20, 5*time.Millisecond, 250*time.Millisecond),
		callLimit: ttl / 2, watchLimit: within(ttl, 500*time.Millisecond, 10*time.Second),
		retryMax:      within(ttl/4, 20*time.Millisecond, time.Second),
		nextGrace:     min(ttl, 2*time.Second),
		pausedYield:   max(ttl, time.Second),
		priorityDelay: min(ttl, 2*time.Second),
	}
}
