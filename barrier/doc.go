// Package barrier encrypts everything that Locum keeps in a data store (P8).
//
// A [Barrier] stands over a physical.Backend. Sealed, it gives nothing away; unsealed with the root key, its
// [View] reads and writes entries in plain while the store sees only names and ciphertext:
//
//	b := barrier.New(store, barrier.Options{})
//	err := b.Unseal(ctx, rootKey)
//	v := b.View(&fence)               // writes carry this term's fence (P1)
//	err = v.Commit(ctx, physical.Put("kv/…", value))
//
// # Stored formats
//
// A sealed entry is
//
//	format 1 (1 B) | key term (4 B, big endian) | nonce (12 B) | AES-256-GCM ciphertext and tag (16 B)
//
// with the entry's name as additional data: an entry that was changed, cut, copied to another name or swapped
// with one does not open ([ErrTampered]). The keyring, at "core/keyring", is JSON sealed in the same way by the
// root key, which has the key term 0. Two entries lie in plain, since a node must read them while it is sealed: the
// seal's configuration and the wrapped root key ([KeySealConfig], [KeyRootKey]).
//
// # Design
//
// Nonces are random, so one key may seal 2^32 entries at the most (NIST SP 800-38D §8.3). Counting them must not cost
// a write for each write. The keyring says of each key how many uses have been reserved; the active node reserves them
// in blocks of a million, one keyring write for each, and counts in memory. A node that becomes active takes all that
// was reserved before it for used and reserves its own block, so the stored number is never below the true one, whatever
// crashed or overlapped. Where the next block would pass the limit, a new key is made instead: with the same one write,
// before the entry that needed it.
//
// The keyring is written under the condition that it still holds what this node read, besides the fence. Old keys are
// never removed: entries are not sealed anew by a rotation.
//
// A node that meets an entry with a key term that it does not know reads the keyring again, once for all who wait: so
// standbys follow a rotation without being told.
//
// All that a request needs (the ciphers by term, the term to seal with) is one immutable value behind an atomic pointer.
// Sealing swaps it for nil and overwrites the root key and the keys; what Go's ciphers derived from them is left to the
// garbage collector, which cannot be helped.
package barrier
