// Package load sends requests to nodes and counts what became of each.
//
// Its client makes one attempt per request: no retry, no redirect, no automatic repeat on a connection that
// closed (Go's own client repeats GETs there). Whatever is not a 2xx has failed.
//
// [Run] is open-loop: requests leave on a fixed schedule whether or not earlier ones were answered, and
// latency counts from the schedule, so that a pause is seen by every request that it hit. [Saturate] is
// closed-loop, for throughput.
package load
