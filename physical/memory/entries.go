package memory

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/locum-ha/locum/physical"
)

// Get returns the entry at key.
func (h *Handle) Get(ctx context.Context, key string) (*physical.Entry, error) {
	if err := h.enter(ctx); err != nil {
		return nil, err
	}
	defer h.store.mu.Unlock()
	if err := physical.CheckKey(key); err != nil {
		return nil, err
	}
	value, ok := h.store.values[key]
	if !ok {
		return nil, physical.ErrNotFound
	}
	return &physical.Entry{Key: key, Value: bytes.Clone(value)}, nil
}

// List returns the direct children of prefix.
func (h *Handle) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if err := h.enter(ctx); err != nil {
		return nil, err
	}
	defer h.store.mu.Unlock()
	if err := physical.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	return h.store.children(prefix, after, limit), nil
}

// children walks the keys below prefix from the first one that can give a name greater than after. The
// keys of one folder stand together, so each folder is met once and then jumped over.
func (s *Store) children(prefix, after string, limit int) []string {
	var names []string
	at := s.search(prefix + after)
	for at < len(s.keys) && (limit <= 0 || len(names) < limit) {
		name, ok := strings.CutPrefix(s.keys[at], prefix)
		if !ok {
			break
		}
		if folder, _, ok := strings.Cut(name, "/"); ok {
			name = folder + "/"
			at = s.search(prefix + folder + "0") // "0" is the byte after "/"
		} else {
			at++
		}
		if name > after {
			names = append(names, name)
		}
	}
	return names
}

// search returns where key stands, or would stand, in keys.
func (s *Store) search(key string) int {
	at, _ := slices.BinarySearch(s.keys, key)
	return at
}

// Commit applies all ops or none.
func (h *Handle) Commit(ctx context.Context, fence *physical.Fence, ops ...physical.Op) error {
	if err := h.enter(ctx); err != nil {
		return err
	}
	defer h.store.mu.Unlock()
	s := h.store
	if err := s.caps.Check(ops); err != nil {
		return err
	}
	want := physical.Fence{}
	if fence != nil {
		want = *fence
	}
	if s.fence != want {
		return fmt.Errorf("%w: the store's fence is %v", physical.ErrFenced, s.fence)
	}
	for _, op := range ops {
		if err := s.checkCondition(op); err != nil {
			return err
		}
	}
	for _, op := range ops {
		s.apply(op)
	}
	return nil
}

func (s *Store) checkCondition(op physical.Op) error {
	value, exists := s.values[op.Key]
	switch {
	case op.Kind == physical.OpRequireAbsent && exists:
		return fmt.Errorf("%w: there is an entry at %q", physical.ErrConflict, op.Key)
	case op.Kind == physical.OpRequireValue && !exists:
		return fmt.Errorf("%w: there is no entry at %q", physical.ErrConflict, op.Key)
	case op.Kind == physical.OpRequireValue && !bytes.Equal(value, op.Value):
		return fmt.Errorf("%w: another value at %q", physical.ErrConflict, op.Key)
	}
	return nil
}

func (s *Store) apply(op physical.Op) {
	at, exists := slices.BinarySearch(s.keys, op.Key)
	switch op.Kind {
	case physical.OpPut:
		if !exists {
			s.keys = slices.Insert(s.keys, at, op.Key)
		}
		s.values[op.Key] = bytes.Clone(op.Value)
	case physical.OpDelete:
		if exists {
			s.keys = slices.Delete(s.keys, at, at+1)
			delete(s.values, op.Key)
		}
	}
}

// RaiseFence replaces the fence from by to.
func (h *Handle) RaiseFence(ctx context.Context, from, to physical.Fence) error {
	if err := h.enter(ctx); err != nil {
		return err
	}
	defer h.store.mu.Unlock()
	s := h.store
	if s.fence != from {
		return fmt.Errorf("%w: the store's fence is %v", physical.ErrFenced, s.fence)
	}
	if !from.Below(to) {
		return fmt.Errorf("%w: %v is not above %v", physical.ErrFenced, to, from)
	}
	s.fence = to
	return nil
}

// Fence returns the stored fence.
func (h *Handle) Fence(ctx context.Context) (physical.Fence, error) {
	if err := h.enter(ctx); err != nil {
		return physical.Fence{}, err
	}
	defer h.store.mu.Unlock()
	return h.store.fence, nil
}
