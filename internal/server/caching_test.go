package server

import (
	"testing"

	"github.com/locum-ha/locum/cache"
	"github.com/locum-ha/locum/internal/config"
)

// TestCacheOfMembers: with a cache block and no hosts in it, the cache's hosts are the cluster's members, over the cluster port and
// with the cluster's identities (issue "Security"); a node that is sealed has none of it (P11).
func TestCacheOfMembers(t *testing.T) {
	nodes := testCluster(t, 3)
	for _, n := range nodes {
		n.config.Cache = config.DefaultCache()
		n.config.Cache.On, n.config.Cache.RESPAddress = true, ""
		n.start()
	}
	code, answer := nodes[0].call("PUT", "/v1/sys/init", "", map[string]any{})
	if code != 200 {
		t.Fatalf("init: %d %v", code, answer)
	}
	token := answer["root_token"].(string)
	for _, n := range nodes {
		eventually(t, n.name+"'s cache of three hosts", func() bool {
			h := n.server.cache.node.Health()
			return h.Status == cache.Good && len(h.Hosts) == 3
		})
	}
	if _, err := nodes[0].server.cache.node.Cache("c").Put(t.Context(), "k", []byte("v"), cache.NoExpiry, cache.Quorum); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if item, err := n.server.cache.node.Cache("c").Get(t.Context(), "k", cache.Consistent); err != nil || string(item.Value) != "v" {
			t.Fatalf("%s: %q, %v", n.name, item.Value, err)
		}
	}
	if code, answer := nodes[0].call("PUT", "/v1/sys/seal", token, nil); code != 204 && code != 200 {
		t.Fatalf("seal: %d %v", code, answer)
	}
	var left *testNode // it is the active node that was sealed
	eventually(t, "the sealed node's cache to be empty", func() bool {
		empty := 0
		for _, n := range nodes {
			if n.server.cache.node.Health().Status == cache.Bad {
				empty++
			} else {
				left = n
			}
		}
		return empty == 1
	})
	if _, err := left.server.cache.node.Cache("c").Put(t.Context(), "k", []byte("v2"), cache.NoExpiry, cache.Quorum); err != nil {
		t.Fatalf("the others go on: %v", err)
	}
}
