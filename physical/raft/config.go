package raft

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/locum-ha/locum/physical"
)

// Config says where a Store lives and how it behaves. Only Path and Advertise are required.
type Config struct {
	// Path is the data directory. It is made if it is not there.
	Path string

	// Name is the node's name, for people.
	Name string

	// Advertise is where the other nodes reach this one: host:port. It may differ from the last start; the
	// cluster adopts the new address. It may be empty for a store that is never started.
	Advertise string

	// Performance scales all raft times: 1 for a LAN (default), 5 for a WAN.
	Performance float64

	// VoteDelay is how much longer than others this node waits before it asks for votes, so that preferred
	// nodes win. Never negative. It delays this node's own candidacy only. See also Store.SetVoteDelay.
	VoteDelay time.Duration

	// DeadPeerTimeout is how long a member may be silent before the leader removes it from the cluster.
	// A voter is removed only while three voters remain and all that remain are heard from. Default 24 h;
	// negative: never.
	DeadPeerTimeout time.Duration

	// SnapshotBytes is how much log may gather before it is replaced by a snapshot. Default 64 MiB.
	SnapshotBytes int64

	// Logger takes the store's log. Default: discard.
	Logger *slog.Logger

	// Observer is told of events worth counting.
	Observer Observer
}

// Observer is told of events.
type Observer = physical.EngineObserver

// Layer carries the traffic between nodes.
type Layer = physical.Layer

// Limits of the store. Entries arrive encrypted, so a value has room for 1 MiB of plain text.
const (
	maxKey    = 2 << 10
	maxValue  = 1<<20 + 64<<10
	maxOps    = 1024
	maxCommit = 8 << 20
)

// timing is every duration of the engine, from one number.
type timing struct {
	heartbeat   time.Duration // a leader that was silent for this long may be replaced; the lock's TTL
	leaderLease time.Duration // a leader without a quorum for this long steps down
	commit      time.Duration // how soon an idle follower learns the commit index
	rpc         time.Duration // limit for a dial, a read, a write
	stagger     time.Duration // between the candidacies of two nodes
	tick        time.Duration // between two rounds of the keeper
}

func timingFor(performance float64) timing {
	scale := func(d time.Duration) time.Duration { return time.Duration(float64(d) * performance) }
	return timing{
		heartbeat:   scale(400 * time.Millisecond),
		leaderLease: scale(250 * time.Millisecond),
		commit:      scale(50 * time.Millisecond),
		rpc:         max(scale(2*time.Second), time.Second),
		stagger:     scale(25 * time.Millisecond),
		tick:        scale(100 * time.Millisecond),
	}
}

// ensureDefaults returns c with every field that was left out filled in.
func (c Config) ensureDefaults() Config {
	if c.Performance == 0 {
		c.Performance = 1
	}
	if c.DeadPeerTimeout == 0 {
		c.DeadPeerTimeout = 24 * time.Hour
	}
	if c.SnapshotBytes == 0 {
		c.SnapshotBytes = 64 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// validate reports all that is wrong with c.
func (c Config) validate() error {
	var errs []error
	if c.Path == "" {
		errs = append(errs, errors.New("path: missing"))
	}
	if c.Performance < 0.1 || c.Performance > 100 {
		errs = append(errs, fmt.Errorf("performance: %v is not between 0.1 and 100", c.Performance))
	}
	if c.VoteDelay < 0 {
		errs = append(errs, errors.New("vote delay: negative"))
	}
	if c.Advertise != "" {
		if _, _, err := net.SplitHostPort(c.Advertise); err != nil {
			errs = append(errs, fmt.Errorf("advertise: %w", err))
		}
	}
	return errors.Join(errs...)
}
