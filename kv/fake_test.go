package kv

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/memory"
)

// plainView is a store without a barrier, for one leadership.
type plainView struct {
	store physical.Backend
	fence *physical.Fence

	mu       sync.Mutex
	onCommit func(ops []physical.Op, commit func() error) error
	onGet    func(key string)
	gets     int
}

func (v *plainView) Get(ctx context.Context, key string) (*physical.Entry, error) {
	v.mu.Lock()
	v.gets++
	f := v.onGet
	v.mu.Unlock()
	if f != nil {
		f(key)
	}
	return v.store.Get(ctx, key)
}

func (v *plainView) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	return v.store.List(ctx, prefix, after, limit)
}

func (v *plainView) Commit(ctx context.Context, ops ...physical.Op) error {
	v.mu.Lock()
	f := v.onCommit
	v.mu.Unlock()
	commit := func() error { return v.store.Commit(ctx, v.fence, ops...) }
	if f != nil {
		return f(ops, commit)
	}
	return commit()
}

func (v *plainView) Caps() physical.Caps { return v.store.Caps() }

func (v *plainView) setCommit(f func(ops []physical.Op, commit func() error) error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.onCommit = f
}

func newView(t testing.TB, limits ...physical.Caps) *plainView {
	t.Helper()
	var options []memory.Option
	for _, l := range limits {
		options = append(options, memory.WithLimits(l))
	}
	h := memory.NewStore(options...).Open()
	t.Cleanup(func() { _ = h.Close() })
	return &plainView{store: h}
}

// newStore makes a store whose clock goes one second at each look.
func newStore(t testing.TB, limits ...physical.Caps) (*Store, *plainView) {
	t.Helper()
	v := newView(t, limits...)
	s := New(v)
	c := &clock{t: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)}
	s.now = c.now
	return s, v
}

// apart has s keep all data in entries of their own, as those that are too long to lie with the metadata.
func apart(s *Store) *Store {
	s.inline = -1
	return s
}

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(time.Second)
	return c.t
}

func ptr[T any](v T) *T { return &v }

func write(t testing.TB, s *Store, path, data string) *VersionMetadata {
	t.Helper()
	m, err := s.Write(t.Context(), path, Object(data), WriteOptions{})
	if err != nil {
		t.Fatalf("write %s: %v", path, err)
	}
	return m
}

func read(t testing.TB, s *Store, path string, version uint64) string {
	t.Helper()
	secret, err := s.Read(t.Context(), path, version)
	if err != nil {
		return fmt.Sprint(err)
	}
	if version != 0 && secret.Metadata.Version != version {
		t.Errorf("read %s: version %d, not %d", path, secret.Metadata.Version, version)
	}
	return string(secret.Data)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// keys lists all keys of the store below a prefix.
func keys(t testing.TB, v *plainView, prefix string) (all []string) {
	t.Helper()
	names, err := v.store.List(t.Context(), prefix, "", 0)
	must(t, err)
	for _, n := range names {
		if n[len(n)-1] == '/' {
			all = append(all, keys(t, v, prefix+n)...)
		} else {
			all = append(all, prefix+n)
		}
	}
	return all
}
