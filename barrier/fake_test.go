package barrier

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/memory"
)

// spy is a store whose calls are counted, and whose commits can be made to fail.
type spy struct {
	physical.Backend
	keyringReads  atomic.Int64
	keyringWrites atomic.Int64

	mu       sync.Mutex
	onCommit func(ops []physical.Op, commit func() error) error
	onGet    func(key string)
}

func newSpy(t testing.TB, limits ...physical.Caps) *spy {
	t.Helper()
	var options []memory.Option
	for _, l := range limits {
		options = append(options, memory.WithLimits(l))
	}
	h := memory.NewStore(options...).Open()
	t.Cleanup(func() { _ = h.Close() })
	return &spy{Backend: h}
}

func (s *spy) Get(ctx context.Context, key string) (*physical.Entry, error) {
	if key == KeyKeyring {
		s.keyringReads.Add(1)
	}
	s.mu.Lock()
	onGet := s.onGet
	s.mu.Unlock()
	if onGet != nil {
		onGet(key)
	}
	return s.Backend.Get(ctx, key)
}

func (s *spy) Commit(ctx context.Context, fence *physical.Fence, ops ...physical.Op) error {
	for _, op := range ops {
		if op.Kind == physical.OpPut && op.Key == KeyKeyring {
			s.keyringWrites.Add(1)
		}
	}
	s.mu.Lock()
	onCommit := s.onCommit
	s.mu.Unlock()
	commit := func() error { return s.Backend.Commit(ctx, fence, ops...) }
	if onCommit != nil {
		return onCommit(ops, commit)
	}
	return commit()
}

func (s *spy) setCommit(f func(ops []physical.Op, commit func() error) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onCommit = f
}

func (s *spy) raw(t testing.TB, key string) []byte {
	t.Helper()
	e, err := s.Backend.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return e.Value
}

// put writes to the store behind the barrier's back, under the fence that it has.
func (s *spy) put(t testing.TB, key string, value []byte) {
	t.Helper()
	fence, err := s.Fence(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f := &fence
	if fence.IsZero() {
		f = nil
	}
	if err := s.Backend.Commit(t.Context(), f, physical.Put(key, value)); err != nil {
		t.Fatal(err)
	}
}

var testRoot = bytes.Repeat([]byte{7}, KeySize)

func newBarrier(t testing.TB, s physical.Backend, o Options) *Barrier {
	t.Helper()
	b := New(s, o)
	if ok, err := b.Initialized(t.Context()); err != nil {
		t.Fatal(err)
	} else if !ok {
		if err := b.Initialize(t.Context(), testRoot); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Unseal(t.Context(), testRoot); err != nil {
		t.Fatal(err)
	}
	return b
}

func mustGet(t testing.TB, v *View, key, want string) {
	t.Helper()
	e, err := v.Get(t.Context(), key)
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	if e.Key != key || string(e.Value) != want {
		t.Fatalf("get %s: %q is %q, want %q", key, e.Key, e.Value, want)
	}
}

func mustPut(t testing.TB, v *View, key, value string) {
	t.Helper()
	if err := v.Commit(t.Context(), physical.Put(key, []byte(value))); err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}
