package zookeeper

import (
	"testing"

	"github.com/locum-ha/locum/internal/frozen"
	"github.com/locum-ha/locum/physical"
)

// What stands in the store stays readable.
func TestFrozenFormats(t *testing.T) {
	frozen.Texts{
		EncodeFence:  func(f physical.Fence) string { return string(encodeFence(f)) },
		DecodeFence:  func(text string) (physical.Fence, error) { return decodeFence([]byte(text)) },
		EncodeRecord: func(r physical.Record) string { return string(encodeRecord(r)) },
		DecodeRecord: func(text string) (physical.Record, error) { return decodeRecord([]byte(text)) },
	}.Check(t)
}
