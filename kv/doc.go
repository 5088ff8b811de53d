// Package kv keeps versioned entries, as Vault's KV version 2 does: every write of a path makes a new version; versions
// can be deleted, undeleted and destroyed; metadata say how many are kept, and for how long.
//
//	s := kv.New(view)
//	meta, err := s.Write(ctx, "app/db", kv.Object(`{"password":"…"}`), kv.WriteOptions{CAS: &zero})
//	secret, err := s.Read(ctx, "app/db", 0)
//
// A [Store] works for one leadership, on the active node; it keeps no entries in memory, so that there is nothing that
// could be stale (P4). What the methods do, and what their errors say, is what Vault's do and say.
//
// # Stored formats
//
//	kv/config                     settings for all paths (JSON)
//	kv/meta/<path>                format 1 or 2, then all that is known of the path and its versions (varints, see codec.go), the
//	                              current version's data where they are short, and in format 2 the requests that may be repeated
//	kv/data/<path>/<version>      format 1 (1 B) | created, Unix time in ns (8 B, big endian) | the JSON object as it was given
//
// A segment of a path that a store may not take as it is — empty, "." or "..", with control characters or bytes that are
// no UTF-8 — is escaped like in a URL; "%" alone stands for the empty segment. All this lies sealed in the store, but for
// the names (P8).
//
// # Design
//
// A write is one commit: the new version, the metadata, what falls out of the window of kept versions, and what lets the
// request be repeated. It is conditioned on the metadata that it started from. So an attempt whose outcome was unknown, and which
// lands late, cannot land on top of another: whichever is second fails and begins anew, and finds the first one's record.
// Writers of a path take turns besides, because a conflict costs more than a wait.
//
// What lets a request be repeated lies in its slot (package internal/slots), in the same commit; but for the writes of versions
// it lies with the metadata, as a record of the request's slot and number, and of the version that it made. The next write of the
// path drops the records of requests that are known to be over: their slots were used again. Before any other record would go, or
// give another answer than it did — the path is removed, its custom metadata change, or there would be too many —, a commit before moves
// them into their slots. Whoever asks looks at the metadata first, and then at the slot: a record only ever moves that way.
//
// Short data of the current version lie with the metadata: so a write of a new path is one entry, and a read is one. The
// next write moves them into an entry of their own, in its own commit.
//
// Where a read is a round trip, a path that is written is taken for new without a look once many in a row were: the commit's
// condition finds out if it is not.
//
// Readers take no locks. A version's data never change, and carry their time of creation, which the metadata has too;
// if the two do not fit, the path was deleted and made again between the two reads, and the reader starts over.
//
// Where a store bounds the ops of a commit, old versions beyond that bound are removed with later writes; only removing a
// whole path with very many versions takes several commits, the oldest first, each whole in itself.
package kv
