// Package cache is a replicated in-memory cache: values that live on every node and survive the loss of any
// minority of them, without a disk. It can be used without the rest of Locum.
//
//	node, err := cache.New(cache.Config{
//		Hosts:     []string{"app-0.app:8402", "app-1.app:8402", "app-2.app:8402"},
//		Self:      "app-1.app:8402",
//		AuthToken: cache.Secret(os.Getenv("CACHE_AUTH_TOKEN")),
//	})
//	go node.Run(ctx)
//	codes := node.Cache("auth-codes")
//	_, err = codes.Put(ctx, code, session, time.Minute, cache.Quorum)
//	item, err := codes.Take(ctx, code) // of all who try, on all nodes, one gets it
//
// # DESIGN
//
// All writes go through one raft log that lies in memory, to the leader, many in one entry. The state is a
// function of the log alone: the leader stamps its time into each entry, and expiry, eviction and versions
// follow from that, so they are the same on every node. A write is acknowledged when a majority of the
// configured hosts has applied it; the lower levels answer earlier, from the log (see [Level]).
//
// A process that ends takes its vote and its log with it. So each start is a new incarnation with an identity
// of its own, that joins without a vote, receives the state, and only then votes; messages meant for another
// identity are refused. How a cluster forms, and what a node does that lost the others, is a pure function
// (step in formation.go) that is simulated by the ten thousands. See docs/adr/0018.
//
// A node that is not in contact with a leader that has a majority of the hosts empties itself and refuses
// (P11). It is then a new incarnation.
package cache
