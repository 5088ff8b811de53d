// Package mysql is a data store in MySQL 8.0 or later, or MariaDB 10.6 or later: entries, fence and HA lock. Its storage name is
// "mysql". Standbys poll the lock: the server cannot wake them.
//
// # Design
//
// A commit is several statements in one packet, under READ COMMITTED (commit.go): lock the names, share the fence's row,
// decide, write, commit. The server carries them out without waiting for the client in between, so that no lock on the fence
// spans a round trip. If a statement fails, those behind it are not carried out, and the client gives the connection up.
//
// Commits that wait while others are on their way go together in one packet (package grouped), each with its own conditions and result.
// The packet takes it that all conditions hold, and writes all rows in two statements, those that must not be there yet in one; if one does not hold, a statement fails,
// nothing is written, and a second packet has each commit decided by itself.
//
// *The fence* (P1). A commit holds its row shared until it is committed, and decides by what it reads after it has got it. A
// raise writes the row, so it waits for the commits that have seen the old fence, and those that come later see the new
// one. A session that blocks a raise for more than a second, a client frozen in the middle of an error say, is ended.
//
// *Conditions.* Each key that a commit names stands for a row of a table of locks, by its hash; the rows are locked in ascending
// order. So no two commits deadlock on them, and what was checked still holds when it is written, for entries that are not
// there too. InnoDB's own locks on gaps would do the same, but any two that create entries side by side would deadlock.
//
// *Keys* are VARBINARY, so that they are equal and sorted by their bytes whatever the server's collations.
//
// *The lock's expiry* is on the server's clock, together with the server's name. After a failover that clock is
// another one: then the challenger must have seen the row unchanged for a full TTL on its own clock.
//
// *Several writable servers* (Galera, group replication in multi-primary mode) do not see each other's row locks, and so
// cannot keep P1. Such a server is refused, unless Config.SingleWriter says that all nodes reach the same one.
package mysql
