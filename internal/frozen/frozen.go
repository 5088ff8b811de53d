// Package frozen holds vectors that several stores share: what one of them has once written, every later version reads, and writes the
// same. It is for their tests.
package frozen

import (
	"context"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
)

// The fence and the lock's record of all vectors.
var (
	Fence  = physical.Fence{Lineage: "l", Term: 7, Nonce: [16]byte{0: 1, 15: 0xff}}
	Record = physical.Record{Holder: "id", Name: "node", Term: 7, Next: "other"}
)

const (
	fenceText  = `{"version":1,"lineage":"l","term":7,"nonce":"010000000000000000000000000000ff"}`
	recordText = `{"version":1,"holder":"id","name":"node","term":7,"next":"other"}`
)

// Texts is how a store that keeps fence and record as text writes and reads them.
type Texts struct {
	EncodeFence  func(physical.Fence) string
	DecodeFence  func(string) (physical.Fence, error)
	EncodeRecord func(physical.Record) string
	DecodeRecord func(string) (physical.Record, error)
}

// Check compares the texts byte by byte: some stores compare what is stored, or a hash of it, themselves.
func (x Texts) Check(t *testing.T) {
	t.Helper()
	if got := x.EncodeFence(Fence); got != fenceText {
		t.Errorf("the fence is now %s, want %s", got, fenceText)
	}
	if back, err := x.DecodeFence(fenceText); err != nil || back != Fence {
		t.Errorf("fence %+v, %v", back, err)
	}
	if got := x.EncodeRecord(Record); got != recordText {
		t.Errorf("the record is now %s, want %s", got, recordText)
	}
	if back, err := x.DecodeRecord(recordText); err != nil || back != Record {
		t.Errorf("record %+v, %v", back, err)
	}
	if _, err := x.DecodeRecord(`{"version":2}`); err == nil {
		t.Error("a newer format is taken")
	}
}

// Rows checks a store of rows. s was opened on those of the first version: Fence, a free lock of Record's term, and the entry "a/b"
// with the value 00 ff. What s then writes is shown by dump, and is to be want.
func Rows(t *testing.T, s interface {
	physical.Backend
	physical.HABackend
}, dump func() string, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if e, err := s.Get(ctx, "a/b"); err != nil || string(e.Value) != "\x00\xff" {
		t.Errorf("the entry is %v, %v", e, err)
	}
	if f, err := s.Fence(ctx); err != nil || f != Fence {
		t.Errorf("the fence is %+v, %v", f, err)
	}
	g, err := s.Acquire(ctx, physical.Record{Holder: Record.Holder, Name: Record.Name}, time.Minute, 0)
	if err != nil || g.Term() != Record.Term+1 {
		t.Errorf("the lock was taken with %+v, %v", g, err)
	}
	raised := physical.Fence{Lineage: Fence.Lineage, Term: g.Term(), Nonce: [16]byte{15: 2}}
	if err := s.RaiseFence(ctx, Fence, raised); err != nil {
		t.Errorf("the fence was not raised: %v", err)
	}
	if err := s.Commit(ctx, &raised, physical.Put("ü", []byte{0xff, 0})); err != nil {
		t.Errorf("nothing was written: %v", err)
	}
	if got := dump(); got != want {
		t.Errorf("the rows are now\n%s\nwant\n%s", got, want)
	}
}
