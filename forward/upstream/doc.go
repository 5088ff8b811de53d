// Package upstream passes requests on to the application on this host: the last hop, on the active node, behind a
// forward.Router. It speaks HTTP/1.1, HTTP/2 (with TLS or without) and bare byte streams.
//
//	up, err := upstream.New(upstream.Config{URL: "http://127.0.0.1:9000"})
//	router.Lead(term, lease, up)
//
// # Design
//
// HTTP/1.1 is a client of its own (exchange.go) and not http.Transport, for two reasons. The transport repeats a request by
// itself when a connection breaks, and what may be repeated is the router's to decide (P6): so here a request is delivered
// once, and the router is told apart what was certainly not delivered (forward.Decline), what the application broke off
// (forward.Broke), and what nobody waits for any more. And the transport passes each request through two goroutines and
// back; here the request's own goroutine writes and reads, which is what the rate of a proxy depends on. Only a body that is
// not at hand has a goroutine beside it.
//
// A connection is asked whether it is still open before it is used again, so an application that closes idle connections
// costs no request. What it closes in the instant after that is an outcome nobody knows: no guess is made.
//
// HTTP/2 is a client of its own for the same reasons: connections (h2pool.go), what is on them (h2conn.go, h2call.go), and the way of a request and
// its answer (http2.go). A request that the application has certainly not looked at is delivered again; whatever else
// breaks off is "unknown". Answers are flushed as soon as they turn out to be streams; until then head, body and trailers of a
// short call leave together.
//
// Upgraded connections and byte streams (tunnel.go) have no end of their own. In a planned step-down a WebSocket is told
// so by close frames to both sides, at a boundary between frames; a byte stream is closed in a moment when nothing flows.
package upstream
