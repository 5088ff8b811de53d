package client

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Health is the answer of sys/health. Code is its HTTP status: 200 active, 429 standby, 474 standby without an
// active node, 501 not initialised, 503 sealed.
type Health struct {
	Code        int    `json:"-"`
	Initialized bool   `json:"initialized"`
	Sealed      bool   `json:"sealed"`
	Standby     bool   `json:"standby"`
	Version     string `json:"version"`
	ClusterName string `json:"cluster_name"`
	ClusterID   string `json:"cluster_id"`
	Removed     bool   `json:"removed_from_cluster"`
	ServerTime  int64  `json:"server_time_utc"` // the node's clock, in seconds since 1970
}

// Health asks the node, once and without forwarding.
func (c *Client) Health(ctx context.Context) (Health, error) {
	var h Health
	meta, err := c.do(ctx, call{method: http.MethodGet, path: "/sys/health", out: &h, once: true,
		accept: func(code int) bool {
			return code == 429 || code == 472 || code == 473 || code == 474 || code == 501 || code == 503 || code == 530
		}})
	h.Code = meta.Status
	return h, err
}

// SealStatus is the answer of sys/seal-status.
type SealStatus struct {
	Type         string   `json:"type"`
	Initialized  bool     `json:"initialized"`
	Sealed       bool     `json:"sealed"`
	Threshold    int      `json:"t"`
	Shares       int      `json:"n"`
	Progress     int      `json:"progress"`
	Nonce        string   `json:"nonce,omitempty"`
	Version      string   `json:"version"`
	BuildDate    string   `json:"build_date,omitempty"`
	ClusterName  string   `json:"cluster_name,omitempty"`
	ClusterID    string   `json:"cluster_id,omitempty"`
	RecoverySeal bool     `json:"recovery_seal"`
	StorageType  string   `json:"storage_type,omitempty"`
	Warnings     []string `json:"warnings,omitempty"`
}

// SealStatus asks the node, once.
func (c *Client) SealStatus(ctx context.Context) (SealStatus, error) {
	var s SealStatus
	_, err := c.do(ctx, call{method: http.MethodGet, path: "/sys/seal-status", out: &s, once: true})
	return s, err
}

// Leader is the answer of sys/leader.
type Leader struct {
	HAEnabled          bool      `json:"ha_enabled"`
	IsSelf             bool      `json:"is_self"`
	ActiveTime         time.Time `json:"active_time"`
	LeaderAddress      string    `json:"leader_address"`
	LeaderClusterAddr  string    `json:"leader_cluster_address"`
	Term               uint64    `json:"term"`
	LeaderNode         string    `json:"leader_node,omitempty"`
	RaftCommittedIndex uint64    `json:"raft_committed_index,omitempty"`
	RaftAppliedIndex   uint64    `json:"raft_applied_index,omitempty"`
}

// Leader asks the node who is active, once.
func (c *Client) Leader(ctx context.Context) (Leader, error) {
	var l Leader
	_, err := c.do(ctx, call{method: http.MethodGet, path: "/sys/leader", out: &l, once: true})
	return l, err
}

// InitRequest says how the root key is divided. With a seal that opens by itself only the recovery fields count.
type InitRequest struct {
	Shares            int `json:"secret_shares,omitempty"`
	Threshold         int `json:"secret_threshold,omitempty"`
	RecoveryShares    int `json:"recovery_shares,omitempty"`
	RecoveryThreshold int `json:"recovery_threshold,omitempty"`
}

// InitResponse holds the secrets of a new cluster, given out once. It does not print them by itself.
type InitResponse struct {
	Keys            []string `json:"keys"`
	KeysBase64      []string `json:"keys_base64"`
	RecoveryKeys    []string `json:"recovery_keys,omitempty"`
	RecoveryKeysB64 []string `json:"recovery_keys_base64,omitempty"`
	RootToken       string   `json:"root_token"`
}

// String hides the secrets.
func (InitResponse) String() string { return "***" }

// GoString hides the secrets.
func (InitResponse) GoString() string { return "***" }

// Init makes a new cluster of which the node asked is the first.
func (c *Client) Init(ctx context.Context, req InitRequest) (InitResponse, error) {
	var out InitResponse
	_, err := c.do(ctx, call{method: http.MethodPut, path: "/sys/init", in: req, out: &out})
	return out, err
}

// Unseal gives the node one share.
func (c *Client) Unseal(ctx context.Context, share Secret) (SealStatus, error) {
	var s SealStatus
	_, err := c.do(ctx, call{method: http.MethodPut, path: "/sys/unseal", in: map[string]string{"key": string(share)}, out: &s})
	return s, err
}

// ResetUnseal makes the node forget the shares given so far.
func (c *Client) ResetUnseal(ctx context.Context) (SealStatus, error) {
	var s SealStatus
	_, err := c.do(ctx, call{method: http.MethodPut, path: "/sys/unseal", in: map[string]bool{"reset": true}, out: &s})
	return s, err
}

// Seal seals the active node.
func (c *Client) Seal(ctx context.Context) error {
	_, err := c.do(ctx, call{method: http.MethodPut, path: "/sys/seal"})
	return err
}

// NewActive is the active node after a step-down that was waited for.
type NewActive struct {
	Node              string `json:"node"`
	NodeID            string `json:"node_id"`
	Term              uint64 `json:"term"`
	LeaderAddress     string `json:"leader_address"`
	LeaderClusterAddr string `json:"leader_cluster_address"`
}

// StepDown hands leadership on, to the node named or, if to is "", to whichever the cluster chooses. With wait > 0 it
// returns the new active node once that one serves; else the zero NewActive at once.
func (c *Client) StepDown(ctx context.Context, to string, wait time.Duration) (NewActive, error) {
	body := map[string]string{}
	if to != "" {
		body["to"] = to
	}
	if wait > 0 {
		body["wait"] = wait.String()
	}
	var out NewActive
	_, err := c.do(ctx, call{method: http.MethodPut, path: "/sys/step-down", in: body, out: &out, longer: wait})
	return out, err
}

// Member is one node of sys/ha-status.
type Member struct {
	Hostname    string     `json:"hostname"`
	APIAddress  string     `json:"api_address"`
	ClusterAddr string     `json:"cluster_address"`
	ActiveNode  bool       `json:"active_node"`
	LastEcho    *time.Time `json:"last_echo"`
	Version     string     `json:"version"`
	EchoMS      int64      `json:"echo_duration_ms"`
	SkewMS      int64      `json:"clock_skew_ms"`
	Priority    int        `json:"priority"`
	Term        uint64     `json:"term"`
	NodeID      string     `json:"node_id"`
	Reason      string     `json:"reason,omitempty"`
	Maintenance bool       `json:"maintenance,omitempty"`
}

// Members lists the nodes that the active one knows.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	var out struct {
		Nodes []Member `json:"nodes"`
	}
	_, err := c.Do(ctx, http.MethodGet, "/sys/ha-status", nil, &out)
	return out.Nodes, err
}

// Leadership is one line of sys/history.
type Leadership struct {
	Term   uint64     `json:"term"`
	NodeID string     `json:"node_id"`
	Node   string     `json:"node"`
	From   time.Time  `json:"from"`
	To     *time.Time `json:"to"`
	Reason string     `json:"reason"`
}

// History lists the last leaderships, the newest first.
func (c *Client) History(ctx context.Context) ([]Leadership, error) {
	var out struct {
		Leaderships []Leadership `json:"leaderships"`
	}
	_, err := c.Do(ctx, http.MethodGet, "/sys/history", nil, &out)
	return out.Leaderships, err
}

// KeyStatus is the encryption key in use.
type KeyStatus struct {
	Term        uint64    `json:"term"`
	InstallTime time.Time `json:"install_time"`
	Encryptions uint64    `json:"encryptions"`
}

// KeyStatus asks for it.
func (c *Client) KeyStatus(ctx context.Context) (KeyStatus, error) {
	var out KeyStatus
	_, err := c.Do(ctx, http.MethodGet, "/sys/key-status", nil, &out)
	return out, err
}

// Rotate makes a new encryption key for what is written from now on.
func (c *Client) Rotate(ctx context.Context) error {
	_, err := c.Do(ctx, http.MethodPost, "/sys/rotate", nil, nil)
	return err
}

func queryOf(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	return q
}
