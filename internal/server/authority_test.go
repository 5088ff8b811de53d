package server

import (
	"testing"
)

// P9: the cluster authority is replaced with overlap: no node is left behind, not even one that was down meanwhile.
func TestAuthorityRotates(t *testing.T) {
	nodes, token := runCluster(t, 3)
	before := nodes[0].server.identity.Load().Ring().Minting()
	nodes[2].end()
	if code, answer := nodes[0].call("POST", "/v1/sys/rotate", token, nil); code/100 != 2 {
		t.Fatalf("rotate: %d %v", code, answer)
	}
	eventually(t, "two nodes trust both authorities", func() bool {
		return nodes[0].server.identity.Load().Ring().Len() == 2 && nodes[1].server.identity.Load().Ring().Len() == 2
	})
	nodes[2].start() // the rotation waited for it
	ready(t, nodes[2])
	eventually(t, "all nodes show leaves of the new authority alone", func() bool {
		for _, n := range nodes {
			ring := n.server.identity.Load().Ring()
			if ring.Len() != 1 || ring.Minting().Equal(before) {
				return false
			}
		}
		return true
	})
	nodes[1].end()
	nodes[1].start()
	ready(t, nodes...)
	put(t, nodes[1], token, "a", "1")
	expect(t, nodes[2], token, "a", "1")
}

// An authority that is old is replaced by itself, once every member is there.
func TestOldAuthorityRotatesByItself(t *testing.T) {
	nodes, _ := runCluster(t, 2)
	before := nodes[0].server.identity.Load().Ring().Minting()
	for _, n := range nodes {
		n.server.authorityAge.Store(1)
	}
	eventually(t, "leaves are of another authority", func() bool {
		for _, n := range nodes {
			if ring := n.server.identity.Load().Ring(); ring.Minting().Equal(before) {
				return false
			}
		}
		return true
	})
}
