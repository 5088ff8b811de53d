// Package metrics turns what the other packages report through their Observers into Prometheus metrics.
//
// # Design
//
// There is one registry per instance and nothing global, so that several nodes can run in one process. No other
// package imports Prometheus: they have Observers, structs of funcs that may be nil, and here is one method for each
// that makes it. What can be read at any time — who is active, how long the lease lasts — is not kept twice but asked
// for when somebody scrapes ([Metrics.Watch]).
//
// Names are locum_* with the unit at the end. A latency is a histogram, whose count is the number of events; the counters beside
// one are those that operators alert on by name: locum_leaderships_total, locum_lock_renewal_failures_total,
// locum_without_active_seconds_total. Labels have few values. All are known here but the names of applications and caches, which are the
// configuration's, and of caches that clients make, which are bounded here.
package metrics
