package etcd

import (
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/locum-ha/locum/internal/frozen"
	"github.com/locum-ha/locum/physical"
)

// What stands in the store stays readable.
func TestFrozenFormats(t *testing.T) {
	stored := func(text string) []*mvccpb.KeyValue { return []*mvccpb.KeyValue{{Value: []byte(text)}} }
	frozen.Texts{
		EncodeFence:  encodeFence,
		DecodeFence:  func(text string) (physical.Fence, error) { return decodeFence(stored(text)) },
		EncodeRecord: encodeRecord,
		DecodeRecord: func(text string) (physical.Record, error) { return decodeRecord(stored(text)) },
	}.Check(t)
}
