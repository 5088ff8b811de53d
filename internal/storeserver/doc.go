// Package storeserver starts real servers of data stores for tests and benchmarks: on free ports of the loopback
// interface, with their data in a directory of their own, ended by process id. No server outlives the program that
// started it, however that ends. There is one file per store: [Etcd], [Consul], [ZooKeeper], …
//
//	server := storeserver.StartEtcd(t)
//	proxy := storeserver.NewProxy(t, server.Addr)
//	… server.Kill(); server.Start(); proxy.CutAnswers(); proxy.Heal()
//
// # Design
//
// A store whose program is not installed is a skip with its reason; with LOCUM_NO_SKIP set, as in CI, it is a failure:
// otherwise nobody would notice that a store is not tested any more. "make deps" installs what can be installed.
//
// A [Process] waits until its server answers, and shows the end of the server's log if the test fails. A [Proxy] stands
// between a client and a server and does to their TCP connections what networks do.
package storeserver
