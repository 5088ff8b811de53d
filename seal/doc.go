// Package seal protects the root key of a cluster while it is at rest.
//
// The root key opens the keyring, and the keyring opens every entry (package barrier). A data store must
// hold the root key too, or no node could ever start; it holds it wrapped by a [Seal]. What a Seal needs to
// unwrap is the one thing that comes from outside: a key file or a variable of the environment ([NewStatic]),
// or the key shares of several people ([Split], [Collector], [NewShamir]).
//
//	root key --wrapped by--> key-encryption key --is--> a file, or N shares of which T are needed
//
// # Design
//
// A Seal is one small interface, so that a cloud's key service can be one more implementation. It wraps
// bytes and knows nothing of stores, keyrings or HTTP.
//
// The shares are Shamir's over GF(2^8), written here because it is eighty lines and because the arithmetic
// has to be constant in time: no tables, no branches on secrets. A share is as long as the secret plus one
// byte, its x coordinate, which stands last as in Vault; it is what people keep, so its format never changes.
// Shares of one split are numbered from 1, so two shares with one number that differ are known not to belong
// together, before a wrong key is computed.
//
// Wrong shares cannot be told from right ones one by one. Only the key that they give is tested, by the
// authenticated encryption of the wrapped root key ([ErrWrongKey]).
//
// Everything stored carries a format number, and testdata holds a vector of each format that never changes.
package seal
