package zookeeper

import (
	"testing"

	"github.com/locum-ha/locum/physical"
)

// What stands in the store stays readable, and is compared byte by byte: these are frozen.
func TestFrozenFormats(t *testing.T) {
	f := physical.Fence{Lineage: "l", Term: 7, Nonce: [16]byte{0: 1, 15: 0xff}}
	const fence = `{"version":1,"lineage":"l","term":7,"nonce":"010000000000000000000000000000ff"}`
	if got := string(encodeFence(f)); got != fence {
		t.Errorf("the fence is now %s, want %s", got, fence)
	}
	if back, err := decodeFence([]byte(fence)); err != nil || back != f {
		t.Errorf("fence %+v, %v", back, err)
	}
	r := physical.Record{Holder: "id", Name: "node", Term: 7, Next: "other"}
	const record = `{"version":1,"holder":"id","name":"node","term":7,"next":"other"}`
	if got := string(encodeRecord(r)); got != record {
		t.Errorf("the record is now %s, want %s", got, record)
	}
	if back, err := decodeRecord([]byte(record)); err != nil || back != r {
		t.Errorf("record %+v, %v", back, err)
	}
	if _, err := decodeRecord([]byte(`{"version":2}`)); err == nil {
		t.Error("a newer format is taken")
	}
}
