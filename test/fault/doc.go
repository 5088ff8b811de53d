// Package fault does to a cluster under load what happens to clusters, once, and says what the clients saw. The
// tests hold the outcome against the promises, the benchmarks print it.
package fault
