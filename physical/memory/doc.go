// Package memory is a data store in the memory of one process: entries, fence and HA lock. Its storage
// name is "inmem". Nothing outlives the process; it is for tests, for trying things out, and it is the
// model that the other stores are read against: the shortest code that keeps every promise of package
// physical.
//
// A [Store] is the store itself, a [Handle] one node's way to it. Any number of handles can be open on one
// store, so that a test has as many nodes as it wishes; closing a handle leaves the store as it is.
//
//	store := memory.NewStore()
//	a, b := store.Open(), store.Open() // two nodes
//
// # Design
//
// One mutex guards everything, so each method is one step, and there is no goroutine: a lock runs out
// because everybody who looks compares its deadline with the clock first. Watchers wait on a channel that
// is closed at each change of the lock's record, and on a timer for its deadline.
//
// The term is kept apart from the lock and only ever counted up; that is all it takes for terms to rise
// over release and expiry.
package memory
