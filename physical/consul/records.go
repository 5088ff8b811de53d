package consul

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/locum-ha/locum/physical"
)

const formatVersion = 1

// storedFence is the fence as it is stored. The hash of its encoding is compared: it never changes.
type storedFence struct {
	Version int    `json:"version"`
	Lineage string `json:"lineage"`
	Term    uint64 `json:"term"`
	Nonce   string `json:"nonce"`
}

func encodeFence(f physical.Fence) []byte {
	text, _ := json.Marshal(storedFence{formatVersion, f.Lineage, f.Term, hex.EncodeToString(f.Nonce[:])}) // cannot fail
	return text
}

// fenceKey is the key that exists while the fence is f.
func (s *Store) fenceKey(f physical.Fence) string {
	sum := sha256.Sum256(encodeFence(f))
	return s.fenceIs + hex.EncodeToString(sum[:])
}

// decodeFence reads the fence; the zero Fence where there is none.
func decodeFence(p *pair) (physical.Fence, error) {
	if p == nil {
		return physical.Fence{}, nil
	}
	var stored storedFence
	if err := decode(p, &stored); err != nil {
		return physical.Fence{}, err
	}
	f := physical.Fence{Lineage: stored.Lineage, Term: stored.Term}
	if n, err := hex.Decode(f.Nonce[:], []byte(stored.Nonce)); err != nil || n != len(f.Nonce) {
		return physical.Fence{}, fmt.Errorf("%w: the nonce at %s is damaged", physical.ErrUnavailable, p.Key)
	}
	return f, newer(p, stored.Version)
}

// storedRecord is the record of the lock as it is stored.
type storedRecord struct {
	Version int `json:"version"`
	physical.Record
}

func encodeRecord(r physical.Record) []byte {
	text, _ := json.Marshal(storedRecord{formatVersion, r}) // cannot fail
	return text
}

// decodeRecord reads the record of the lock, without a Holder if no session has it.
func decodeRecord(p *pair) (physical.Record, error) {
	if p == nil {
		return physical.Record{}, nil
	}
	var stored storedRecord
	if err := decode(p, &stored); err != nil {
		return physical.Record{}, err
	}
	if p.Session == "" {
		stored.Holder = ""
	}
	return stored.Record, newer(p, stored.Version)
}

func decode(p *pair, into any) error {
	if err := json.Unmarshal(p.Value, into); err != nil {
		return fmt.Errorf("%w: what is stored at %s is not Locum's: %v", physical.ErrUnavailable, p.Key, err)
	}
	return nil
}

// newer refuses what a later version of Locum has written.
func newer(p *pair, version int) error {
	if version > formatVersion {
		return fmt.Errorf("%w: %s has format %d, and this version of Locum knows %d: update this node", physical.ErrUnavailable, p.Key, version, formatVersion)
	}
	return nil
}
