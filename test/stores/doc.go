// Package stores holds clusters of real node processes against real data stores: [Site] is a store with a proxy before it for
// each node and one before each node's cluster port, so that a node can be cut off from the store alone or from the other nodes
// alone. Its tests put a load on all nodes and do to them, and to the store, what happens to them, and check that one order of
// all operations explains every answer (P1, P3, P4, P6). The benchmarks use the same sites.
//
// A store whose server is not installed is a skip with its reason, and a failure where LOCUM_NO_SKIP is set.
package stores
