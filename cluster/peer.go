package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

const ringFormat = 1

// Ring is the cluster's authorities in force: the first is the one that leaves are minted from, all are
// trusted. It has more than one during a rotation, which takes three steps so that no node ever meets a
// leaf that it does not trust: Introduce a new authority, wait until every node has read it, Promote it,
// wait until every node shows a leaf of it, Retire the old ones. A Ring is immutable.
type Ring struct{ authorities []*Authority }

// NewRing returns a ring of one authority.
func NewRing(a *Authority) Ring { return Ring{authorities: []*Authority{a}} }

// Minting returns the authority that leaves are minted from; nil for the zero Ring.
func (r Ring) Minting() *Authority {
	if len(r.authorities) == 0 {
		return nil
	}
	return r.authorities[0]
}

// Since is when the authority was made that leaves are minted from, on the clock of the node that made it.
func (r Ring) Since() time.Time {
	if len(r.authorities) == 0 {
		return time.Time{}
	}
	return r.authorities[0].cert.NotBefore
}

// Len returns how many authorities are trusted.
func (r Ring) Len() int { return len(r.authorities) }

// Introduce returns a ring that also trusts a, but does not mint from it yet.
func (r Ring) Introduce(a *Authority) Ring {
	for _, known := range r.authorities {
		if known.Equal(a) {
			return r
		}
	}
	return Ring{authorities: append(r.authorities[:len(r.authorities):len(r.authorities)], a)}
}

// Promote returns a ring that mints from the authority introduced last.
func (r Ring) Promote() Ring {
	last := len(r.authorities) - 1
	if last < 1 {
		return r
	}
	return Ring{authorities: append([]*Authority{r.authorities[last]}, r.authorities[:last]...)}
}

// Promoted reports whether leaves are minted from the newest authority.
func (r Ring) Promoted() bool {
	for _, a := range r.authorities {
		if r.authorities[0].cert.NotBefore.Before(a.cert.NotBefore) {
			return false
		}
	}
	return len(r.authorities) > 0
}

// Retire returns a ring of the minting authority alone.
func (r Ring) Retire() Ring {
	if len(r.authorities) < 2 {
		return r
	}
	return NewRing(r.authorities[0])
}

type ringRecord struct {
	Format      int               `json:"format"`
	Authorities []authorityRecord `json:"authorities"` // the minting one first
}

// Marshal returns the ring in its stored format. The bytes hold private keys.
func (r Ring) Marshal() ([]byte, error) {
	record := ringRecord{Format: ringFormat}
	for _, a := range r.authorities {
		one, err := a.record()
		if err != nil {
			return nil, err
		}
		record.Authorities = append(record.Authorities, one)
	}
	return json.Marshal(record)
}

// ParseRing reads what Marshal wrote. It returns [ErrNewerFormat] or [ErrMalformed].
func ParseRing(data []byte) (Ring, error) {
	if err := checkFormat(data, "ring of cluster authorities", ringFormat); err != nil {
		return Ring{}, err
	}
	var record ringRecord
	if err := json.Unmarshal(data, &record); err != nil || len(record.Authorities) == 0 {
		return Ring{}, fmt.Errorf("%w ring of cluster authorities", ErrMalformed)
	}
	var ring Ring
	for _, one := range record.Authorities {
		if err := knownFormat(one.Format, "cluster authority", authorityFormat); err != nil {
			return Ring{}, err
		}
		a, err := one.parse()
		if err != nil {
			return Ring{}, err
		}
		ring.authorities = append(ring.authorities, a)
	}
	return ring, nil
}

// PeerIdentity is what a node shows to its peers in whichever role. It follows rotations by Update; both
// sides of existing connections go on.
type PeerIdentity struct {
	name, id string
	current  atomic.Pointer[peerState]
}

type peerState struct {
	ring Ring
	leaf tls.Certificate
}

// NewPeerIdentity mints the leaf of the node with this name and identity from the ring.
func NewPeerIdentity(ring Ring, name, id string) (*PeerIdentity, error) {
	p := &PeerIdentity{name: name, id: id}
	if err := p.Update(ring); err != nil {
		return nil, err
	}
	return p, nil
}

// ID returns the node's identity.
func (p *PeerIdentity) ID() string { return p.id }

// Ring returns the authorities in force.
func (p *PeerIdentity) Ring() Ring { return p.current.Load().ring }

// Update puts another ring into force, for the connections made from now on.
func (p *PeerIdentity) Update(ring Ring) error {
	minting := ring.Minting()
	if minting == nil {
		return errors.New("a ring without a cluster authority")
	}
	state := &peerState{ring: ring}
	if old := p.current.Load(); old != nil && old.ring.Minting().Equal(minting) {
		state.leaf = old.leaf
	} else {
		leaf, err := minting.Mint(p.name, p.id)
		if err != nil {
			return err
		}
		state.leaf = leaf
	}
	p.current.Store(state)
	return nil
}

// ServerTLS is the server side of a peer protocol: it admits every node with a leaf of the ring in force.
// Call it for every handshake, as [Protocol.TLS] is.
func (p *PeerIdentity) ServerTLS() *tls.Config {
	state := p.current.Load()
	return serverTLS(state.leaf, state.ring.authorities)
}

// ClientTLS is the client side of a peer protocol towards exactly the node with the identity expected.
func (p *PeerIdentity) ClientTLS(alpn, expected string) *tls.Config {
	state := p.current.Load()
	return clientTLS(alpn, state.leaf, state.ring.authorities, func(cert *x509.Certificate) error {
		id, err := NodeID(cert)
		if err != nil {
			return err
		}
		if id != expected {
			return fmt.Errorf("%w: reached node %s instead of %s", ErrPeer, id, expected)
		}
		return nil
	})
}
