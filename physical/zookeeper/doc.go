// Package zookeeper keeps entries, fence and HA lock in ZooKeeper, version 3.5 or later. Its storage name is "zookeeper".
//
//	store, err := zookeeper.Open(ctx, zookeeper.Config{Servers: []string{"10.0.0.1:2181", "10.0.0.2:2181"}})
//
// # Design
//
// Everything lies below one node, /locum unless configured:
//
//	/locum/e/+FOLDER/=NAME  an entry; a folder's node is there as long as it has children
//	/locum/deletes          its version rises with every entry that is deleted
//	/locum/fence            the fence, as JSON, to be read
//	/locum/fence/…          one node, named "none" or by the hash of the fence, to be compared
//	/locum/lock/term        the last term given and the successor named; nothing removes it
//	/locum/lock/holder      the record of the holder, ephemeral: it goes when the holder's session does
//
// A commit is one multi of ZooKeeper's, and begins with a check that the fence's node is there (P1). A multi cannot put
// whether a node is there or not, nor say that one must not be there, nor compare data. So a commit reads first and then
// asserts in the multi all that it has read: a node that is there is set or checked, one that is not is created (and
// deleted again where only its absence is wanted); what has changed meanwhile makes the multi fail, and the commit
// reads anew. A version alone would not show that a node was deleted and made anew with another value: so a condition on
// a value also checks that nothing was deleted.
//
// Reads are preceded by a sync in the same packet, so that they are current whichever server answers.
//
// The lock is a session of ZooKeeper's that belongs to one grant. No connection is kept for it and nothing pings: a renewal
// attaches to the session anew (its number and password are the grant's token, so every process that has the grant can),
// which makes the leader count its time-out anew, and commits a transaction, which shows that the leader still is one.
// An ordinary ping shows neither: the server that is asked answers it by itself and tells the leader later.
//
// It speaks ZooKeeper's protocol by itself, since the Go library ties a lock to the life of its connection and takes no
// contexts (docs/adr/0008-own-clients.md).
package zookeeper
