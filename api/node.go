package api

import (
	"context"
	"time"
)

// Node is the node that is asked, whatever its state. Status and Sealed answer from memory, at once (P10).
type Node interface {
	// Status is a snapshot of everything that the status paths show.
	Status() Status

	// Sealed reports whether the node is sealed or not initialised. It is asked on every request.
	Sealed() bool

	// Authorize checks a token for a path that this node answers itself, whatever its role: nil, ErrDenied, or another
	// error if that cannot be told now.
	Authorize(ctx context.Context, token string, need Access) error

	// Resume ends a pause on this node alone, if there is no active node that could be asked; false: there is, or there is
	// no pause. The token is checked as Authorize does.
	Resume(ctx context.Context, token string, need Access) (bool, error)

	// Init makes a new cluster of which this node is the first. An *Error says why not (400 if there is one already).
	Init(ctx context.Context, req InitRequest) (*InitResponse, error)

	// Unseal takes one share, or the whole key where there are no shares. The status that follows is shown to the
	// client. A share that cannot be right is an *Error with 400. On an unsealed node it does nothing.
	Unseal(ctx context.Context, share []byte) error

	// ResetUnseal forgets the shares given so far.
	ResetUnseal(ctx context.Context) error

	// Join lets this node, which must not be initialised, join the cluster that another node is in. It returns once
	// the cluster has taken it in, or, with Retry, once it has begun to try.
	Join(ctx context.Context, req JoinRequest) error
}

// Status is what a node knows of itself and of the active node.
type Status struct {
	Name        string // node_name
	Version     string
	BuildDate   string // RFC 3339
	ClusterName string
	ClusterID   string

	Initialized bool
	Sealed      bool
	Seal        SealStatus
	StorageType string // "raft", "inmem", …
	Warnings    []string

	HAEnabled   bool
	Active      bool // this node is the active one, and its lease is valid now
	ActiveSince time.Time
	Leader      Leader // the active node, as far as this node knows; zero if none

	Connected bool          // a standby: the active node has answered it within the last heartbeats
	LastEcho  time.Duration // since the active node's last answer; negative if never
	EchoTime  time.Duration // how long the last answer took
	ClockSkew time.Duration // the active node's wall clock minus this one's
	Removed   bool          // the cluster has removed this node

	NotReady string     // why no requests should be sent to this node now; "" if they may be
	Raft     *RaftIndex // nil unless storage is raft
}

// SealStatus is how far the unsealing is.
type SealStatus struct {
	Type      string // "shamir", "static"
	Shares    int    // n
	Threshold int    // t
	Progress  int    // shares given so far
	Nonce     string // of this unsealing
}

// Leader says how to reach the active node. The zero Leader is nobody.
type Leader struct {
	NodeID      string
	Name        string
	APIAddr     string // where clients are redirected to: a URL
	ClusterAddr string // where standbys reach it: https://host:port
	Listener    string // host:port of its API listener
	Term        uint64
}

// RaftIndex is how far this node's copy of the log is.
type RaftIndex struct {
	Committed, Applied uint64
	Voter              bool
}

// InitRequest is the body of sys/init.
type InitRequest struct {
	Shares            int // secret_shares
	Threshold         int // secret_threshold
	RecoveryShares    int
	RecoveryThreshold int
}

// InitResponse carries the secrets of a new cluster, once. Neither logs nor errors ever show it.
type InitResponse struct {
	Keys         [][]byte // the shares; empty where the seal opens by itself
	RecoveryKeys [][]byte
	RootToken    string
}

// String hides the secrets.
func (InitResponse) String() string { return "***" }

// GoString hides the secrets.
func (InitResponse) GoString() string { return "***" }

// JoinRequest is the body of sys/storage/raft/join.
type JoinRequest struct {
	LeaderAPIAddr string `json:"leader_api_addr"`
	CACert        string `json:"leader_ca_cert"` // PEM
	ClientCert    string `json:"leader_client_cert"`
	ClientKey     string `json:"leader_client_key"`
	ServerName    string `json:"leader_tls_servername"`
	Retry         bool   `json:"retry"`
	NonVoter      bool   `json:"non_voter"`
}

// String hides the client's key.
func (j JoinRequest) String() string { return "join " + j.LeaderAPIAddr }
