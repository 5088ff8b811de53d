// Package forward is the way of a request on a node: run it here, pass it on to the active node, answer
// 307, or let it wait until there is an active node.
//
// A Router is an http.Handler that stands behind a node's client listeners. It is told by election what
// the node is: Lead (requests run here, under a lease), Follow (another node is active, and this is how
// it is reached), Hold (nobody is), Drain (a planned step-down), Abandon (leadership is lost). Run keeps
// the connection to the active node; ServeConn is the other end of such a connection.
//
// # Design
//
// A place (router.go) is an immutable answer to "where do requests go now". An exchange (exchange.go) is
// one client's request over as many attempts as it takes: it looks at the place, makes an attempt, and if
// that ends without an answer, asks decide (repeat.go), a pure function that is all of promise P6: what
// was certainly not processed goes on, what may have been is repeated only if it may be, and everything
// else gets an answer that says so. Waiting is bounded in number, bytes and time (hold.go, P12).
//
// On the active node every answer passes a guard that asks the lease after the handler has read its state
// and before the first byte leaves (P4): local.go for clients connected here, response.go for standbys.
// A dropped answer sends the request on its way again.
//
// Between nodes runs a framing of its own (frame.go) over one mutually authenticated connection, rather
// than HTTP/2, for three reasons. Writes are combined (writer.go): under load many requests share a TLS
// record and a system call, which is where a proxy's time goes, and a lone request changes goroutines as
// rarely as can be: who waits for its answer reads it, too, and looks for it for a while before it sleeps (spin.go). A standby knows what was never handed to the connection, and is told "not processed",
// "declined" and "deposed" apart, which is what safe repeats need. And the windows of all streams of a
// connection come out of one budget (budget.go), so that memory stays bounded without slow streams
// stopping fast ones.
//
// A drain (P5) tells the standbys by GOAWAY, with the last stream that arrived; they hold from then on.
// A redirect that could lead back here, because nodes share one api_addr, carries the query parameter
// _locum_lap=1: a standby that meets it answers 503, and it is taken off before any handler sees it.
//
// A repeatable write carries a slot (slots.go), under which the active node commits its answer together
// with its data: so it can be sent again after a crash, and is executed once.
package forward
