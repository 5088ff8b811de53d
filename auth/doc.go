// Package auth knows who may do what: tokens and policies, as Vault has them.
//
// The store holds no token. It holds, sealed and under the token's HMAC-SHA256 as name, what the token may do; accessors
// lie under theirs. The HMACs' key is derived from the root key. So neither a copy of the store nor a key of its keyring
// gives a token away, and looking one up compares no secret byte by byte.
//
//	secret, ops, err := auth.NewRootToken(key, now)    // at init: ops are part of the first commit
//	store, err := auth.New(view, key, auth.Config{})   // for each leadership
//	go store.Run(ctx)                                  // under the lease: removes what ran out
//	token, err := store.Authorize(ctx, auth.Secret(header), access, request)
//	made, err := store.Create(ctx, bearer, auth.Creation{Policies: []string{"app"}, TTL: time.Hour}, request)
//
// Policies are texts in HCL or JSON that say for paths what may be done there ([Store.SetPolicy]). Which of several rules
// decides is as Vault documents it: an exact path; else the rule whose first "+" or "*" comes last, which does not end in
// "*", has fewer "+", is longer, is the greater. What a rule says that Locum does not do (parameters, wrapping, templates) is
// refused when the policy is written: passing it over would allow more than the text says.
//
// # Stored formats
//
//	core/token/<digest>                     a token (JSON, format 2; 1 had the root token only)
//	core/token-accessor/<digest>            which token the accessor names (JSON, format 1)
//	core/token-child/<digest>/<digest>      the second is a child of the first
//	core/token-expiry/<minute>/<digest>     the token runs out in this minute (Unix time, 16 hexadecimal digits)
//	core/token-revoked/<digest>             the token is gone, its children are to be removed
//	core/policy/<name, escaped>             a policy (JSON, format 1)
//
// # Design
//
// A change is one commit: the token, what leads to it, and the slot that lets the request be repeated (package
// internal/slots), on condition that the token still is as it was read. So an attempt whose outcome was unknown cannot land
// on top of another one. Only [Store.RevokeOrphan] with many children takes several commits, each whole in itself.
//
// A token works only while all those above it do ([Store.Verify] looks). So a revocation, or running out, is
// one small thing that takes effect for the whole tree in one instant; removing what is left of the descendants is housekeeping
// that Run does a few entries at a time, that survives failovers because its work list is stored, and that nobody waits for.
//
// Instants are wall-clock times. P4 forbids to compare the wall clocks of two hosts, and here it is done: a token made under one
// active node runs out by the clock of another. That is acceptable because nothing of P1–P4 rests on it: an error of the clock
// lengthens or shortens a token's life by as much, against lives of minutes to weeks, and sys/ha-status shows the skew. Counting
// life in time of leadership instead would let tokens live longer with every failover, and while no node is active.
//
// Making a token is repeatable (P6) although no secret is stored: the new token is an HMAC of the request's name under a key
// made of the root key and of the bearer's own token. The repeat brings that token again; no store and no key holds it.
// Where a token's uses are counted, the last requests that used it are noted beside the count, so that a repeat is not
// counted twice; and after the last use the token stays for ten minutes, for nothing but such a repeat. A repeat of a write
// that was carried out is let through whatever became of its token (it may have revoked it), to get the stored answer.
//
// The active node keeps in memory tokens that it has seen, and what sets of policies allow, because every request needs them.
// That cannot be stale: only the active node changes them, through this Store; what was read before a change is not
// kept after it; what has a change of unknown outcome is not kept any more; and with the leadership the Store is dropped. What
// is not a token is never kept, so that guessing fills nothing.
package auth
