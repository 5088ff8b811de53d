// Package listener is where clients come in: one address, on TCP or as a Unix socket, in plain or with TLS, that HTTP is
// served on.
//
// It settles, before anything else sees a request, who the client is and how long it may take:
//
//   - Request.RemoteAddr is the client's address. Behind proxies that is the one that they name, by the PROXY protocol (for a
//     connection) or by X-Forwarded-For (for a request), and only where the listener's configuration authorises the proxy.
//     Everything behind the listener — logs, rate limits, the headers an application gets, the active node that a
//     standby forwards to — takes it from there and from nowhere else.
//   - A client that is slow with its TLS handshake, its PROXY header, its request's head or body, or with taking its answer,
//     is cut off. An answer may take as long as it likes, and a connection on which it streams may be silent.
//
// # Design
//
// Two things can be claimed, by two different parties, so there are two lists of addresses. Neither is guessed from
// what arrives: a connection from an authorised PROXY sender must begin with a header, one from elsewhere must not.
// X-Forwarded-For is read from its right end: each hop was written by the one to its right, so the first that is no authorised
// proxy is the client, and what stands left of it is the client's own invention and is dropped.
//
// The parser of the PROXY protocol is our own. The library that there is (pires/go-proxyproto: maintained, Apache-2.0)
// also writes headers, speaks UDP and has policies whose default changed between versions; what a server needs of it is one
// pure function over bytes, which is bounded and fuzzed here, and the connection has to be wrapped anyway, for
// the deadlines.
//
// Short requests in plain do not go through net/http's server (front.go; docs/adr/0022). What makes a request short is strict, and
// whatever is not goes to net/http with all of the connection, so there is one judge of what is unusual. Of HTTP/2, which is
// net/http's, writes are gathered, since it sends each frame by itself.
//
// net/http's ReadTimeout is not used. It stays in force while a handler works, and its end cancels the request: one
// that is held for an active node would be lost. Bodies have a watch of their own, which counts only the time that
// somebody waited for the client.
package listener
