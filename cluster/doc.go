// Package cluster is how the nodes of a cluster reach one another: the cluster port, and the identities
// that are shown there (P9).
//
// A [Port] is one TCP port for every protocol between nodes. All of them are mutually authenticated TLS,
// and ALPN tells them apart: [ALPNForward] carries clients' requests from a standby to the active node, [ALPNApp] those of an
// application, [ALPNRaft] and [ALPNCache] the traffic of the embedded store and of the cache; by [ALPNGuardian] a guardian tells
// that its node is dead. The
// port is open while at least one protocol is registered, and a protocol that is not registered is refused
// in the handshake: so forwarding is accepted by the active node only.
//
// An identity comes from an [Authority], a key with a self-signed certificate that lies behind the barrier:
// who cannot unseal cannot show one. There are two kinds.
//
//   - For forwarding, each term has an authority of its own ([ActiveIdentity]). Its key stands in the
//     [Advertisement], from which every standby mints its leaf ([StandbyIdentity]). The active node's own
//     leaf has a key that is not advertised, and the advertisement pins that leaf: no standby can pose as
//     the active node.
//   - For raft and the cache, which must work while nobody is active, there is a [Ring] of cluster
//     authorities, more than one of them during a rotation ([PeerIdentity]).
//
// # DESIGN
//
// Handshakes never run in the accept loop. Each has its own goroutine and a deadline, and the number of
// unfinished ones is capped: a newcomer beyond the cap pushes out the oldest of the host that has the most,
// so that a flood from one host costs that host's connections and not another's.
//
// Lifetimes are checked at an instant inside the authorities' own validity, never on a host's clock: a
// wrong clock on one of two hosts must not end a cluster. A term's keys end with the term, because the next
// advertisement names another authority; a cluster authority ends by rotation.
//
// A protocol that is removed has its connections cut at the TCP level and not by TLS's polite way, which
// waits up to five seconds for a peer that does not read: a frozen peer must not delay a change of
// leadership.
package cluster
