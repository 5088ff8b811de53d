package cluster

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
)

// The protocols of the cluster port, by the name that TLS negotiates (ALPN, RFC 7301). The number rises
// with an incompatible change; a node may then offer both.
const (
	ALPNForward  = "locum-forward/1"  // clients' requests, from a standby to the active node
	ALPNApp      = "locum-app/1"      // the same for an application, which the first bytes name
	ALPNRaft     = "locum-raft/1"     // the embedded store's messages
	ALPNCache    = "locum-cache/1"    // the in-memory cache's messages
	ALPNGuardian = "locum-guardian/1" // a guardian tells that its node is dead
)

// What can be wrong with a peer, or with what it left in the store.
var (
	// ErrPeer: the peer is not the one that was to be reached, or has no identity of this cluster.
	ErrPeer = errors.New("not the expected peer")
	// ErrNewerFormat: a stored record was written by a newer version of Locum; this node must be upgraded
	// before it can take part.
	ErrNewerFormat = errors.New("format is newer than this version of Locum knows")
	// ErrMalformed: a stored record cannot be read although its format is known.
	ErrMalformed = errors.New("malformed")
)

// HostPort returns the host:port to dial for a cluster_addr such as "https://a.example.com:8401". A value
// without a scheme is taken as host:port already.
func HostPort(clusterAddr string) (string, error) {
	hostport := clusterAddr
	if u, err := url.Parse(clusterAddr); err == nil && u.Host != "" {
		hostport = u.Host
		if u.Port() == "" {
			hostport = net.JoinHostPort(u.Hostname(), "443")
		}
	}
	host, port, err := net.SplitHostPort(hostport)
	if _, numErr := strconv.ParseUint(port, 10, 16); err != nil || host == "" || numErr != nil {
		return "", fmt.Errorf("cluster address %q is not https://host:port", clusterAddr)
	}
	return hostport, nil
}

// PeerID returns the identity that the other side of a connection proved: that of a *tls.Conn after its
// handshake, or what a wrapped connection says of itself with a method PeerID() string. It is "" when there is none.
func PeerID(conn net.Conn) string {
	switch c := conn.(type) {
	case interface{ PeerID() string }:
		return c.PeerID()
	case *tls.Conn:
		return stateID(c.ConnectionState())
	}
	return ""
}

// PeerName returns the node name in the other side's certificate, for logs. It proves nothing.
func PeerName(conn *tls.Conn) string {
	if certs := conn.ConnectionState().PeerCertificates; len(certs) > 0 {
		return certs[0].Subject.CommonName
	}
	return ""
}

func stateID(state tls.ConnectionState) string {
	if len(state.PeerCertificates) == 0 {
		return ""
	}
	id, err := NodeID(state.PeerCertificates[0])
	if err != nil {
		return ""
	}
	return id
}
