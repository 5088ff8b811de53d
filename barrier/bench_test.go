package barrier

import (
	"context"
	"testing"

	"github.com/locum-ha/locum/physical"
)

// null stores nothing: what is measured is the barrier.
type null struct {
	physical.Backend
	value []byte
}

func (n *null) Get(_ context.Context, key string) (*physical.Entry, error) {
	return &physical.Entry{Key: key, Value: append(make([]byte, 0, len(n.value)), n.value...)}, nil
}
func (n *null) Commit(_ context.Context, _ *physical.Fence, ops ...physical.Op) error {
	if ops[len(ops)-1].Key != KeyKeyring {
		n.value = ops[len(ops)-1].Value
	}
	return nil
}

func BenchmarkBarrier(b *testing.B) {
	s := newSpy(b)
	bar := newBarrier(b, s, Options{})
	n := &null{Backend: s.Backend}
	bar.store = n
	v := bar.View(nil)
	value := make([]byte, 1024)
	b.Run("commit/1KiB", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(value)))
		for b.Loop() {
			if err := v.Commit(b.Context(), physical.Put("kv/data/some/entry/1", value)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("get/1KiB", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(value)))
		for b.Loop() {
			if _, err := v.Get(b.Context(), "kv/data/some/entry/1"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
