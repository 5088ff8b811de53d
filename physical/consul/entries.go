package consul

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/locum-ha/locum/physical"
)

var rawValue = url.Values{"consistent": {""}, "raw": {""}}

// key is where the entry of that name is stored.
func (s *Store) key(name string) string { return s.entries + escape(name) }

// Get returns the entry at key.
func (s *Store) Get(ctx context.Context, key string) (*physical.Entry, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	if err := physical.CheckKey(key); err != nil {
		return nil, err
	}
	if len(key) > maxKey {
		return nil, physical.ErrNotFound
	}
	got, err := s.api.do(ctx, http.MethodGet, kvPath(s.key(key)), rawValue, nil)
	if err != nil {
		return nil, failure(ctx, err, false)
	}
	switch got.status {
	case http.StatusOK:
		return &physical.Entry{Key: key, Value: got.body}, nil
	case http.StatusNotFound:
		return nil, physical.ErrNotFound
	}
	return nil, refusal(got, false)
}

// List returns the direct children of prefix. Consul gives all of them in one answer, names only, and has no pages.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	if err := physical.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	base := s.key(prefix)
	got, err := s.api.do(ctx, http.MethodGet, kvPath(base), url.Values{"consistent": {""}, "keys": {""}, "separator": {"/"}}, nil)
	switch {
	case err != nil:
		return nil, failure(ctx, err, false)
	case got.status == http.StatusNotFound:
		return nil, nil
	case got.status != http.StatusOK:
		return nil, refusal(got, false)
	}
	var keys []string
	if err := json.Unmarshal(got.body, &keys); err != nil {
		return nil, fmt.Errorf("%w: Consul's answer is not a list of keys: %v", physical.ErrUnavailable, err)
	}
	var names []string
	for _, key := range keys {
		if name := unescape(strings.TrimPrefix(key, base)); name > after {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if limit > 0 && len(names) > limit {
		names = names[:limit]
	}
	return names, nil
}

// commitAttempts is how often a commit is tried whose required values others write meanwhile without changing them.
const commitAttempts = 10

// Commit applies all ops or none, in one transaction that begins with the fence.
func (s *Store) Commit(ctx context.Context, fence *physical.Fence, ops ...physical.Op) error {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := s.caps.Check(ops); err != nil {
		return err
	}
	want := physical.Fence{}
	if fence != nil {
		want = *fence
	}
	for range commitAttempts {
		retry, err := s.commitOnce(ctx, want, ops)
		if !retry {
			return err
		}
	}
	return fmt.Errorf("%w: the entries required were written over and over meanwhile", physical.ErrUnavailable)
}

// commitOnce reads what values are required, and makes the transaction. It is to be retried if one of them was
// written between.
func (s *Store) commitOnce(ctx context.Context, fence physical.Fence, ops []physical.Op) (retry bool, err error) {
	all := []op{s.fenceOp(fence)}
	var writes []op
	for _, o := range ops {
		key := s.key(o.Key)
		switch o.Kind {
		case physical.OpPut:
			writes = append(writes, op{Verb: "set", Key: key, Value: o.Value})
		case physical.OpDelete:
			writes = append(writes, op{Verb: "delete", Key: key})
		case physical.OpRequireAbsent:
			all = append(all, op{Verb: "check-not-exists", Key: key})
		case physical.OpRequireValue:
			now, _, err := s.api.get(ctx, key, consistent)
			if err != nil {
				return false, err
			}
			if now == nil || !bytes.Equal(now.Value, o.Value) {
				return false, s.fencedOr(ctx, fence, fmt.Errorf("%w: the entry at %q is not as required", physical.ErrConflict, o.Key))
			}
			all = append(all, op{Verb: "check-index", Key: key, Index: now.ModifyIndex})
		}
	}
	failed, err := s.api.txn(ctx, append(all, writes...))
	if err != nil || len(failed) == 0 {
		return false, err
	}
	for _, f := range failed {
		if f.OpIndex == 0 {
			return false, s.fenced(ctx)
		}
	}
	for _, f := range failed {
		if f.OpIndex < 0 || f.OpIndex >= len(all) {
			return false, fmt.Errorf("%w: Consul refuses to write: %s", physical.ErrUnavailable, f.What)
		}
		if all[f.OpIndex].Verb == "check-not-exists" {
			return false, fmt.Errorf("%w: there is an entry at %q", physical.ErrConflict, unescape(strings.TrimPrefix(all[f.OpIndex].Key, s.entries)))
		}
	}
	return true, nil
}

// fencedOr returns ErrFenced if the fence is another one by now, and err if it is not.
func (s *Store) fencedOr(ctx context.Context, want physical.Fence, err error) error {
	now, again := s.readFence(ctx)
	if again != nil {
		return again
	}
	if now != want {
		return fmt.Errorf("%w: the store's fence is %v", physical.ErrFenced, now)
	}
	return err
}

func (s *Store) fenced(ctx context.Context) error {
	now, err := s.readFence(ctx)
	if err != nil {
		return fmt.Errorf("%w: which one it is cannot be read now", physical.ErrFenced)
	}
	return fmt.Errorf("%w: the store's fence is %v", physical.ErrFenced, now)
}

// fenceOp fails unless the fence is f.
func (s *Store) fenceOp(f physical.Fence) op {
	if f.IsZero() {
		return op{Verb: "check-not-exists", Key: s.fence}
	}
	return op{Verb: "get", Key: s.fenceKey(f)}
}

// RaiseFence replaces the fence from by to. An unclear outcome is settled by reading back the nonce, while ctx lasts.
func (s *Store) RaiseFence(ctx context.Context, from, to physical.Fence) error {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if !from.Below(to) {
		return fmt.Errorf("%w: %v is not above %v", physical.ErrFenced, to, from)
	}
	ops := []op{s.fenceOp(from)}
	if !from.IsZero() {
		ops = append(ops, op{Verb: "delete", Key: s.fenceKey(from)})
	}
	ops = append(ops, op{Verb: "set", Key: s.fenceKey(to)}, op{Verb: "set", Key: s.fence, Value: encodeFence(to)})
	failed, err := s.api.txn(ctx, ops)
	if err != nil {
		if now, again := s.readFence(ctx); again == nil && now == to {
			return nil
		}
		return err
	}
	if len(failed) > 0 {
		return s.fenced(ctx)
	}
	return nil
}

// Fence returns the stored fence.
func (s *Store) Fence(ctx context.Context) (physical.Fence, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return physical.Fence{}, err
	}
	defer end()
	return s.readFence(ctx)
}

func (s *Store) readFence(ctx context.Context) (physical.Fence, error) {
	p, _, err := s.api.get(ctx, s.fence, consistent)
	if err != nil {
		return physical.Fence{}, err
	}
	return decodeFence(p)
}
