package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/memory"
)

// polled is a store that cannot wake a standby.
type polled struct {
	physical.Backend
	physical.HABackend
}

func (p polled) Caps() physical.Caps {
	caps := p.Backend.Caps()
	caps.Watch = false
	return caps
}

func (p polled) Close() error { return p.Backend.Close() }

// lockOnly hides that a store keeps entries.
type lockOnly struct{ physical.HABackend }

// opener opens a store that the nodes of a test share, and with a second one keeps the lock in that.
func opener(entries, lock *memory.Store, watch bool) func(context.Context, *config.Config, physical.Host) (physical.Stores, error) {
	return func(context.Context, *config.Config, physical.Host) (physical.Stores, error) {
		h := entries.Open()
		switch {
		case lock != nil:
			return physical.Stores{Storage: h, Lock: lockOnly{lock.Open()}}, nil
		case watch:
			return physical.Stores{Storage: h, Lock: h}, nil
		}
		p := polled{h, h}
		return physical.Stores{Storage: p, Lock: p}, nil
	}
}

// sharedCluster makes n nodes that name a store of their own nobody opens: open decides what they share.
func sharedCluster(t *testing.T, n int, seal, extra string, open func(context.Context, *config.Config, physical.Host) (physical.Stores, error)) []*testNode {
	t.Helper()
	key := filepath.Join(t.TempDir(), "seal.key")
	if err := os.WriteFile(key, bytes.Repeat([]byte{7}, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	if seal == "static" {
		extra += fmt.Sprintf("\nseal \"static\" { key_file = %q }\n", key)
	}
	var nodes []*testNode
	ports := freePorts(t, n)
	// Cluster ports are closed on standbys: on addresses that nobody else connects from, they stay free meanwhile.
	cluster := fmt.Sprintf("127.%d.%d", 64+rand.IntN(128), rand.IntN(256))
	for i := range n {
		node := &testNode{t: t, name: fmt.Sprintf("node-%d", i+1), url: "http://127.0.0.1:" + ports[i], open: open}
		node.configure(fmt.Sprintf(`
node_name = %q
api_addr = %q
cluster_addr = "https://%s.%d:8401"
listener "tcp" {
  address = "127.0.0.1:%s"
  cluster_address = "%s.%d:8401"
  tls_disable = true
}
%s
`, node.name, node.url, cluster, i+1, ports[i], cluster, i+1, extra))
		nodes = append(nodes, node)
	}
	return nodes
}

func (n *testNode) configure(text string) {
	n.t.Helper()
	c, err := config.Parse(n.name+".hcl", []byte(text))
	if err == nil {
		err = c.Complete(config.Source{LookupEnv: func(string) (string, bool) { return "", false }})
	}
	if err != nil {
		n.t.Fatal(err)
	}
	n.config = c
}

// readyAll waits until every node can be sent requests.
func readyAll(t *testing.T, nodes []*testNode) {
	t.Helper()
	for _, n := range nodes {
		eventually(t, n.name+" ready", func() bool { code, _ := n.call("GET", "/v1/sys/ready", "", nil); return code == 200 })
	}
}

// useEverywhere writes and reads through every node, steps down, and does so again (P3, P5).
func useEverywhere(t *testing.T, nodes []*testNode, token string) {
	t.Helper()
	for round := range 2 {
		for i, n := range nodes {
			write := map[string]any{"data": map[string]any{"by": n.name, "round": fmt.Sprint(round)}}
			if code, answer := n.call("POST", fmt.Sprintf("/v1/secret/data/app/%d", i), token, write); code != 200 {
				t.Fatalf("write at %s: %d %v", n.name, code, answer)
			}
		}
		for _, n := range nodes {
			for i := range nodes {
				if code, answer := n.call("GET", fmt.Sprintf("/v1/secret/data/app/%d", i), token, nil); code != 200 || !strings.Contains(fmt.Sprint(answer), fmt.Sprintf("round:%d", round)) {
					t.Fatalf("read at %s: %d %v", n.name, code, answer)
				}
			}
		}
		if round == 0 {
			start := time.Now()
			stepDown(t, nodes[2], token, "10s")
			t.Logf("stepped down in %v", time.Since(start))
		}
	}
}

// Nodes on a store that they share: one is initialised while the others wait, and each opens with the static seal by itself; the
// lock in the same store, watched or polled, or in another one.
func TestSharedStore(t *testing.T) {
	etcd := "storage \"etcd\" {}"
	for name, c := range map[string]struct {
		storage string
		open    func(context.Context, *config.Config, physical.Host) (physical.Stores, error)
	}{
		"watched": {etcd, opener(memory.NewStore(), nil, true)},
		"polled":  {etcd, opener(memory.NewStore(), nil, false)},
		"split":   {etcd + "\nha_storage \"consul\" {}", opener(memory.NewStore(), memory.NewStore(), true)},
	} {
		t.Run(name, func(t *testing.T) {
			nodes := sharedCluster(t, 3, "static", c.storage, c.open)
			for _, n := range nodes {
				n.start()
			}
			initInVain(t, nodes[2]) // it waits for the others' init all the same
			code, answer := nodes[1].call("PUT", "/v1/sys/init", "", map[string]any{})
			if code != 200 {
				t.Fatalf("init: %d %v", code, answer)
			}
			readyAll(t, nodes)
			if code, answer := nodes[0].call("PUT", "/v1/sys/init", "", map[string]any{}); code != 400 {
				t.Errorf("a second init: %d %v", code, answer)
			}
			for _, n := range nodes { // P9: there is nothing but forwarding between these nodes, and it is the active one's
				eventually(t, n.name+"'s cluster port is open if it is active, and only then", func() bool {
					code, _ := n.call("GET", "/v1/sys/active", "", nil)
					conn, err := net.Dial("tcp", strings.TrimPrefix(n.config.ClusterAddr, "https://"))
					if err == nil {
						conn.Close()
					}
					return (err == nil) == (code == 200)
				})
			}
			useEverywhere(t, nodes, answer["root_token"].(string))
		})
	}
}

// Shares open each node by itself, and an operator's shares given to a node that has not noticed the init yet are taken.
func TestSharedStoreWithShares(t *testing.T) {
	nodes := sharedCluster(t, 3, "shamir", `storage "etcd" {}`, opener(memory.NewStore(), nil, true))
	for _, n := range nodes {
		n.start()
	}
	code, answer := nodes[0].call("PUT", "/v1/sys/init", "", map[string]any{"secret_shares": 3, "secret_threshold": 2})
	if code != 200 {
		t.Fatalf("init: %d %v", code, answer)
	}
	keys, token := answer["keys_base64"].([]any), answer["root_token"].(string)
	for _, n := range nodes[1:] {
		for _, key := range keys[:2] {
			if code, answer := n.call("PUT", "/v1/sys/unseal", "", map[string]any{"key": key}); code != 200 {
				t.Fatalf("unseal %s: %d %v", n.name, code, answer)
			}
		}
	}
	readyAll(t, nodes)
	useEverywhere(t, nodes, token)
	if code, answer := nodes[1].call("PUT", "/v1/sys/seal", token, nil); code != 204 {
		t.Fatalf("seal: %d %v", code, answer)
	}
}

// A node that would look for the lock elsewhere does not unseal: it could become active beside another.
func TestLockPlaceIsFixed(t *testing.T) {
	entries, first, second := memory.NewStore(), memory.NewStore(), memory.NewStore()
	nodes := sharedCluster(t, 2, "static", "storage \"postgresql\" { connection_url = \"postgres://db.example.com/locum\" }\nha_storage \"consul\" {}", opener(entries, first, true))
	nodes[0].start()
	if code, answer := nodes[0].call("PUT", "/v1/sys/init", "", map[string]any{}); code != 200 {
		t.Fatalf("init: %d %v", code, answer)
	}
	readyAll(t, nodes[:1])
	nodes[1].config.HAStorage.Type = "redis"
	nodes[1].open = opener(entries, second, true)
	nodes[1].start()
	if code, _ := nodes[1].call("GET", "/v1/sys/health", "", nil); code != 503 {
		t.Errorf("health of a node that is configured for another lock store: %d, want 503 (sealed)", code)
	}
	if over, err := nodes[1].server.awaitOnce(t.Context()); !over || err != nil || nodes[1].server.life.Load() != nil {
		t.Errorf("it goes on: over %v, error %v", over, err)
	}
	if !nodes[1].server.barrier.Sealed() {
		t.Errorf("its barrier is unsealed")
	}
}

// A node that was not ended while operators moved the lock does not become active at the old place again (P2).
func TestLockMovedBehindANode(t *testing.T) {
	entries, lock := memory.NewStore(), memory.NewStore()
	nodes := sharedCluster(t, 1, "static", "storage \"postgresql\" { connection_url = \"postgres://db.example.com/locum\" }\nha_storage \"consul\" {}", opener(entries, lock, true))
	n := nodes[0]
	n.start()
	code, answer := n.call("PUT", "/v1/sys/init", "", map[string]any{})
	if code != 200 {
		t.Fatalf("init: %d %v", code, answer)
	}
	readyAll(t, nodes)
	l := n.server.life.Load().leading.Load()
	if err := l.noteLockPlace(t.Context()); err != nil {
		t.Fatal(err)
	}
	moved, err := json.Marshal(lockPlace{Format: lockPlaceFormat, Place: "redis"})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.server.barrier.View(&l.term.Fence).Commit(t.Context(), physical.Put(keyLockPlace, moved)); err != nil {
		t.Fatal(err)
	}
	if err := l.noteLockPlace(t.Context()); !errors.Is(err, errLockPlace) {
		t.Errorf("a leadership at the old place begins with %v, want a refusal", err)
	}
}

// Who holds the lock for long without an advertisement is another cluster's node; a node that is becoming active is not.
func TestStranger(t *testing.T) {
	start := time.Now()
	var s stranger
	for _, c := range []struct {
		holder, leader string
		after          time.Duration
		want           bool
	}{
		{"x", "", 0, false},
		{"x", "", strangerAfter - 1, false},
		{"x", "", strangerAfter, true},
		{"x", "", strangerAfter + 1, false}, // said just now
		{"x", "", 2 * strangerAfter, true},
		{"y", "x", 3 * strangerAfter, false}, // it has just got it
		{"y", "y", 5 * strangerAfter, false},
		{"y", "x", 6 * strangerAfter, false},
		{"", "x", 9 * strangerAfter, false},
	} {
		if got := s.stays(c.holder, c.leader, start.Add(c.after)); got != c.want {
			t.Errorf("held by %q, led by %q after %v: %v", c.holder, c.leader, c.after, got)
		}
	}
}

// The start-up table says where entries and lock are kept; times that cannot work are refused before anything is served.
func TestSharedStoreAtStart(t *testing.T) {
	start := func(extra string, watch bool) (string, error) {
		lock := memory.NewStore()
		n := sharedCluster(t, 1, "static", extra, opener(memory.NewStore(), lock, watch))[0]
		s, err := New(n.config, Options{Version: "test", Open: n.open, Out: &n.out})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err = s.Run(ctx, context.Background())
		return n.out.String(), err
	}
	split := "storage \"s3\" { bucket = \"locum\" }\nha_storage \"consul\" {}\n"
	table, err := start(split, true)
	for _, want := range []string{
		"  Storage: s3 (HA available)\n", "  HA Storage: consul (HA available)\n", "Storage Fence: every write", "Storage Failover: ", "HA Storage Failover: ",
		"HA Lock: in consul; standbys are woken by watch; TTL 2s (shortest sensible: 100ms)\n",
	} {
		if err != nil || !strings.Contains(table, want) {
			t.Errorf("error %v, %q is not in the start-up table:\n%s", err, want, table)
		}
	}
	if words := lockWords("mysql", physical.Caps{MinTTL: time.Second, DefaultTTL: 5 * time.Second}, 0); words != "in mysql; standbys poll; TTL 5s (shortest sensible: 1s)" {
		t.Errorf("a store that wakes nobody: %q", words)
	}
	if words := keepsWords(physical.Caps{HA: true}); words != "(lock only)" {
		t.Errorf("a store that keeps the lock alone is called %q", words)
	}
	for _, c := range []struct{ ha, want string }{
		{`ha { lock_ttl = "50ms" }`, `ha.lock_ttl is 50ms and "consul" can do no less than 100ms`},
		{`ha { lock_ttl = "16s" }`, `forwarding.hold_timeout is 40s, less than twice the lock's TTL (16s) + 10s`},
	} {
		if _, err := start(split+c.ha, true); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want %q", c.ha, err, c.want)
		}
	}
}

// calls counts what one node asks of its store.
type calls struct {
	*memory.Handle
	n *atomic.Int64
}

func (c calls) Get(ctx context.Context, key string) (*physical.Entry, error) {
	c.n.Add(1)
	return c.Handle.Get(ctx, key)
}

func (c calls) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	c.n.Add(1)
	return c.Handle.List(ctx, prefix, after, limit)
}

func (c calls) Commit(ctx context.Context, fence *physical.Fence, ops ...physical.Op) error {
	c.n.Add(1)
	return c.Handle.Commit(ctx, fence, ops...)
}

// "A forwarded request needs no round trip to the store on the standby": it looks for the advertisement once a second, whatever
// comes through it. And a read of what the active node has in memory needs none there.
func TestForwardingAsksNoStore(t *testing.T) {
	store := memory.NewStore()
	counts := map[string]*atomic.Int64{}
	nodes := sharedCluster(t, 2, "static", `storage "etcd" {}`, nil)
	for _, n := range nodes {
		counts[n.name] = &atomic.Int64{}
		n.open = func(context.Context, *config.Config, physical.Host) (physical.Stores, error) {
			h := calls{store.Open(), counts[n.name]}
			return physical.Stores{Storage: h, Lock: h}, nil
		}
		n.start()
	}
	_, answer := nodes[0].call("PUT", "/v1/sys/init", "", map[string]any{})
	token := answer["root_token"].(string)
	readyAll(t, nodes)
	active, standby := nodes[0], nodes[1]
	if code, _ := active.call("GET", "/v1/sys/active", "", nil); code != 200 {
		active, standby = standby, active
	}
	write := map[string]any{"data": map[string]any{"a": "b"}}
	if code, answer := standby.call("POST", "/v1/secret/data/app", token, write); code != 200 {
		t.Fatalf("write: %d %v", code, answer)
	}
	standby.call("GET", "/v1/secret/data/app", token, nil)
	start, atStandby, atActive := time.Now(), counts[standby.name].Load(), counts[active.name].Load()
	const requests = 200
	for range requests {
		if code, answer := standby.call("GET", "/v1/secret/data/app", token, nil); code != 200 {
			t.Fatalf("read: %d %v", code, answer)
		}
	}
	seconds := int64(time.Since(start)/time.Second) + 2
	if n := counts[standby.name].Load() - atStandby; n > 2*seconds {
		t.Errorf("%d requests through a standby cost it %d calls of the store in %d s", requests, n, seconds)
	}
	if n := counts[active.name].Load() - atActive; n > requests/10+2*seconds {
		t.Errorf("%d reads of what the active node knows cost it %d calls of the store", requests, n)
	}
}
