// Package nats keeps the HA lock in a key-value bucket of NATS JetStream, on servers of 2.6.2 or later. It keeps no entries: its
// storage name, "nats", stands in ha_storage alone. Standbys are woken by the bucket's own stream.
//
// # Design
//
// The lock is one key, swapped by its revision: package cell has the protocol. JetStream writes through Raft, so a swap that was
// acknowledged holds on a majority of the bucket's replicas.
//
// A lock's time is measured by who wants it, not by the server. NATS could expire keys: all keys of a
// bucket after one fixed time, or from 2.11 on each after its own. But the first would forget the term along with the
// lock, the second is missing on servers in use, and both compare a time-stamp of one server with the clock of whichever
// leads the stream next. A challenger that has seen the revision unchanged for a full TTL on its own boot clock needs neither. It costs a
// node that has just started one TTL of watching; a standby has watched all along.
//
// Reads go to the leader of the stream. The bucket is made without "allow direct", with which any replica may answer,
// and answer with what was.
package nats
