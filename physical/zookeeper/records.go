package zookeeper

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

// fenceNode is the node that exists while the fence is f.
func (s *Store) fenceNode(f physical.Fence) string {
	if f.IsZero() {
		return s.fence + "/none"
	}
	sum := sha256.Sum256(encodeFence(f))
	return s.fence + "/" + hex.EncodeToString(sum[:])
}

// decodeFence reads the fence; the zero Fence where none was raised yet.
func decodeFence(data []byte) (physical.Fence, error) {
	if len(data) == 0 {
		return physical.Fence{}, nil
	}
	var stored storedFence
	if err := decode("fence", data, &stored); err != nil {
		return physical.Fence{}, err
	}
	f := physical.Fence{Lineage: stored.Lineage, Term: stored.Term}
	if n, err := hex.Decode(f.Nonce[:], []byte(stored.Nonce)); err != nil || n != len(f.Nonce) {
		return physical.Fence{}, fmt.Errorf("%w: the nonce of the stored fence is damaged", physical.ErrUnavailable)
	}
	return f, newer("fence", stored.Version)
}

// storedRecord is a record of the lock as it is stored.
type storedRecord struct {
	Version int `json:"version"`
	physical.Record
}

func encodeRecord(r physical.Record) []byte {
	text, _ := json.Marshal(storedRecord{formatVersion, r}) // cannot fail
	return text
}

func decodeRecord(data []byte) (physical.Record, error) {
	var stored storedRecord
	if err := decode("lock's record", data, &stored); err != nil {
		return physical.Record{}, err
	}
	return stored.Record, newer("lock's record", stored.Version)
}

func decode(what string, data []byte, into any) error {
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%w: what is stored as the %s is not Locum's: %v", physical.ErrUnavailable, what, err)
	}
	return nil
}

// newer refuses what a later version of Locum has written.
func newer(what string, version int) error {
	if version > formatVersion {
		return fmt.Errorf("%w: the stored %s has format %d, and this version of Locum knows %d: update this node", physical.ErrUnavailable, what, version, formatVersion)
	}
	return nil
}
