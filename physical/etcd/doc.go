// Package etcd keeps entries, fence and HA lock in etcd, version 3.4 or later. Its storage name is "etcd".
//
//	store, err := etcd.Open(ctx, etcd.Config{Endpoints: []string{"http://10.0.0.1:2379"}})
//
// # Design
//
// Everything lies below one path, "locum/" unless configured:
//
//	locum/e/KEY        an entry
//	locum/fence        the fence, as JSON; its bytes are compared
//	locum/lock/holder  the record of the holder, attached to its lease: it goes when the lease does
//	locum/lock/term    the last term given and the successor named, which nothing removes
//
// A commit is one transaction of etcd: its comparisons are the fence and the conditions, so the check of the fence and the
// writes are one step (P1). Reads are linearizable, etcd's default.
//
// The lock is a lease of etcd. A lease is counted by etcd's leader on its own clock, and counted anew from its full
// length when the leader changes, so it never ends early. There is one trap: a leader that was deposed and does not know
// it yet also answers to a keep-alive, and that answer is worth nothing. So a renewal is followed by a linearizable read
// of the lock, which the deposed leader cannot answer, and counts only if both came from the same term of etcd's.
package etcd
