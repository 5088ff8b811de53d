// Package redis keeps the HA lock in Redis 6.2 or later, or a server that speaks its protocol. It keeps no entries: its storage
// name, "redis", stands in ha_storage alone. Standbys are woken by publish/subscribe.
//
// Redis replicates asynchronously: a failover to a replica can lose the lock, or a renewal of it, although it was
// acknowledged, and then two nodes may hold it. Two things bear that. The fence lies in storage, which is another
// store, so writes of the one that lost are refused there (P1); and the term given next is above the
// fence's, because every attempt on the lock names it. What is at stake is P2 and P4 for up to one TTL. WAIT (Config.WaitReplicas)
// makes it less likely and not impossible.
//
// # Design
//
// The lock is a hash that expires, on the server's clock; beside it a hash that does not, with the last term and the chosen
// successor. Their names share a hash tag, so that a cluster keeps both in one slot. Each method is one Lua script,
// which Redis carries out as one step.
//
// The library heeds deadlines but not cancellation. So each call runs in a goroutine that its caller may leave; the
// store waits for them all when it is closed, after it has closed their connections.
package redis
