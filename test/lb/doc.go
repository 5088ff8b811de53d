// Package lb holds the load balancers' configurations in docs/lb to what docs/ha.md says of them: the real HAProxy and
// nginx run with these very files, in front of a real cluster of three nodes with TLS, while its active node is stepped
// down and killed (P5, P6), and where every node has the load balancer's address as api_addr.
//
// Of the files only names and places are replaced: the nodes' addresses, the port, the paths of certificates. "ready" is
// replaced by "active" as the files themselves say.
//
// A load balancer that is not installed is skipped with the reason; with LOCUM_NO_SKIP, as in CI, that is a failure.
package lb
