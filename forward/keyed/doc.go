// Package keyed carries requests with an Idempotency-Key out once
// (draft-ietf-httpapi-idempotency-key-header): it stands on the active node between a forward.Router and the application.
//
// Before a request is delivered, the intent is committed: its key, and a fingerprint of the request and of who asks. Before its
// answer is sent, that is committed. The same request again gets the stored answer, from whichever node is active by then.
//
//	while it is carried out                                   409
//	the key with another request, or by somebody else         422
//	carried out when its node was lost, no answer stored      503, "processed": "unknown"
//	… and the application deduplicates by itself (Own)        delivered again
//
// # Stored formats
//
//	core/app/<application>/key/<SHA-256 of the key>       the record (JSON)
//	core/app/<application>/due/<hour>/<the same>          marks that the record may be removed from that hour on
//
// # Design
//
// All writes carry the term's fence, and each is made on condition that the record is what was read before: so of two nodes that
// both believe to be active, or of two requests at the same time, one delivers.
//
// A record that says "running" is true only while its own node, in its own term, still works on it, which that node knows
// from memory. Any other such record is of a request that was lost with its node, or whose application broke off: nobody knows
// what became of it, and nothing is delivered again under its key until it expires.
//
// Records expire by the wall clock of whichever node is active. That compares the clocks of two hosts, for want of a common one
// over a day; a difference between them makes a key's life shorter or longer by as much and has no other effect.
// What is due is found by the hour in the marks' names: removing costs what there is to remove, a bounded number at a time.
//
// Who asks is told by the credentials that a request bears: Authorization, Cookie, X-Api-Key, and the client's certificate. Its address
// does not count: a client that comes back after a failover may come another way.
package keyed
