package api

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/locum-ha/locum/auth"
)

// Service is what the active node can be asked to do. Its methods run under the context of the request, which ends by
// the lease's deadline. Errors that wrap physical.ErrFenced, ErrUnavailable or ErrUnknown go to Config.Deposed first;
// an *Error goes to the client as it is.
type Service interface {
	// Authorize returns the token of who bears it if it may do this: ErrDenied or auth.ErrDenied else.
	Authorize(ctx context.Context, token string, need Access) (*auth.Token, error)

	// Seal seals this node. It returns when the node has given up its leadership and forgotten its keys.
	Seal(ctx context.Context) error

	// StepDown begins to hand the leadership on, to the node named or, if to is "", to the one that the cluster chooses. It
	// does not wait: its request is one of those in flight, which the step-down waits for. Where a wait is asked for, the node
	// that the request reached first does it (StepDownWait).
	StepDown(ctx context.Context, to string) error

	Orders

	// Locks are the named locks, kept with this leadership.
	Locks() Locks

	// Members lists the nodes, the active one first.
	Members(ctx context.Context) ([]Member, error)

	// History lists the last leaderships, the newest first.
	History(ctx context.Context) ([]Leadership, error)

	// KeyStatus describes the encryption key in use.
	KeyStatus(ctx context.Context) (KeyStatus, error)

	// Rotate makes a new encryption key, for what is written from now on.
	Rotate(ctx context.Context) error

	// RootGeneration, BeginRootGeneration, CancelRootGeneration and RootShare make a root token by a quorum of key shares.
	// The attempt is the leadership's own: the next active node knows nothing of it. *Error where it does not fit.
	RootGeneration(ctx context.Context) (RootGeneration, error)
	BeginRootGeneration(ctx context.Context, otp string) (RootGeneration, error)
	CancelRootGeneration(ctx context.Context) error
	RootShare(ctx context.Context, nonce string, share []byte) (RootGeneration, error)

	Rekey
}

// Member is one node in sys/ha-status.
type Member struct {
	Hostname    string     `json:"hostname"`
	APIAddress  string     `json:"api_address"`
	ClusterAddr string     `json:"cluster_address"`
	ActiveNode  bool       `json:"active_node"`
	LastEcho    *time.Time `json:"last_echo"` // nil for the active node itself
	Version     string     `json:"version"`
	EchoMS      int64      `json:"echo_duration_ms"`
	SkewMS      int64      `json:"clock_skew_ms"`
	Priority    int        `json:"priority"`
	Term        uint64     `json:"term"` // the term that the node last heard of
	NodeID      string     `json:"node_id"`
	Reason      string     `json:"reason,omitempty"` // why it is not active
	Maintenance bool       `json:"maintenance,omitempty"`
}

// Leadership is one line of sys/history.
type Leadership struct {
	Term   uint64     `json:"term"`
	NodeID string     `json:"node_id"`
	Node   string     `json:"node"`
	From   time.Time  `json:"from"`
	To     *time.Time `json:"to"` // nil while it lasts
	Reason string     `json:"reason"`
}

// KeyStatus is the answer of sys/key-status.
type KeyStatus struct {
	Term        uint64    `json:"term"`
	InstallTime time.Time `json:"install_time"`
	Encryptions uint64    `json:"encryptions"`
}

// Raft is what the active node does for a cluster whose storage is raft.
type Raft interface {
	Configuration(ctx context.Context) (RaftConfiguration, error)

	// RemovePeer takes a server out of the cluster. *Error with 400 if that would cost the quorum, 404 if there is
	// no such server.
	RemovePeer(ctx context.Context, id string) error

	// Snapshot writes the whole state. An error before the first byte is answered; a later one breaks the connection off.
	Snapshot(ctx context.Context, w io.Writer) error

	// Restore replaces the whole state, never lowering the term. Unless force is set a snapshot of another cluster
	// is refused.
	Restore(ctx context.Context, r io.Reader, force bool) error

	// Challenge and Answer are the two rounds in which a new node and the cluster prove the root key to each other. They
	// need no token; what is said is package join's. The api passes the JSON through.
	Challenge(ctx context.Context, request json.RawMessage) (any, error)
	Answer(ctx context.Context, answer json.RawMessage) (any, error)
}

// RaftConfiguration is the answer of sys/storage/raft/configuration.
type RaftConfiguration struct {
	Index   uint64       `json:"index"`
	Servers []RaftServer `json:"servers"`
}

// RaftServer is one server of the raft cluster.
type RaftServer struct {
	NodeID          string `json:"node_id"`
	Name            string `json:"name"`
	Address         string `json:"address"` // host:port of its cluster port
	Leader          bool   `json:"leader"`
	Voter           bool   `json:"voter"`
	ProtocolVersion string `json:"protocol_version"`
}
