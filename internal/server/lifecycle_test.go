package server

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/physical"
)

// initialise makes the first node's cluster and returns the root token.
func initialise(t testing.TB, n *testNode) string {
	t.Helper()
	code, answer := n.call("PUT", "/v1/sys/init", "", map[string]any{})
	if code != 200 {
		t.Fatalf("init: %d %v", code, answer)
	}
	return answer["root_token"].(string)
}

// runCluster starts n nodes that form a cluster, and returns the root token once all of them vote.
func runCluster(t testing.TB, n int) ([]*testNode, string) {
	t.Helper()
	nodes := testCluster(t, n)
	for _, node := range nodes {
		node.start()
	}
	token := initialise(t, nodes[0])
	ready(t, nodes...)
	voters(t, nodes[0], token, n)
	return nodes, token
}

func ready(t testing.TB, nodes ...*testNode) {
	t.Helper()
	for _, n := range nodes {
		eventually(t, n.name+" ready", func() bool { code, _ := n.call("GET", "/v1/sys/ready", "", nil); return code == 200 })
	}
}

func voters(t testing.TB, n *testNode, token string, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d voters", want), func() bool {
		code, answer := n.call("GET", "/v1/sys/storage/raft/configuration", token, nil)
		return code == 200 && strings.Count(fmt.Sprint(answer["config"]), "voter:true") == want
	})
}

func put(t testing.TB, n *testNode, token, path, value string) {
	t.Helper()
	code, answer := n.call("POST", "/v1/secret/data/"+path, token, map[string]any{"data": map[string]any{"v": value}})
	if code != 200 {
		t.Fatalf("write %s at %s: %d %v", path, n.name, code, answer)
	}
}

func expect(t testing.TB, n *testNode, token, path, value string) {
	t.Helper()
	code, answer := n.call("GET", "/v1/secret/data/"+path, token, nil)
	if got := fmt.Sprint(answer["data"]); code != 200 || !strings.Contains(got, "map[v:"+value+"]") {
		t.Fatalf("read %s at %s: %d %v, want %q", path, n.name, code, answer, value)
	}
}

// P3: a node alone, on a store that has no HA: it says so, works, and finds everything again after a restart.
func TestNodeAloneOnFiles(t *testing.T) {
	n := testCluster(t, 1)[0]
	n.config.Storage = config.NewStorage("file")
	n.config.Storage.File.Path = t.TempDir()
	n.start()
	// Interfaces §3: what the start-up table says, and its warning.
	for _, want := range []string{"Storage: file (HA not supported)", "warning: storage \"file\" has no high availability", "Listener 1: tcp (addr: ", "Version: test"} {
		if !strings.Contains(n.out.String(), want) {
			t.Errorf("the start-up table lacks %q:\n%s", want, n.out.String())
		}
	}
	if strings.Contains(n.out.String(), "Cluster Address") {
		t.Errorf("a node alone has a cluster address:\n%s", n.out.String())
	}
	token := initialise(t, n)
	ready(t, n)
	put(t, n, token, "a", "1")
	if _, answer := n.call("GET", "/v1/sys/leader", "", nil); answer["ha_enabled"] != false {
		t.Fatalf("leader: %v", answer)
	}
	n.end()
	n.start()
	ready(t, n)
	expect(t, n, token, "a", "1")
}

// P3: all nodes end and come back; each one ends and comes back; one comes back with an emptied directory.
func TestRestarts(t *testing.T) {
	nodes, token := runCluster(t, 3)
	put(t, nodes[0], token, "a", "1")
	for i, n := range nodes {
		n.end()
		put(t, nodes[(i+1)%3], token, "a", fmt.Sprint("one-", i))
		n.start()
		ready(t, n)
		expect(t, n, token, "a", fmt.Sprint("one-", i))
	}
	for _, n := range nodes {
		n.end()
	}
	for i, n := range nodes {
		n.start()
		if i == 0 { // the others, and with them a quorum, are not there yet
			if code, answer := n.call("GET", "/v1/sys/ready", "", nil); code != 503 || !strings.Contains(fmt.Sprint(answer), "no connection to an active node") {
				t.Errorf("a node without an active one is ready: %d %v", code, answer)
			}
		}
	}
	ready(t, nodes...)
	expect(t, nodes[1], token, "a", "one-2")

	nodes[2].end()
	if err := os.RemoveAll(nodes[2].config.Storage.Raft.Path); err != nil {
		t.Fatal(err)
	}
	nodes[2].start()
	ready(t, nodes[2])
	voters(t, nodes[2], token, 3)
	expect(t, nodes[2], token, "a", "one-2")
}

// P9: with Shamir shares a node opens once enough of them were given, and one that joins needs them too.
func TestShamir(t *testing.T) {
	nodes := testCluster(t, 2)
	for _, n := range nodes {
		n.config.Seal = config.Seal{Type: "shamir"}
		n.start()
	}
	code, answer := nodes[0].call("PUT", "/v1/sys/init", "", map[string]any{"secret_shares": 3, "secret_threshold": 2})
	if code != 200 {
		t.Fatalf("init: %d %v", code, answer)
	}
	token, keys := answer["root_token"].(string), answer["keys"].([]any)
	if len(keys) != 3 {
		t.Fatalf("%d keys", len(keys))
	}
	give := func(n *testNode, key any) map[string]any {
		t.Helper()
		code, answer := n.call("PUT", "/v1/sys/unseal", "", map[string]any{"key": key})
		if code != 200 {
			t.Fatalf("unseal %s: %d %v", n.name, code, answer)
		}
		return answer
	}
	for _, key := range keys[:2] { // init leaves its node open: shares that a script gives to it, as to a new Vault, are taken and of no use
		give(nodes[0], key)
	}
	ready(t, nodes[0])
	eventually(t, "the second node has found the cluster", func() bool {
		_, answer := nodes[1].call("GET", "/v1/sys/seal-status", "", nil)
		return answer["t"] == float64(2)
	})
	if code, _ := nodes[1].call("PUT", "/v1/sys/unseal", "", map[string]any{"key": strings.Repeat("ab", 33)}); code != 400 {
		t.Fatalf("a foreign share: %d", code)
	}
	nodes[1].call("PUT", "/v1/sys/unseal", "", map[string]any{"reset": true})
	give(nodes[1], keys[2])
	give(nodes[1], keys[0])
	ready(t, nodes[1])
	put(t, nodes[1], token, "a", "1")
	nodes[0].end()
	nodes[0].start()
	give(nodes[0], keys[1])
	give(nodes[0], keys[2])
	ready(t, nodes...)
	expect(t, nodes[0], token, "a", "1")
}

// P10: sealing ends the leadership; status answers, requests get 503.
func TestSeal(t *testing.T) {
	nodes := testCluster(t, 1)
	n := nodes[0]
	n.config.Seal = config.Seal{Type: "shamir"}
	n.start()
	_, answer := n.call("PUT", "/v1/sys/init", "", map[string]any{"secret_shares": 1, "secret_threshold": 1})
	token, keys := answer["root_token"].(string), answer["keys"].([]any)
	n.call("PUT", "/v1/sys/unseal", "", map[string]any{"key": keys[0]})
	ready(t, n)
	put(t, n, token, "a", "1")
	if code, answer := n.call("PUT", "/v1/sys/seal", token, nil); code != 204 {
		t.Fatalf("seal: %d %v", code, answer)
	}
	eventually(t, "sealed", func() bool {
		code, _ := n.call("GET", "/v1/sys/health", "", nil)
		return code == 503
	})
	if code, _ := n.call("GET", "/v1/secret/data/a", token, nil); code != 503 {
		t.Fatalf("read while sealed: %d", code)
	}
	n.call("PUT", "/v1/sys/unseal", "", map[string]any{"key": keys[0]})
	ready(t, n)
	expect(t, n, token, "a", "1")
}

// Priorities: a step-down goes to the standby with the highest one; a node that is no candidate never leads, also when
// raft makes it its leader.
func TestPrioritiesAndCandidates(t *testing.T) {
	nodes := testCluster(t, 3)
	nodes[1].config.HA.Candidate = false
	nodes[2].config.HA.Priority = 200
	for _, n := range nodes {
		n.start()
	}
	token := initialise(t, nodes[0])
	ready(t, nodes...)
	voters(t, nodes[0], token, 3)
	leader := func() string {
		_, answer := nodes[1].call("GET", "/v1/sys/leader", "", nil)
		return fmt.Sprint(answer["leader_address"])
	}
	down := func(body map[string]any) {
		t.Helper()
		eventually(t, "step-down", func() bool {
			code, _ := nodes[1].call("POST", "/v1/sys/step-down", token, body)
			return code == 200
		})
	}
	down(map[string]any{"wait": "10s"})
	if got := leader(); got != nodes[2].url {
		t.Fatalf("%s leads, want the one of the highest priority, %s", got, nodes[2].url)
	}
	if code, answer := nodes[0].call("POST", "/v1/sys/step-down", token, map[string]any{"to": "node-2"}); code != 400 {
		t.Fatalf("step-down to a node that is no candidate: %d %v", code, answer)
	}
	down(map[string]any{"wait": "10s"})
	if got := leader(); got != nodes[0].url {
		t.Fatalf("%s leads, want %s, the only other candidate", got, nodes[0].url)
	}
	put(t, nodes[1], token, "a", "1")
	nodes[0].end() // node-3 must take over, not node-2
	eventually(t, "node-3 leads", func() bool { return leader() == nodes[2].url })
	expect(t, nodes[1], token, "a", "1")
}

// A snapshot that was saved is restored: entries are as they were, the term is not lowered, the cluster goes on.
func TestSnapshotRestore(t *testing.T) {
	nodes, token := runCluster(t, 3)
	put(t, nodes[0], token, "a", "before")
	snapshot := nodes[1].raw("GET", "/v1/sys/storage/raft/snapshot", token, nil, 200)
	put(t, nodes[0], token, "a", "after")
	stepDown(t, nodes[0], token, "10s")
	_, answer := nodes[0].call("GET", "/v1/sys/leader", "", nil)
	term := answer["term"].(float64)
	nodes[2].raw("POST", "/v1/sys/storage/raft/snapshot", token, snapshot, 204)
	ready(t, nodes...)
	for _, n := range nodes {
		expect(t, n, token, "a", "before")
	}
	if _, answer := nodes[0].call("GET", "/v1/sys/leader", "", nil); answer["term"].(float64) <= term {
		t.Fatalf("term %v after a restore in term %v", answer["term"], term)
	}
	put(t, nodes[2], token, "a", "again")
	expect(t, nodes[1], token, "a", "again")
	nodes[1].raw("POST", "/v1/sys/storage/raft/snapshot", token, []byte("not a snapshot"), 400)
}

// A snapshot of another cluster is refused unless it is forced, whichever node is asked, and nothing is changed.
func TestSnapshotOfAnotherCluster(t *testing.T) {
	other, otherToken := runCluster(t, 1)
	put(t, other[0], otherToken, "a", "theirs")
	snapshot := other[0].raw("GET", "/v1/sys/storage/raft/snapshot", otherToken, nil, 200)
	nodes, token := runCluster(t, 2)
	put(t, nodes[0], token, "a", "ours")
	for _, n := range nodes {
		answer := n.raw("POST", "/v1/sys/storage/raft/snapshot", token, snapshot, 400)
		if !strings.Contains(string(answer), "of another cluster") || !strings.Contains(string(answer), "-force") {
			t.Errorf("%s: %s", n.name, answer)
		}
		expect(t, n, token, "a", "ours")
	}
	if _, err := nodes[0].server.barrier.KeyStatus(); err != nil {
		t.Fatal(err)
	}
	// After a rotation of the key the cluster's own older snapshot is still its own.
	own := nodes[1].raw("GET", "/v1/sys/storage/raft/snapshot", token, nil, 200)
	if code, answer := nodes[0].call("POST", "/v1/sys/rotate", token, nil); code != 204 && code != 200 {
		t.Fatalf("rotate: %d %v", code, answer)
	}
	put(t, nodes[0], token, "a", "later")
	nodes[0].raw("POST", "/v1/sys/storage/raft/snapshot", token, own, 204)
	ready(t, nodes...)
	expect(t, nodes[1], token, "a", "ours")
}

// P1: a writer that was frozen between deciding and writing, and wakes in a later term, writes nothing: neither at a node
// that does not lead any more, nor at the same node when it leads again.
func TestWriterOfAnOldTerm(t *testing.T) {
	nodes, token := runCluster(t, 2)
	put(t, nodes[0], token, "a", "1")
	u := nodes[0].server.life.Load()
	frozen := u.barrier.View(&u.leading.Load().term.Fence)
	down := func() {
		t.Helper()
		eventually(t, "step-down", func() bool {
			code, _ := nodes[1].call("POST", "/v1/sys/step-down", token, map[string]any{"wait": "10s"})
			return code == 200
		})
	}
	down()
	if err := frozen.Commit(t.Context(), physical.Put("kv/late", []byte("x"))); !errors.Is(err, physical.ErrUnavailable) && !errors.Is(err, physical.ErrFenced) {
		t.Fatalf("written by a node that does not lead: %v", err)
	}
	down()
	if err := frozen.Commit(t.Context(), physical.Put("kv/late", []byte("x"))); !errors.Is(err, physical.ErrFenced) {
		t.Fatalf("written in an old term: %v", err)
	}
	if _, err := u.barrier.View(nil).Get(t.Context(), "kv/late"); !errors.Is(err, physical.ErrNotFound) {
		t.Fatalf("the late write is there: %v", err)
	}
	expect(t, nodes[1], token, "a", "1")
}

// An init that is faster than the rest of the node's start is not done over by it: a node has one life at a time.
func TestInitBeforeTheStartIsOver(t *testing.T) {
	nodes := testCluster(t, 1)
	nodes[0].start()
	initialise(t, nodes[0])
	ready(t, nodes[0])
	life := nodes[0].server.life.Load()
	nodes[0].server.begin() // as if it came only now
	if nodes[0].server.life.Load() != life {
		t.Fatal("the node was unsealed twice")
	}
}
