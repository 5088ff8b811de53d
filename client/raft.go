package client

import (
	"context"
	"io"
	"net/http"
)

// RaftServer is one server of the embedded store.
type RaftServer struct {
	NodeID          string `json:"node_id"`
	Name            string `json:"name,omitempty"`
	Address         string `json:"address"`
	Leader          bool   `json:"leader"`
	Voter           bool   `json:"voter"`
	ProtocolVersion string `json:"protocol_version,omitempty"`
}

// JoinRequest tells a node which cluster to join.
type JoinRequest struct {
	LeaderAPIAddr string `json:"leader_api_addr"`
	CACert        string `json:"leader_ca_cert,omitempty"`     // PEM
	ClientCert    string `json:"leader_client_cert,omitempty"` // PEM
	ClientKey     Secret `json:"-"`                            // PEM
	ServerName    string `json:"leader_tls_servername,omitempty"`
	Retry         bool   `json:"retry,omitempty"`
}

// Raft is the part of the API that a cluster on the embedded store has.
type Raft struct{ c *Client }

// Raft returns it.
func (c *Client) Raft() Raft { return Raft{c} }

// Peers lists the servers.
func (r Raft) Peers(ctx context.Context) ([]RaftServer, error) {
	var out struct {
		Data struct {
			Config struct {
				Servers []RaftServer `json:"servers"`
			} `json:"config"`
		} `json:"data"`
	}
	_, err := r.c.Do(ctx, http.MethodGet, "/sys/storage/raft/configuration", nil, &out)
	return out.Data.Config.Servers, err
}

// Join lets the node that is asked join a cluster.
func (r Raft) Join(ctx context.Context, req JoinRequest) (joined bool, err error) {
	body := struct {
		JoinRequest
		ClientKey string `json:"leader_client_key,omitempty"`
	}{req, string(req.ClientKey)}
	var out struct {
		Joined bool `json:"joined"`
	}
	_, err = r.c.Do(ctx, http.MethodPost, "/sys/storage/raft/join", body, &out)
	return out.Joined, err
}

// RemovePeer takes a server out of the cluster.
func (r Raft) RemovePeer(ctx context.Context, id string) error {
	_, err := r.c.Do(ctx, http.MethodPost, "/sys/storage/raft/remove-peer", map[string]string{"server_id": id}, nil)
	return err
}

// Snapshot writes the cluster's whole state, encrypted as it is stored, to w.
func (r Raft) Snapshot(ctx context.Context, w io.Writer) error {
	_, err := r.c.do(ctx, call{method: http.MethodGet, path: "/sys/storage/raft/snapshot", sink: w})
	return err
}

// Restore replaces the cluster's whole state by a snapshot. A snapshot of another cluster is refused unless force is set.
func (r Raft) Restore(ctx context.Context, snapshot io.Reader, force bool) error {
	path := "/sys/storage/raft/snapshot"
	if force {
		path += "-force"
	}
	_, err := r.c.do(ctx, call{method: http.MethodPost, path: path, body: snapshot})
	return err
}
