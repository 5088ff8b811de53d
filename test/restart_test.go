package test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
	"github.com/locum-ha/locum/test/load"
)

// put writes an entry through a client and fails the test if that fails.
func put(ctx context.Context, t *testing.T, client *load.Client, key, value string) {
	t.Helper()
	answer, err := client.Do(ctx, http.MethodPost, "/v1/secret/data/"+key, fmt.Appendf(nil, `{"data":{"v":%q}}`, value))
	if err != nil || answer.Status/100 != 2 {
		t.Fatalf("writing %s: %d %s %v", key, answer.Status, answer.Body, err)
	}
}

// expect reads an entry through a client.
func expect(ctx context.Context, t *testing.T, client *load.Client, key, value string) {
	t.Helper()
	answer, err := client.Do(ctx, http.MethodGet, "/v1/secret/data/"+key, nil)
	if err != nil || answer.Status != http.StatusOK || load.ValueOf(answer.Body) != value {
		t.Errorf("reading %s: %d %.200s %v, want %q", key, answer.Status, answer.Body, err, value)
	}
}

// P3: all nodes killed at once, or stopped at once, come back as a healthy cluster with every entry.
func TestRestartOfAll(t *testing.T) {
	c := cluster.New(t, cluster.Options{})
	ctx := within(t, 2*time.Minute)
	for i, how := range []string{"killed", "stopped"} {
		for n, client := range clientsOf(t, c) {
			put(ctx, t, client, fmt.Sprintf("all/%d/%d", i, n), "kept")
		}
		_, before := findActive(t, c)
		if how == "killed" {
			for _, n := range c.Nodes {
				n.Kill()
			}
		} else if err := c.StopAll(30 * time.Second); err != nil {
			t.Errorf("SIGTERM to all: %v", err)
		}
		for _, n := range c.Nodes {
			if err := n.Start(); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.WaitHealthy(ctx); err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		if _, term := findActive(t, c); term <= before {
			t.Errorf("%s: term %d after term %d", how, term, before)
		}
		for n, client := range clientsOf(t, c) {
			expect(ctx, t, client, fmt.Sprintf("all/%d/%d", i, n), "kept")
		}
	}
	quorumLostForGood(ctx, t, c)
}

// quorumLostForGood kills all nodes, two with their data, and builds the cluster again from the third, by the commands that
// docs/operations.md names: recover, join, remove-peer.
func quorumLostForGood(ctx context.Context, t *testing.T, c *cluster.Cluster) {
	t.Helper()
	start := time.Now()
	_, before := findActive(t, c)
	for _, n := range c.Nodes {
		n.Kill()
	}
	locum := func(args ...string) string {
		t.Helper()
		binary, err := cluster.Binary()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(ctx, binary, args...)
		cmd.Env = append(os.Environ(), "LOCUM_TOKEN="+c.Token)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("locum %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	first := c.Nodes[0]
	locum("operator", "raft", "recover", "-config", filepath.Join(first.Dir, "locum.hcl"), "-yes")
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.WaitActive(ctx); err != nil {
		t.Fatal(err)
	}
	if _, term := findActive(t, c); term <= before {
		t.Errorf("term %d after term %d", term, before)
	}
	for _, n := range c.Nodes[1:] {
		if err := n.Empty(); err != nil {
			t.Fatal(err)
		}
		withoutRetryJoin(t, n)
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
		err := cluster.Poll(ctx, n.Name+" answers", func() error {
			if code := c.Health(ctx, n); code != http.StatusNotImplemented {
				return &cluster.StatusError{Code: code}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if out := locum("operator", "raft", "join", "-address", n.URL(), first.URL()); !strings.Contains(out, "true") {
			t.Errorf("join: %s", out)
		}
	}
	if err := c.WaitVoters(ctx, 3); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
	for _, client := range clientsOf(t, c) {
		expect(ctx, t, client, "all/1/0", "kept")
	}
	last := c.Nodes[2]
	locum("operator", "raft", "remove-peer", "-address", first.URL(), identity(t, last))
	if err := c.WaitVoters(ctx, 2); err != nil {
		t.Error(err)
	}
	if out := locum("operator", "raft", "list-peers", "-address", first.URL()); strings.Contains(out, identity(t, last)) || !strings.Contains(out, c.Nodes[1].Name) {
		t.Errorf("peers without %s:\n%s", last.Name, out)
	}
	t.Logf("built again from one node in %v", time.Since(start))
}

// withoutRetryJoin lets a node join when it is told to, and not by itself.
func withoutRetryJoin(t *testing.T, n *cluster.Node) {
	t.Helper()
	path := filepath.Join(n.Dir, "locum.hcl")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, regexp.MustCompile(`(?s) *retry_join \{.*?\}\n`).ReplaceAll(text, nil), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A node whose directory was emptied comes back as another identity, as a non-voter that is promoted when it has
// caught up; the old identity goes by rule, and the cluster bears the loss of another node.
func TestEmptiedDirectory(t *testing.T) {
	c := cluster.New(t, cluster.Options{})
	ctx := within(t, 2*time.Minute)
	clients := clientsOf(t, c)
	put(ctx, t, clients[0], "emptied", "kept")
	active, _ := findActive(t, c)
	victim := c.Nodes[(active.Index+1)%3]
	old := identity(t, victim)
	victim.Kill()
	if err := victim.Empty(); err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	err := cluster.Poll(ctx, "the newcomer votes and its old identity is gone", func() error {
		servers, err := ids(ctx, c)
		if err != nil {
			return err
		}
		if _, there := servers[old]; there || len(servers) != 3 {
			return fmt.Errorf("servers %v", servers)
		}
		for id, voter := range servers {
			if !voter {
				return fmt.Errorf("%s does not vote yet", id)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if identity(t, victim) == old {
		t.Error("a replaced node must not vote as the one it was")
	}
	active.Kill()
	if _, err := c.WaitActive(ctx, active); err != nil {
		t.Fatal(err)
	}
	expect(ctx, t, clients[victim.Index], "emptied", "kept")
}

// identity is the UUID that a node has made with its data directory.
func identity(t *testing.T, n *cluster.Node) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(n.DataDir(), "node-id"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// ids asks the active node for the servers, and whether they vote.
func ids(ctx context.Context, c *cluster.Cluster) (map[string]bool, error) {
	active, err := c.WaitActive(ctx)
	if err != nil {
		return nil, err
	}
	peers, err := c.Peers(ctx, active)
	set := map[string]bool{}
	for _, p := range peers {
		set[p.ID] = p.Voter
	}
	return set, err
}

// P9: a node without the cluster's key is refused, and says so; nothing of the cluster changes.
func TestJoinWithoutTheKey(t *testing.T) {
	c := cluster.New(t, cluster.Options{})
	ctx := within(t, time.Minute)
	before, err := ids(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := c.Add(cluster.NewSealKey())
	if err != nil {
		t.Fatal(err)
	}
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	after(ctx, 5*time.Second)
	if code := c.Health(ctx, stranger); code == http.StatusOK || code == http.StatusTooManyRequests {
		t.Errorf("health of the stranger is %d", code)
	}
	if now, err := ids(ctx, c); err != nil || len(now) != len(before) {
		t.Errorf("servers were %v and are %v, %v", before, now, err)
	}
	if log := stranger.LogTail(200); !strings.Contains(log, "join") {
		t.Errorf("the stranger does not say that it cannot join:\n%s", log)
	}
	stranger.Kill()
	joined, err := c.Add("") // with the key it works
	if err != nil {
		t.Fatal(err)
	}
	if err := joined.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitVoters(ctx, 4); err != nil {
		t.Error(err)
	}
}
