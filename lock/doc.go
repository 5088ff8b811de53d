// Package lock keeps named locks for the cluster's users: one holder at a time, for a TTL that the holder renews, and with
// every change of hands a higher number, which the holder passes on to whatever the lock protects (a fencing token).
//
//	m := lock.New(view, lock.Config{})
//	grant, err := m.Acquire(ctx, lock.Request{Name: "report", Holder: "host-7", Secret: secret, TTL: 10 * time.Second})
//	grant, err = m.Renew(ctx, "report", secret)
//	err = m.Release(ctx, "report", secret)
//
// A [Manager] works for one leadership, on the active node. A lock survives the failover of that node: whoever holds it goes
// on renewing it with the next one.
//
// # Stored formats
//
//	core/lock/<name>     format, number, holder, the secret's SHA-256, TTL (JSON); the name is escaped as in a URL
//	core/lock-floor      a number that no removed lock had more than (JSON)
//
// # Design
//
// Who holds a lock is stored, fenced by the term; until when is not: the deadline lies in the memory of the active node, on
// CLOCK_BOOTTIME. So a renewal writes nothing, and no two hosts' clocks are compared (P4). The next active node gives every
// holder a full TTL from the beginning of its own term: all renewals that the last one granted came before that.
//
// The holder must measure its own time from the instant before it asked, as a node does with the HA lock. An answer that is
// given from memory is good only while the node's lease is: whoever calls a Manager asks the lease after the call and before
// the answer leaves, as package forward does for every request.
//
// A request is made under a secret that the caller chose, so that it can be repeated: who holds the lock already gets its
// grant again, with the same number. A lock that was free for an hour is removed, and the floor raised to its
// number in the same commit: so numbers rise for ever, and nothing gathers (P12).
package lock
