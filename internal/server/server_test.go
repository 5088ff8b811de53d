package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/api"
	"github.com/locum-ha/locum/internal/config"
	"github.com/locum-ha/locum/internal/stores"
	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical"
)

// testNode is one node in this process.
type testNode struct {
	t      testing.TB
	name   string
	url    string
	quiet  bool
	config *config.Config
	open   func(context.Context, *config.Config, physical.Host) (physical.Stores, error) // default: stores.Open
	out    bytes.Buffer                                                                  // the start-up table
	server *Server
	stop   context.CancelFunc
	done   chan error
}

// testCluster makes the configurations of n nodes; none is started. Raft's times are three times as long as by default: what a busy
// machine does must not look like a leader's end.
func testCluster(t testing.TB, n int) []*testNode {
	t.Helper()
	dir := t.TempDir()
	key := filepath.Join(dir, "seal.key")
	if err := os.WriteFile(key, bytes.Repeat([]byte{7}, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	var nodes []*testNode
	var join strings.Builder
	ports := freePorts(t, 2*n)
	for i := range n {
		url := "http://127.0.0.1:" + ports[2*i]
		fmt.Fprintf(&join, "  retry_join { leader_api_addr = %q }\n", url)
		nodes = append(nodes, &testNode{t: t, name: fmt.Sprintf("node-%d", i+1), url: url})
	}
	for i, node := range nodes {
		text := fmt.Sprintf(`
node_name = %q
api_addr = %q
cluster_addr = "https://127.0.0.1:%s"
listener "tcp" {
  address = "127.0.0.1:%s"
  cluster_address = "127.0.0.1:%s"
  tls_disable = true
}
storage "raft" {
  path = %q
  performance = 3
%s}
seal "static" { key_file = %q }
telemetry { unauthenticated_metrics_access = true }
`, node.name, node.url, ports[2*i+1], ports[2*i], ports[2*i+1], filepath.Join(dir, node.name), join.String(), key)
		c, err := config.Parse(node.name+".hcl", []byte(text))
		if err == nil {
			err = c.Complete(config.Source{LookupEnv: func(string) (string, bool) { return "", false }})
		}
		if err != nil {
			t.Fatal(err)
		}
		node.config = c
	}
	return nodes
}

func freePorts(t testing.TB, n int) []string {
	t.Helper()
	var ports []string
	for range n {
		ports = append(ports, strconv.Itoa(storeserver.FreePort(t)))
	}
	return ports
}

// start runs the node until the test ends, or stop.
func (n *testNode) start() {
	n.t.Helper()
	logger := slog.New(slog.NewTextHandler(&testLog{n.t}, &slog.HandlerOptions{Level: slog.LevelInfo})).With("node", n.name)
	if n.quiet {
		logger = nil
	}
	ready := make(chan struct{})
	open := n.open
	if open == nil {
		open = stores.Open
	}
	s, err := New(n.config, Options{Version: "test", Open: open, Out: &n.out, Logger: logger, Ready: func() { close(ready) }})
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.server, n.stop, n.done = s, cancel, make(chan error, 1)
	go func() { n.done <- s.Run(ctx, context.Background()) }()
	n.t.Cleanup(func() { n.end() })
	select {
	case <-ready:
	case err := <-n.done:
		n.t.Fatal(err)
	}
}

// end stops the node as SIGTERM does.
func (n *testNode) end() {
	if n.stop == nil {
		return
	}
	n.stop()
	n.stop = nil
	if err := <-n.done; err != nil {
		n.t.Errorf("%s: %v", n.name, err)
	}
}

type testLog struct{ t testing.TB }

func (l *testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s %s", time.Now().Format("05.000"), bytes.TrimRight(p, "\n"))
	return len(p), nil
}

// call sends one request and decodes the answer.
func (n *testNode) call(method, path, token string, body any) (int, map[string]any) {
	n.t.Helper()
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			n.t.Fatal(err)
		}
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequest(method, n.url+path, reader)
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer map[string]any
	data, _ := io.ReadAll(resp.Body)
	json.Unmarshal(data, &answer)
	return resp.StatusCode, answer
}

// eventually waits until check holds.
func eventually(t testing.TB, what string, check func() bool) {
	t.Helper()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !check() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("not after 20 s: %s", what)
		}
	}
}

// initInVain asks for what a node refuses.
func initInVain(t *testing.T, n *testNode) {
	t.Helper()
	code, answer := n.call("PUT", "/v1/sys/init", "", map[string]any{"recovery_shares": 1, "recovery_threshold": 1})
	if code != 400 {
		t.Fatalf("init with recovery shares at %s: %d %v", n.name, code, answer)
	}
}

// The thin thread through everything: init, join, write through a standby, read elsewhere, step down, read again (P3, P5).
func TestClusterEndToEnd(t *testing.T) {
	nodes := testCluster(t, 3)
	for _, n := range nodes {
		n.start()
	}
	for _, want := range []string{"Storage: raft (HA available)", "Cluster Address: " + nodes[0].config.ClusterAddr, "Listener 1: tcp (addr: ", "Version: test", "Seal: static"} {
		if !strings.Contains(nodes[0].out.String(), want) {
			t.Errorf("the start-up table lacks %q:\n%s", want, nodes[0].out.String())
		}
	}
	// Requests that fail do not end what a node does by itself: it goes on to join by its retry_join.
	if code, answer := nodes[1].call("POST", "/v1/sys/storage/raft/join", "", map[string]any{"leader_api_addr": "http://127.0.0.1:1"}); code/100 == 2 {
		t.Fatalf("joined nobody: %d %v", code, answer)
	}
	initInVain(t, nodes[2])
	code, answer := nodes[0].call("PUT", "/v1/sys/init", "", map[string]any{})
	if code != 200 {
		t.Fatalf("init: %d %v", code, answer)
	}
	token := answer["root_token"].(string)
	for _, n := range nodes {
		eventually(t, n.name+" ready", func() bool { code, _ := n.call("GET", "/v1/sys/ready", "", nil); return code == 200 })
	}
	write := map[string]any{"data": map[string]any{"greeting": "hello"}}
	if code, answer := nodes[1].call("POST", "/v1/secret/data/app", token, write); code != 200 {
		t.Fatalf("write through a standby: %d %v", code, answer)
	}
	for _, n := range nodes {
		code, answer := n.call("GET", "/v1/secret/data/app", token, nil)
		if code != 200 {
			t.Fatalf("read at %s: %d %v", n.name, code, answer)
		}
	}
	voters(t, nodes[0], token, 3)
	// Interfaces §4: "with wait, 200 and the new active node". Vault's clients write a duration also as a number of seconds.
	answer = stepDown(t, nodes[2], token, 10)
	if got := slices.Sorted(maps.Keys(answer)); answer["term"].(float64) < 2 ||
		!slices.Equal(got, []string{"leader_address", "leader_cluster_address", "node", "node_id", "term"}) {
		t.Fatalf("step-down: %v", answer)
	}
	for _, n := range nodes {
		if code, answer := n.call("GET", "/v1/secret/data/app", token, nil); code != 200 {
			t.Fatalf("read at %s after the step-down: %d %v", n.name, code, answer)
		}
	}
	if code, answer := nodes[0].call("GET", "/v1/sys/ha-status", token, nil); code != 200 || len(answer["nodes"].([]any)) != 3 {
		t.Fatalf("ha-status: %d %v", code, answer)
	}
	list := history(t, nodes[0], token)
	if len(list) != 2 || list[0].Node != answer["node"] || list[0].To != nil || list[0].Term != uint64(answer["term"].(float64)) {
		t.Errorf("the leadership that goes on: %+v", list)
	}
	if past := list[len(list)-1]; past.Node != nodes[0].name || past.To == nil || past.Reason != "stepped down" || past.To.Before(past.From) {
		t.Errorf("the one that is over: %+v", past)
	}
	switchovers(t, nodes, token)
	measures(t, nodes)
}

// switchovers steps down again and again, while each node is read from without a pause: no request fails (P5).
func switchovers(t *testing.T, nodes []*testNode, token string) {
	t.Helper()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	put(t, nodes[0], token, "a", "1")
	for _, n := range nodes {
		wg.Go(func() { readUntil(t, stop, n, token) })
	}
	for range 5 {
		start := time.Now()
		stepDown(t, nodes[2], token, "10s")
		t.Logf("stepped down in %v", time.Since(start))
	}
	close(stop)
	wg.Wait()
}

// stepDown asks n for a step-down and waits for the next active node. A node that has just become active refuses for as long as it
// has not heard from another.
func stepDown(t *testing.T, n *testNode, token string, wait any) (answer map[string]any) {
	t.Helper()
	eventually(t, "step-down", func() bool {
		var code int
		code, answer = n.call("POST", "/v1/sys/step-down", token, map[string]any{"wait": wait})
		if code != 200 && !strings.Contains(fmt.Sprint(answer), "no other node could take over now") {
			t.Fatalf("step-down: %d %v", code, answer)
		}
		return code == 200
	})
	return answer
}

// history reads sys/history.
func history(t *testing.T, n *testNode, token string) []api.Leadership {
	t.Helper()
	var answer struct {
		Data struct {
			Leaderships []api.Leadership `json:"leaderships"`
		} `json:"data"`
	}
	if err := json.Unmarshal(n.raw("GET", "/v1/sys/history", token, nil, 200), &answer); err != nil || len(answer.Data.Leaderships) == 0 {
		t.Fatalf("history: %v %+v", err, answer)
	}
	return answer.Data.Leaderships
}

// raw sends bytes and returns bytes.
func (n *testNode) raw(method, path, token string, body []byte, want int) []byte {
	n.t.Helper()
	req, err := http.NewRequest(method, n.url+path, bytes.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != want {
		n.t.Fatalf("%s %s at %s: %d %v %.200s", method, path, n.name, resp.StatusCode, err, data)
	}
	return data
}
