// Package postgres is a data store in PostgreSQL 12 or later: entries, fence and HA lock. Its storage name is
// "postgresql". Standbys are woken by LISTEN/NOTIFY.
//
// # Design
//
// Whatever changes something is one call of a function in the database (schema.go), so one statement for the
// client: no lock is held while the server waits for a client that may be frozen. The functions are made
// along with the tables and carry a version in their names, so that nodes of two versions can share a database.
//
// *The fence* (P1). A commit takes an advisory lock in shared mode, then reads the fence, then writes; a raise
// takes the same lock in exclusive mode. All live until the end of the statement's transaction. So a commit that has
// seen the old fence is done before the raise is, and one that comes after the raise sees the new one: in a function that is
// VOLATILE, under READ COMMITTED, each query sees what was committed before it began. The function refuses to run
// under another isolation level. Advisory locks live in memory; row locks of many sharers on one row would be written to it.
//
// *Conditions.* Each key that a commit names is locked by its hash, in ascending order, so that no two commits deadlock and what
// was checked still holds when it is written, for entries that are not there too. A commit of very many keys takes the fence's
// lock in exclusive mode instead, which keeps the server's lock table small.
//
// *Group commit* (package grouped, batch.go). Commits that wait while others are on their way go together in one call, each
// with its own conditions and result. They share the round trip, the planner and the sync of the log. There is no timer.
//
// *A session that blocks.* A client that dies between two packets of one call can leave a session that holds the
// locks and waits for the rest. A raise waits for a second, then ends the sessions that have held them for longer. The calls on
// the lock are sent as one packet and cannot be cut in the middle.
//
// *The lock's expiry* is on the database's clock, together with the identity of the server process that read it. After a
// failover of the database, or its restart, that clock is another one: then the challenger must have seen the row
// unchanged for a full TTL on its own clock.
package postgres
