package etcd

import (
	"encoding/hex"
	"encoding/json"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/locum-ha/locum/physical"
)

// storedRecord is a record of the lock as it is stored.
type storedRecord struct {
	Version int `json:"version"`
	physical.Record
}

func encodeRecord(r physical.Record) string {
	text, _ := json.Marshal(storedRecord{formatVersion, r}) // cannot fail
	return string(text)
}

// decodeRecord reads a record; the zero Record where there is none.
func decodeRecord(kvs []*mvccpb.KeyValue) (physical.Record, error) {
	if len(kvs) == 0 {
		return physical.Record{}, nil
	}
	var r storedRecord
	if err := decode(kvs[0], &r); err != nil {
		return physical.Record{}, err
	}
	return r.Record, newer(kvs[0], r.Version)
}

// decodeFence reads the fence; the zero Fence where there is none.
func decodeFence(kvs []*mvccpb.KeyValue) (physical.Fence, error) {
	if len(kvs) == 0 {
		return physical.Fence{}, nil
	}
	var stored storedFence
	if err := decode(kvs[0], &stored); err != nil {
		return physical.Fence{}, err
	}
	f := physical.Fence{Lineage: stored.Lineage, Term: stored.Term}
	if n, err := hex.Decode(f.Nonce[:], []byte(stored.Nonce)); err != nil || n != len(f.Nonce) {
		return physical.Fence{}, fmt.Errorf("%w: the nonce at %s is damaged", physical.ErrUnavailable, kvs[0].Key)
	}
	return f, newer(kvs[0], stored.Version)
}

func decode(kv *mvccpb.KeyValue, into any) error {
	if err := json.Unmarshal(kv.Value, into); err != nil {
		return fmt.Errorf("%w: what is stored at %s is not Locum's: %v", physical.ErrUnavailable, kv.Key, err)
	}
	return nil
}

// newer refuses what a later version of Locum has written.
func newer(kv *mvccpb.KeyValue, version int) error {
	if version > formatVersion {
		return fmt.Errorf("%w: %s has format %d, and this version of Locum knows %d: update this node", physical.ErrUnavailable, kv.Key, version, formatVersion)
	}
	return nil
}
