// Package client is a client of Locum's HTTP API: what the command line uses, and what a Go program may. It
// rests on the standard library alone.
//
//	c, err := client.New(client.FromEnv(os.LookupEnv))
//	if err != nil { … }
//	entry, err := c.KV().Get(ctx, "app/db", 0)
//
// Any node will do as the address: a standby passes the request on, or redirects, and both end alike.
//
// # DESIGN
//
// A request is sent again only when it is certain that it was not carried out — the connection could not be made, nothing was
// written, or the answer says processed: "no" — or when repeating it changes nothing (RFC 9110 §9.2.1). Everything
// else that breaks off is [ErrUnknown], and the caller decides (P6). A Retry-After is kept, and bounds are kept on
// the number of attempts and on the waiting (P12).
//
// Redirects are followed for 307 and 308 alone, with method, body and token as they were: the target is the active
// node, and the node that names it has been given the token already. From https to http none is followed: the token would
// go over the wire in plain text.
package client
