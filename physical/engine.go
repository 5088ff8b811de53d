package physical

import (
	"context"
	"errors"
	"net"
	"time"
)

// Layer carries the traffic of a store that runs in the nodes themselves, between nodes. Its connections are mutually
// authenticated already. Dial must reach exactly the node with the identity id, or fail. A connection may have a method
// PeerID() string that tells who is at the other end.
type Layer interface {
	Dial(ctx context.Context, id, addr string) (net.Conn, error)
	Accept() (net.Conn, error)
	Close() error
	Addr() net.Addr
}

// Peer is one member of the cluster that a store in the nodes themselves forms.
type Peer struct {
	ID     string `json:"id"`
	Addr   string `json:"addr"`
	Voter  bool   `json:"voter"`
	Leader bool   `json:"leader"`

	// What only the leader knows; zero elsewhere, and of the leader itself.
	Heard   time.Duration `json:"heard_ns,omitempty"` // since the last message that it acknowledged
	Match   uint64        `json:"match,omitempty"`    // its log agrees with the leader's up to this index
	Healthy bool          `json:"healthy"`            // heard within a heartbeat timeout; on the leader only
}

// EngineStats is what there is to know of a node's share in such a store, for status pages and metrics.
type EngineStats struct {
	ID            string        `json:"id"`
	Address       string        `json:"address"` // at which the cluster has agreed that this node is reached; "" if at none, as far as it knows
	State         string        `json:"state"`   // "leader", "follower", "candidate", "stopped"
	LeaderID      string        `json:"leader_id"`
	RaftTerm      uint64        `json:"raft_term"`
	LastIndex     uint64        `json:"last_index"`     // of the log
	CommitIndex   uint64        `json:"commit_index"`   // as far as this node knows
	AppliedIndex  uint64        `json:"applied_index"`  // of the state
	SnapshotIndex uint64        `json:"snapshot_index"` // of the newest snapshot
	Pending       uint64        `json:"pending"`        // committed entries that wait to be applied
	LastContact   time.Duration `json:"last_contact_ns"`
	Voter         bool          `json:"voter"`
	Members       int           `json:"members"`
}

// EngineObserver is told of such a store's events. Every field may be nil. The functions must return at once.
type EngineObserver struct {
	// Leading is called when this node gains or loses the engine's leadership.
	Leading func(leading bool)
	// Committed is called after each log entry of commits: how many commits shared it, how many bytes it
	// had, and how long it took from dispatch to applied.
	Committed func(commits, bytes int, took time.Duration)
	// Stored is called after each write to the log: how many entries, and how long write and sync took.
	Stored func(entries int, took time.Duration)
	// Snapshot is called after a snapshot was taken.
	Snapshot func(took time.Duration, err error)
	// Refused is called when the gate keeps a promise: what was refused ("vote", "pre-vote", "ack", …).
	Refused func(what string)
}

// What a change of such a store's cluster, or its snapshot, can be refused for.
var (
	// ErrQuorum: the change would leave the cluster without a majority that is there.
	ErrQuorum = errors.New("would lose quorum")
	// ErrSnapshot: a snapshot that is damaged, cut short, or of a format that this version does not know.
	ErrSnapshot = errors.New("unusable snapshot")
)
