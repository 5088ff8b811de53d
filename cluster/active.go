package cluster

import (
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"
)

// ActiveIdentity is what the active node shows to standbys during one term: a server leaf of the term's
// authority whose key never leaves this process.
type ActiveIdentity struct {
	term      uint64
	name, id  string
	authority *Authority
	leaf      tls.Certificate
}

// NewActiveIdentity makes the keys of a term. They are P-521 and fresh for every term.
func NewActiveIdentity(term uint64, name, id string, now time.Time) (*ActiveIdentity, error) {
	authority, err := NewTermAuthority(term, now)
	if err != nil {
		return nil, err
	}
	leaf, err := authority.mint(elliptic.P521(), name, id, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return nil, err
	}
	return &ActiveIdentity{term: term, name: name, id: id, authority: authority, leaf: leaf}, nil
}

// Advertise returns the advertisement of this identity: the authority with its key, and the pin of the
// server leaf without its key.
func (a *ActiveIdentity) Advertise(apiAddr, clusterAddr string, now time.Time) Advertisement {
	return Advertisement{
		Term:        a.term,
		NodeID:      a.id,
		Name:        a.name,
		APIAddr:     apiAddr,
		ClusterAddr: clusterAddr,
		Authority:   a.authority,
		ServerPin:   pinOf(a.leaf.Leaf),
		Time:        now,
	}
}

// ServerTLS is the server side of [ALPNForward] and [ALPNApp] in this term: it admits leaves of the term's authority only.
func (a *ActiveIdentity) ServerTLS() *tls.Config {
	return serverTLS(a.leaf, []*Authority{a.authority})
}

// StandbyIdentity is what a standby shows to the active node of one term.
type StandbyIdentity struct {
	ad   Advertisement
	leaf tls.Certificate
}

// NewStandbyIdentity mints the leaf of the node with this name and identity from the advertised authority.
func NewStandbyIdentity(ad Advertisement, name, id string) (*StandbyIdentity, error) {
	if ad.Authority == nil {
		return nil, fmt.Errorf("%w advertisement: no authority", ErrMalformed)
	}
	leaf, err := ad.Authority.mint(elliptic.P256(), name, id, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return nil, err
	}
	return &StandbyIdentity{ad: ad, leaf: leaf}, nil
}

// ClientTLS is the client side of [ALPNForward]. Only the very server leaf that the advertisement pins is
// accepted: every standby could mint another one in the active node's name.
func (s *StandbyIdentity) ClientTLS() *tls.Config { return s.clientTLS(ALPNForward) }

// AppTLS is the same for [ALPNApp].
func (s *StandbyIdentity) AppTLS() *tls.Config { return s.clientTLS(ALPNApp) }

func (s *StandbyIdentity) clientTLS(alpn string) *tls.Config {
	return clientTLS(alpn, s.leaf, []*Authority{s.ad.Authority}, func(cert *x509.Certificate) error {
		if pinOf(cert) != s.ad.ServerPin {
			return fmt.Errorf("%w: not the active node of term %d", ErrPeer, s.ad.Term)
		}
		return nil
	})
}
