// Package consul keeps entries, fence and HA lock in Consul's key-value store. Its storage name is "consul".
//
//	store, err := consul.Open(ctx, consul.Config{Address: "127.0.0.1:8500", Token: token})
//
// # Design
//
// Everything lies below one path, "locum/" unless configured:
//
//	locum/e/KEY      an entry
//	locum/fence      the fence, as JSON, to be read
//	locum/fence-is/… one empty entry, named by the hash of the fence, to be compared
//	locum/lock       the record of the lock, locked by the holder's session; it stays when the lock goes, with the term
//
// A transaction of Consul cannot compare values, but it fails if an entry that it gets is not there. So the fence is an
// entry's name: a commit begins with a get of it, in the same transaction as its writes (P1), and a raise removes the one
// and makes the other. A condition on a value is read first, and its index is checked in the transaction.
//
// The lock is a session of Consul's without lock-delay, because writes are fenced, and without health checks: those
// would end it before its TTL. Consul's servers let a session live for up to twice its TTL, and take none below their
// session_ttl_min, 10 s unless configured. That factor also covers a renewal that was answered by a server which had
// been deposed as leader and did not know: its successor counts the session anew, twice the TTL long.
//
// It speaks to Consul's HTTP API by itself, since the official library cannot ask for a lock-delay of zero and hides what
// tells a refusal from an unknown outcome (docs/adr/0008-own-clients.md).
package consul
