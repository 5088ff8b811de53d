// Package resp serves the cache to clients of Redis: a server of its protocol, RESP versions 2 and 3, with pipelining and inline
// commands, over a [Store].
//
// DESIGN. A connection is one goroutine that reads commands and writes answers, in their order. Commands that write and that
// stand behind one another in a pipeline are gathered and carried out as one step of the log, so that a client that sends
// sixteen commands waits once; commands that read are answered from this node's memory. MULTI … EXEC is one step as well,
// with the watched keys' versions as its condition.
//
// Answers and errors are Redis's own, word for word, where Redis has such an answer; a test sends the same commands to both. Two
// errors are Locum's: "CLUSTERDOWN …" where there is no quorum and nothing was done, and "UNKNOWN …" where a write was sent
// and its outcome is not known.
//
// Everything is bounded (P12): connections, the arguments of a command and their bytes, what a transaction gathers, what waits
// to be read by a subscriber.
package resp
