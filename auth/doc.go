// Package auth knows who may do what: tokens.
//
// The store holds no token. It holds, sealed and under the token's HMAC-SHA256 as name, what the token may do; the HMAC's
// key is derived from the root key. So neither a copy of the store nor a key of its keyring gives a token away, and
// looking one up compares no secret byte by byte.
//
//	secret, op, err := auth.NewRootToken(key, now)   // at init: op is part of the first commit
//	store, err := auth.New(view, key)                // for each leadership
//	token, err := store.Verify(ctx, auth.Secret(header))
//
// # Design
//
// There is one token yet, root's, made at init. [Token] has the fields that further tokens will need; policies,
// children and expiry are to grow here. The stored form has a format number, to be raised with every field that a build
// which does not know it must not ignore.
//
// The active node keeps tokens that it has seen in memory, because every request needs one. That cannot be stale: only
// the active node changes tokens, through this Store, and with the leadership the Store is dropped ([Store.Reset]). What is not
// a token is never kept, so that guessing fills nothing.
package auth
