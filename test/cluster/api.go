package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// client asks status paths: a new connection each time, so that a node that was restarted or woken is never
// asked over an old one.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// StatusError is an answer that is not a 2xx.
type StatusError struct {
	Code int
	Body string
}

func (e *StatusError) Error() string { return fmt.Sprintf("status %d: %s", e.Code, e.Body) }

// Call sends one request to a node with the cluster's token and decodes the answer into out, if not nil.
func (c *Cluster) Call(ctx context.Context, n *Node, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, n.URL()+path, body)
	if err != nil {
		return err
	}
	if c.Token != "" {
		request.Header.Set("X-Vault-Token", c.Token)
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode/100 != 2 {
		return &StatusError{Code: response.StatusCode, Body: string(bytes.TrimSpace(data))}
	}
	if out == nil || len(data) == 0 {
		return nil
	}
	return json.Unmarshal(data, out)
}

// initialise makes the root key on one node, once it answers, and takes the root token.
func (c *Cluster) initialise(ctx context.Context, n *Node) error {
	var answer struct {
		RootToken string `json:"root_token"`
	}
	var refused error
	err := Poll(ctx, n.Name+" is initialised", func() error {
		if !n.Running() {
			return fmt.Errorf("%s has ended: %w", n.Name, n.process.err)
		}
		err := c.Call(ctx, n, http.MethodPut, "/v1/sys/init", struct{}{}, &answer)
		if status := (*StatusError)(nil); errors.As(err, &status) {
			refused = err
			return nil
		}
		return err
	})
	if err := errors.Join(err, refused); err != nil {
		return fmt.Errorf("init of %s: %w", n.Name, err)
	}
	if answer.RootToken == "" {
		return errors.New("init gave no root token")
	}
	c.Token = answer.RootToken
	return nil
}

// Health is the status code of /v1/sys/health, 0 if there is no answer within half a second (P10 says that
// there is).
func (c *Cluster) Health(ctx context.Context, n *Node) int {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	err := c.Call(ctx, n, http.MethodGet, "/v1/sys/health", nil, nil)
	var status *StatusError
	switch {
	case err == nil:
		return http.StatusOK
	case errors.As(err, &status):
		return status.Code
	default:
		return 0
	}
}

// Leader is what a node says of who is active.
type Leader struct {
	IsSelf         bool   `json:"is_self"`
	Address        string `json:"leader_address"`
	ClusterAddress string `json:"leader_cluster_address"`
	Term           uint64 `json:"term"`
}

// Leader asks one node who is active.
func (c *Cluster) Leader(ctx context.Context, n *Node) (Leader, error) {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	var leader Leader
	return leader, c.Call(ctx, n, http.MethodGet, "/v1/sys/leader", nil, &leader)
}

// Active returns the node that says of itself that it is active, the one of the highest term if there are
// two; nil if there is none. A frozen node does not answer and is not counted.
func (c *Cluster) Active(ctx context.Context) (*Node, uint64) {
	var active *Node
	var term uint64
	for _, n := range c.Nodes {
		if !n.Running() || n.process.state() == 'T' {
			continue
		}
		if leader, err := c.Leader(ctx, n); err == nil && leader.IsSelf && leader.Term >= term {
			active, term = n, leader.Term
		}
	}
	return active, term
}

// WaitActive waits until a node other than those excepted is active.
func (c *Cluster) WaitActive(ctx context.Context, except ...*Node) (*Node, error) {
	var active *Node
	err := Poll(ctx, "a node is active", func() error {
		active, _ = c.Active(ctx)
		if active == nil {
			return errors.New("none is")
		}
		for _, n := range except {
			if n == active {
				return fmt.Errorf("%s is", n.Name)
			}
		}
		return nil
	})
	return active, err
}

// WaitHealthy waits until every running node is active or a standby that reaches the active one, and all
// name the same.
func (c *Cluster) WaitHealthy(ctx context.Context) error {
	return Poll(ctx, "all nodes are healthy", func() error {
		seen := ""
		for _, n := range c.Nodes {
			if !n.Running() {
				continue
			}
			if code := c.Health(ctx, n); code != http.StatusOK && code != http.StatusTooManyRequests {
				return fmt.Errorf("%s: health %d", n.Name, code)
			}
			leader, err := c.Leader(ctx, n)
			if err != nil {
				return fmt.Errorf("%s: %w", n.Name, err)
			}
			if leader.Address == "" || seen != "" && leader.Address != seen {
				return fmt.Errorf("%s says %q is active, others %q", n.Name, leader.Address, seen)
			}
			seen = leader.Address
		}
		return nil
	})
}

// Peer is one line of the raft configuration.
type Peer struct {
	ID      string `json:"node_id"`
	Address string `json:"address"`
	Leader  bool   `json:"leader"`
	Voter   bool   `json:"voter"`
}

// Peers asks a node for the raft configuration.
func (c *Cluster) Peers(ctx context.Context, n *Node) ([]Peer, error) {
	var answer struct {
		Data struct {
			Config struct {
				Servers []Peer `json:"servers"`
			} `json:"config"`
		} `json:"data"`
	}
	err := c.Call(ctx, n, http.MethodGet, "/v1/sys/storage/raft/configuration", nil, &answer)
	return answer.Data.Config.Servers, err
}

// WaitVoters waits until so many voters are in the raft configuration: newcomers have caught up.
func (c *Cluster) WaitVoters(ctx context.Context, want int) error {
	return Poll(ctx, fmt.Sprintf("there are %d voters", want), func() error {
		active, _ := c.Active(ctx)
		if active == nil {
			return errors.New("nobody is active")
		}
		peers, err := c.Peers(ctx, active)
		voters := 0
		for _, p := range peers {
			if p.Voter {
				voters++
			}
		}
		if err == nil && voters != want {
			err = fmt.Errorf("there are %d of %d servers", voters, len(peers))
		}
		return err
	})
}

// StepDown asks through a node that the active one step down, in favour of the node named to ("" for any),
// and waits until the next one serves if wait > 0.
func (c *Cluster) StepDown(ctx context.Context, through *Node, to string, wait time.Duration) error {
	body := map[string]any{}
	if to != "" {
		body["to"] = to
	}
	if wait > 0 {
		body["wait"] = wait.String()
	}
	return c.Call(ctx, through, http.MethodPost, "/v1/sys/step-down", body, nil)
}
