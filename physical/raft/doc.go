// Package raft is the embedded data store: entries, fence and HA lock on a replicated log, with nothing
// else to install. It stands on hashicorp/raft and bbolt.
//
//	store, err := raft.Open(raft.Config{Path: dir, Advertise: "10.0.0.1:8401", Logger: logger})
//	err = store.Bootstrap()     // on the first node of a new cluster only
//	err = store.Start(layer)    // take part; layer reaches the other nodes over mutual TLS
//	…                           // physical.Backend, HABackend, Watcher, Yielder
//	err = store.Close()
//
// Open runs no raft: a sealed node reads its own copy of the entries (it needs the keyring to unseal) and
// takes part only after Start.
//
// # DESIGN
//
// The log is the truth, the state is a cache of it. Log entries are synced to disk before they are
// acknowledged. The state (entries, fence, lock) is a second file that is never synced while it runs; it
// names the log index that it has reached, so that a process crash costs nothing, and after a power loss
// it is built again from the newest snapshot and the log.
//
// One log entry carries all commits that were waiting when it was made, each with its own fence,
// conditions and result. So writers share the two syncs of an entry and its trip over the network, and no
// timer delays the only writer there is.
//
// The lock is leadership plus a committed record that gives the term. Its lease rests on what the nodes
// promised: each answer to a leader's heartbeat is a promise to vote for nobody else for one heartbeat
// timeout. The gate (gate.go) makes that promise hold where raft alone does not: across the heartbeat's
// fast path, across restarts, and when leadership is handed over.
//
// A node is its data directory: the identity is made with it. An emptied node is a new one, and messages
// meant for the old one do not reach it.
package raft
