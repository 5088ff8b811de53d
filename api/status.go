package api

import (
	"net/http"
	"time"
)

// leaderBody is the answer of sys/leader.
type leaderBody struct {
	HAEnabled          bool      `json:"ha_enabled"`
	IsSelf             bool      `json:"is_self"`
	ActiveTime         time.Time `json:"active_time"` // year 1 on a node that is not active
	LeaderAddress      string    `json:"leader_address"`
	LeaderClusterAddr  string    `json:"leader_cluster_address"`
	PerformanceStandby bool      `json:"performance_standby"`
	LastRemoteWAL      uint64    `json:"performance_standby_last_remote_wal"`
	Term               uint64    `json:"term"`
	LeaderNode         string    `json:"leader_node"`
	RaftCommitted      uint64    `json:"raft_committed_index,omitempty"`
	RaftApplied        uint64    `json:"raft_applied_index,omitempty"`
	RaftVoter          bool      `json:"raft_voter,omitempty"` // the copy of the node that is asked counts for a majority
}

func (l *local) leader(w http.ResponseWriter, r *http.Request) {
	st := l.node.Status()
	if st.Sealed || !st.Initialized {
		l.fail(w, r, sealedAnswer(st.Initialized))
		return
	}
	body := leaderBody{
		HAEnabled: st.HAEnabled, IsSelf: st.Active,
		LeaderAddress: st.Leader.APIAddr, LeaderClusterAddr: st.Leader.ClusterAddr,
		Term: st.Leader.Term, LeaderNode: st.Leader.Name,
	}
	if st.Active {
		body.ActiveTime = st.ActiveSince.UTC()
	}
	if st.Raft != nil {
		body.RaftCommitted, body.RaftApplied, body.RaftVoter = st.Raft.Committed, st.Raft.Applied, st.Raft.Voter
	}
	l.reply(w, http.StatusOK, body)
}

// systemLeaderBody has exactly these four fields: others read it by position.
type systemLeaderBody struct {
	IsSelf               bool
	HAEnabled            bool
	LeaderAddress        string // the active node's listener, host:port
	LeaderClusterAddress string // its api_addr
}

// systemLeader answers 200 also while nobody is active, with empty strings.
func (l *local) systemLeader(w http.ResponseWriter, _ *http.Request) {
	st := l.node.Status()
	l.reply(w, http.StatusOK, systemLeaderBody{
		IsSelf: st.Active, HAEnabled: st.HAEnabled,
		LeaderAddress: st.Leader.Listener, LeaderClusterAddress: st.Leader.APIAddr,
	})
}

// sealStatusBody is the answer of sys/seal-status and sys/unseal.
type sealStatusBody struct {
	Type         string   `json:"type"`
	Initialized  bool     `json:"initialized"`
	Sealed       bool     `json:"sealed"`
	T            int      `json:"t"`
	N            int      `json:"n"`
	Progress     int      `json:"progress"`
	Nonce        string   `json:"nonce"`
	Version      string   `json:"version"`
	BuildDate    string   `json:"build_date"`
	CommitDate   string   `json:"commit_date"` // OpenBao's newer name; a Locum is dated by its commit
	Migration    bool     `json:"migration"`
	ClusterName  string   `json:"cluster_name,omitempty"`
	ClusterID    string   `json:"cluster_id,omitempty"`
	RecoverySeal bool     `json:"recovery_seal"` // Vault's: false, since there are no recovery keys
	StorageType  string   `json:"storage_type,omitempty"`
	Removed      *bool    `json:"removed_from_cluster,omitempty"`
	Warnings     []string `json:"warnings,omitempty"`
}

func (l *local) sealStatus(w http.ResponseWriter, _ *http.Request) {
	st := l.node.Status()
	body := sealStatusBody{
		Type: st.Seal.Type, Initialized: st.Initialized, Sealed: st.Sealed,
		T: st.Seal.Threshold, N: st.Seal.Shares, Progress: st.Seal.Progress, Nonce: st.Seal.Nonce,
		Version: st.Version, BuildDate: st.BuildDate, CommitDate: st.BuildDate, ClusterName: st.ClusterName, ClusterID: st.ClusterID,
		StorageType: st.StorageType, Warnings: st.Warnings,
	}
	if st.HAEnabled && st.Initialized && !st.Sealed {
		body.Removed = &st.Removed
	}
	l.reply(w, http.StatusOK, body)
}
