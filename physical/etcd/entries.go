package etcd

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/locum-ha/locum/physical"
)

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
	resp, err := asked(ctx, s, func(ctx context.Context) (*clientv3.GetResponse, error) { return s.client.Get(ctx, s.entries+key) })
	if err != nil {
		return nil, failure(ctx, err, false)
	}
	if len(resp.Kvs) == 0 {
		return nil, physical.ErrNotFound
	}
	return &physical.Entry{Key: key, Value: resp.Kvs[0].Value}, nil
}

// pageSize is how many keys are asked for at a time.
const pageSize = 1000

// List returns the direct children of prefix. It reads pages of keys, and of each folder one page at most: the next one
// begins behind the folder.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	if err := physical.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	base := s.entries + prefix
	page := pageSize
	if limit > 0 {
		page = min(limit+1, pageSize)
	}
	var names []string
	from, to := base+after, clientv3.GetPrefixRangeEnd(base)
	for from < to {
		resp, err := asked(ctx, s, func(ctx context.Context) (*clientv3.GetResponse, error) {
			return s.client.Get(ctx, from, clientv3.WithRange(to), clientv3.WithLimit(int64(page)), clientv3.WithKeysOnly())
		})
		if err != nil {
			return nil, failure(ctx, err, false)
		}
		for _, kv := range resp.Kvs {
			key := string(kv.Key)
			if key < from {
				continue // of the folder before
			}
			from = key + "\x00"
			name := strings.TrimPrefix(key, base)
			if folder, _, ok := strings.Cut(name, "/"); ok {
				name = folder + "/"
				from = base + folder + "0" // "0" is the byte after "/"
			}
			if name > after {
				names = append(names, name)
			}
			if len(names) == limit && limit > 0 {
				return names, nil
			}
		}
		if !resp.More {
			break
		}
	}
	return names, nil
}

// Commit applies all ops or none, in one transaction with the comparison of the fence.
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
	conditions := []clientv3.Cmp{s.fenceIs(want)}
	var writes []clientv3.Op
	for _, op := range ops {
		key := s.entries + op.Key
		switch op.Kind {
		case physical.OpPut:
			writes = append(writes, clientv3.OpPut(key, string(op.Value)))
		case physical.OpDelete:
			writes = append(writes, clientv3.OpDelete(key))
		case physical.OpRequireAbsent:
			conditions = append(conditions, clientv3.Compare(clientv3.CreateRevision(key), "=", 0))
		case physical.OpRequireValue:
			conditions = append(conditions, clientv3.Compare(clientv3.Value(key), "=", string(op.Value)))
		}
	}
	resp, err := s.client.Txn(ctx).If(conditions...).Then(writes...).Else(clientv3.OpGet(s.fence)).Commit()
	if err != nil {
		return failure(ctx, err, len(writes) > 0)
	}
	if resp.Succeeded {
		return nil
	}
	now, err := decodeFence(resp.Responses[0].GetResponseRange().Kvs)
	if err != nil {
		return err
	}
	if now != want {
		return fmt.Errorf("%w: the store's fence is %v", physical.ErrFenced, now)
	}
	return fmt.Errorf("%w: an entry is not as required", physical.ErrConflict)
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
	resp, err := s.client.Txn(ctx).If(s.fenceIs(from)).Then(clientv3.OpPut(s.fence, encodeFence(to))).Else(clientv3.OpGet(s.fence)).Commit()
	if err != nil {
		if now, again := s.readFence(ctx); again == nil && now == to {
			return nil
		}
		return failure(ctx, err, true)
	}
	if resp.Succeeded {
		return nil
	}
	now, err := decodeFence(resp.Responses[0].GetResponseRange().Kvs)
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: the store's fence is %v", physical.ErrFenced, now)
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
	resp, err := asked(ctx, s, func(ctx context.Context) (*clientv3.GetResponse, error) { return s.client.Get(ctx, s.fence) })
	if err != nil {
		return physical.Fence{}, failure(ctx, err, false)
	}
	return decodeFence(resp.Kvs)
}

// fenceIs is the comparison that a transaction begins with.
func (s *Store) fenceIs(f physical.Fence) clientv3.Cmp {
	if f.IsZero() {
		return clientv3.Compare(clientv3.CreateRevision(s.fence), "=", 0)
	}
	return clientv3.Compare(clientv3.Value(s.fence), "=", encodeFence(f))
}

// storedFence is the fence as it is stored. Its encoding is compared byte by byte: it never changes.
type storedFence struct {
	Version int    `json:"version"`
	Lineage string `json:"lineage"`
	Term    uint64 `json:"term"`
	Nonce   string `json:"nonce"`
}

const formatVersion = 1

func encodeFence(f physical.Fence) string {
	text, _ := json.Marshal(storedFence{formatVersion, f.Lineage, f.Term, hex.EncodeToString(f.Nonce[:])}) // cannot fail
	return string(text)
}
