package server

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/config"
)

// "cache { hosts absent in a full cluster: its members, on the cluster port }": the cache of three nodes forms by itself, grows with the
// cluster, is reached through any node, and keeps what it acknowledged when the active node ends (P11).
func TestMemberCache(t *testing.T) {
	nodes := testCluster(t, 3)
	for _, n := range nodes {
		n.config.Cache = config.DefaultCache()
		n.config.Cache.On, n.config.Cache.RESPAddress = true, ""
	}
	nodes[0].start()
	_, answer := nodes[0].call("PUT", "/v1/sys/init", "", map[string]any{})
	token, _ := answer["root_token"].(string)
	serves := func(n *testNode, hosts int) func() bool {
		return func() bool {
			code, answer := n.call("GET", "/v1/sys/cache", "", nil)
			list, _ := answer["hosts"].([]any)
			return code == 200 && answer["status"] == "good" && len(list) == hosts
		}
	}
	eventually(t, "a cache of one host", serves(nodes[0], 1))
	nodes[0].raw("PUT", "/v1/cache/codes/early", token, []byte("bird"), 204)
	nodes[1].start()
	nodes[2].start()
	for _, n := range nodes {
		eventually(t, n.name+" is one of three", serves(n, 3))
	}
	if got := nodes[2].raw("GET", "/v1/cache/codes/early?consistent", token, nil, 200); string(got) != "bird" {
		t.Errorf("what was written before the cluster grew is %q", got)
	}
	for i, n := range nodes {
		n.raw("PUT", fmt.Sprintf("/v1/cache/codes/%d", i), token, []byte("x"), 204)
	}
	eventually(t, "the metrics count four entries", func() bool { // a quorum need not be this node
		return strings.Contains(string(nodes[1].raw("GET", "/v1/sys/metrics", "", nil, 200)), `locum_cache_entries{cache="codes"} 4`)
	})
	if code, _ := nodes[0].call("GET", "/v1/cache/codes/1", "hvs.nobody", nil); code != 403 {
		t.Errorf("with a foreign token: %d", code)
	}

	var active *testNode
	for _, n := range nodes {
		if code, _ := n.call("GET", "/v1/sys/active", "", nil); code == 200 {
			active = n
		}
	}
	if active == nil {
		t.Fatal("no node is active")
	}
	voters(t, active, token, 3) // until then it cannot be spared
	active.end()
	for _, n := range nodes {
		if n == active {
			continue
		}
		eventually(t, n.name+" serves the entries again", func() bool {
			code, _ := n.call("GET", "/v1/cache/codes/0", token, nil)
			return code == 200
		})
		for i := range 3 {
			n.raw("GET", fmt.Sprintf("/v1/cache/codes/%d?consistent", i), token, nil, 200)
		}
	}
}

// TestCacheAlone: a node that is no member of a cluster has a cache of its own, with its server for Redis clients.
func TestCacheAlone(t *testing.T) {
	n := testCluster(t, 1)[0]
	n.config.Storage = config.NewStorage("inmem")
	n.config.Cache = config.DefaultCache()
	n.config.Cache.On, n.config.Cache.RESPAddress = true, "127.0.0.1:"+freePorts(t, 1)[0]
	n.start()
	_, answer := n.call("PUT", "/v1/sys/init", "", map[string]any{})
	token, _ := answer["root_token"].(string)
	eventually(t, "active", func() bool { code, _ := n.call("GET", "/v1/sys/active", "", nil); return code == 200 })
	n.raw("PUT", "/v1/cache/default/greeting", token, []byte("hello"), 204)
	conn, err := net.DialTimeout("tcp", n.config.Cache.RESPAddress, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET greeting\r\n")); err != nil {
		t.Fatal(err)
	}
	answered := make([]byte, len("$5\r\nhello\r\n"))
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(conn, answered); err != nil || string(answered) != "$5\r\nhello\r\n" {
		t.Errorf("%q %v", answered, err)
	}
	if !strings.Contains(n.out.String(), "Cache Clients: RESP on "+n.config.Cache.RESPAddress) {
		t.Errorf("start-up table:\n%s", n.out.String())
	}
}
