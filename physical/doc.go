// Package physical holds what lies under the encryption: the contracts that a data store fulfils for
// Locum. It imports only the standard library, and whoever writes a store needs to read nothing else.
//
// A store can have two powers. A [Backend] keeps small entries and the [Fence] that guards them. An
// [HABackend] keeps the HA lock, which one node at a time can hold. Many stores have both; "storage" and
// "ha_storage" may also be two different stores. Powers beyond these two are separate interfaces that are
// found by assertion: [Watcher], [Yielder], [Gatherer], and [Opener] on a store's configuration. A store that runs in the nodes
// themselves, as the embedded one does, speaks to its like over a [Layer].
//
// Stores make single attempts and keep no timers. Retrying, renewing and expiry are package election's,
// once, for every store. Encryption is package barrier's. A store sees names of keys and ciphertext (P8).
//
// Package physicaltest holds the suites that every store must pass.
package physical
