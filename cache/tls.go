package cache

import (
	"crypto/tls"
	"errors"
)

// TLS says how connections between nodes are protected.
type TLS struct {
	// Disabled sends everything in the clear: for networks that protect it themselves. Nodes still prove that
	// they know the token, but whoever can change packets on the way can take a proven connection over.
	Disabled bool
	// Server and Client are one's own configurations, both or none, with TLS 1.3 as MinVersion. Server should require client certificates.
	// None: certificates made from the token, valid for nobody who does not know it.
	Server, Client *tls.Config
}

func (t TLS) validate() error {
	switch {
	case t.Disabled && (t.Server != nil || t.Client != nil):
		return errors.New("cache: TLS is disabled, but certificates are given; remove one of the two")
	case (t.Server == nil) != (t.Client == nil):
		return errors.New("cache: TLS needs a configuration for both sides, server and client, or none")
	case t.Server != nil && (t.Server.MinVersion < tls.VersionTLS13 || t.Client.MinVersion < tls.VersionTLS13):
		return errors.New("cache: the proof that a node knows the token is bound to TLS 1.3; set MinVersion: tls.VersionTLS13 in both configurations")
	}
	return nil
}
