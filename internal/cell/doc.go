// Package cell makes the HA lock of a store that offers no more than one small value swapped by its version:
// an object of S3, an item of DynamoDB, a Lease of Kubernetes, a key of NATS. It is for data stores alone.
//
// Such a store has no clock that would end a lock. So the holder writes at each renewal, and whoever wants the lock must have
// seen the value unchanged for a full TTL on its own clock (CLOCK_BOOTTIME, P4) before it swaps the value for its own.
//
// # Design
//
// Everything is one read or one conditional write. A value never returns to what it was: it carries the nonce of its grant
// and a counter of renewals, so that a version made from the contents (an ETag) is never met twice. The value is never deleted:
// a lock that is free is a value without a holder, in which the last term stays.
//
// A challenger counts from the instant at which the answer of its first look had arrived to the one at which it sent the last.
// A holder counts from before it sent its renewal. So the holder's time is over first, and Renew says ErrLost from then on
// without asking anybody.
package cell
