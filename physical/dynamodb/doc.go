// Package dynamodb keeps the HA lock in one item of a DynamoDB table. It keeps no entries: beside it, another store is storage.
//
//	lock, err := dynamodb.Open(ctx, dynamodb.Config{Table: "locum", Key: "orders"})
//
// # DESIGN
//
// The item holds the lock's record and a version number. It is read consistently, and replaced by PutItem on the condition that
// the version is still the one that was read; DynamoDB's own time to live deletes hours late and is not used. Nothing in
// DynamoDB ends a lock: whoever wants it must have seen the item unchanged for a full TTL on its own clock (package internal/cell). A
// renewal is a read and a write; a standby that polls reads.
//
// The table is made, on demand capacity, if it is not there and the credentials allow that.
package dynamodb
