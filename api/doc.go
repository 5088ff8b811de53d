// Package api is Locum's HTTP API: JSON over paths, fields and status codes of the Vault HTTP API, so that
// its clients in any language work unchanged. What Locum adds, it adds.
//
// Two handlers divide the work, because two kinds of request must not wait for the same things:
//
//	client → Local  → status, init, unseal, raft join: answered by the node asked, from memory, in every state (P10)
//	           └────→ next (package forward) → the active node → Active: everything that reads or changes the
//	                                                             cluster's state, under a token
//
// # Design
//
// The package knows HTTP and JSON and nothing else. What it asks of the node stands in the interfaces [Node],
// [Service], [Raft], [KV] and [Tokens]; internal/server implements the first three, packages kv and auth the others. It
// keeps no state but how often each client asked for what needs no token ([RateLimit]).
//
// Every other request is checked first: its path, and what its method does there, against the policies of its token. As in
// Vault a write of an entry needs "create" where there is none yet and "update" where there is one; all else that is POSTed or
// PUT needs "update". The check and the write are two steps, as in Vault: who may only create and must not overwrite what
// another creates in the same instant says so with options.cas = 0.
//
// A handler first asks for what it needs and only then writes. So an answer is all or nothing, the guard in front of
// the client can check the lease between the two (P4), and an error can still go to [Config].Deposed, which takes
// the request over to be carried out by the next active node, instead of to the client. The streamed snapshot is the
// one exception; where it breaks off, the connection does too.
//
// Every error is {"errors":["…"]} with a sentence that says what to do. "processed" stands beside it where a
// request may ("unknown") or cannot ("no") have been carried out, and Retry-After with every 503.
//
// Bodies are bounded ([Config].MaxBody). Entries pass through as the bytes that the client sent: they are checked to
// be JSON, and never built up as Go values.
package api
