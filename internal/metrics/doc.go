// Package metrics turns what the other packages report through their Observers into Prometheus metrics.
//
// # Design
//
// There is one registry per instance and nothing global, so that several nodes can run in one process. No other
// package imports Prometheus: they have Observers, structs of funcs that may be nil, and here is one method for each
// that makes it. What can be read at any time — who is active, how long the lease lasts — is not kept twice but asked
// for when somebody scrapes ([Metrics.Watch]).
//
// Names are locum_* with the unit at the end. A latency is a histogram, whose count is the number of events: there is
// no counter beside it. Labels have few values, all of them known here; none comes from a client.
package metrics
