package cluster

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

const advertisementFormat = 1

// Advertisement is the entry in which the active node tells the others how to reach it. It holds the key of
// the term's authority, so it is stored encrypted only, and it prints without that key.
type Advertisement struct {
	Term        uint64 // the leadership that it belongs to
	NodeID      string // the active node's identity
	Name        string // its node name
	APIAddr     string // where clients are redirected to; a URL
	ClusterAddr string // where standbys reach it; https://host:port
	Listener    string // where its API listens: host:port; "" from a node that does not tell
	// Applications are where this node's clients reach the applications: URLs by name.
	Applications map[string]string
	Authority    *Authority // of this term; standbys mint their leaves from it
	ServerPin    Pin        // of the only server certificate that is the active node's
	Time         time.Time  // when it was written, on the active node's clock; for people only
}

type advertisementRecord struct {
	Format       int               `json:"format"`
	Term         uint64            `json:"term"`
	NodeID       string            `json:"node_id"`
	Name         string            `json:"name"`
	APIAddr      string            `json:"api_addr"`
	ClusterAddr  string            `json:"cluster_addr"`
	Listener     string            `json:"listener,omitempty"`
	Applications map[string]string `json:"applications,omitempty"`
	Authority    authorityRecord   `json:"authority"`
	ServerPin    string            `json:"server_pin"` // SHA-256 in hex
	Time         time.Time         `json:"time"`
}

// Marshal returns the advertisement in its stored format.
func (ad Advertisement) Marshal() ([]byte, error) {
	if ad.Authority == nil {
		return nil, fmt.Errorf("%w advertisement: no authority", ErrMalformed)
	}
	authority, err := ad.Authority.record()
	if err != nil {
		return nil, err
	}
	return json.Marshal(advertisementRecord{
		Format:       advertisementFormat,
		Term:         ad.Term,
		NodeID:       ad.NodeID,
		Name:         ad.Name,
		APIAddr:      ad.APIAddr,
		ClusterAddr:  ad.ClusterAddr,
		Listener:     ad.Listener,
		Applications: ad.Applications,
		Authority:    authority,
		ServerPin:    hex.EncodeToString(ad.ServerPin[:]),
		Time:         ad.Time.UTC(),
	})
}

// ParseAdvertisement reads what Marshal wrote. It returns [ErrNewerFormat] or [ErrMalformed].
func ParseAdvertisement(data []byte) (Advertisement, error) {
	if err := checkFormat(data, "advertisement", advertisementFormat); err != nil {
		return Advertisement{}, err
	}
	var record advertisementRecord
	if err := json.Unmarshal(data, &record); err != nil {
		return Advertisement{}, fmt.Errorf("%w advertisement: not the JSON of format %d", ErrMalformed, advertisementFormat)
	}
	if err := knownFormat(record.Authority.Format, "advertised authority", authorityFormat); err != nil {
		return Advertisement{}, err
	}
	authority, err := record.Authority.parse()
	if err != nil {
		return Advertisement{}, fmt.Errorf("advertisement: %w", err)
	}
	ad := Advertisement{
		Term:         record.Term,
		NodeID:       record.NodeID,
		Name:         record.Name,
		APIAddr:      record.APIAddr,
		ClusterAddr:  record.ClusterAddr,
		Listener:     record.Listener,
		Applications: record.Applications,
		Authority:    authority,
		Time:         record.Time,
	}
	pin, err := hex.DecodeString(record.ServerPin)
	if err != nil || len(pin) != len(ad.ServerPin) {
		return Advertisement{}, fmt.Errorf("%w advertisement: server_pin is not a SHA-256", ErrMalformed)
	}
	copy(ad.ServerPin[:], pin)
	switch {
	case ad.Term == 0:
		return Advertisement{}, fmt.Errorf("%w advertisement: term 0", ErrMalformed)
	case !validID.MatchString(ad.NodeID):
		return Advertisement{}, fmt.Errorf("%w advertisement: node id %q", ErrMalformed, ad.NodeID)
	}
	return ad, nil
}

// String names the active node and its term.
func (ad Advertisement) String() string {
	return fmt.Sprintf("node %q in term %d at %s", ad.Name, ad.Term, ad.ClusterAddr)
}

// GoString keeps the key out of %#v.
func (ad Advertisement) GoString() string { return "cluster.Advertisement{" + ad.String() + "}" }
