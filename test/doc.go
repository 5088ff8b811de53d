// Package test holds what needs several real processes: faults, load, linearizability, streaming through a
// standby. It is a module of its own, so that its heavy dependencies (grpc, an etcd client) never reach
// whoever imports Locum.
//
//	cluster/  starts, kills, freezes, wakes and cuts off real nodes
//	load/     an open-loop generator with a client that never tries twice, and what it counts
//	history/  records what clients saw and checks it for linearizability
//	bench/    the numbers of docs/benchmarks.md, each beside its target and a peer
//
// The tests of this package name the promise (P1–P12, docs/guarantees.md) that they check. They are short by
// default; -chaos=10m and -long ask for more.
package test
