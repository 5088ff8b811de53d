package file

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	bolt "go.etcd.io/bbolt"

	"github.com/locum-ha/locum/physical"
)

// Get returns the entry at key.
func (s *Store) Get(ctx context.Context, key string) (*physical.Entry, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	if err := physical.CheckKey(key); err != nil {
		return nil, err
	}
	var value []byte
	err := s.view(ctx, func(tx *bolt.Tx) error {
		stored := tx.Bucket(entriesBucket).Get([]byte(key))
		if stored == nil {
			return physical.ErrNotFound
		}
		held, err := decode(key, stored)
		value = bytes.Clone(held) // here: the transaction's memory is gone with it
		return err
	})
	if err != nil {
		return nil, err
	}
	return &physical.Entry{Key: key, Value: value}, nil
}

// encode puts the format's number before a value.
func encode(value []byte) []byte {
	stored := make([]byte, 1+len(value))
	stored[0] = format
	copy(stored[1:], value)
	return stored
}

// decode returns the value in what is stored. It is bbolt's memory, valid during the transaction.
func decode(key string, stored []byte) ([]byte, error) {
	if len(stored) == 0 || stored[0] != format {
		return nil, fmt.Errorf("%w: the entry at %q is %w", physical.ErrUnavailable, key, ErrNewerFormat)
	}
	return stored[1:], nil
}

// List returns the direct children of prefix.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	if err := physical.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	var names []string
	err := s.view(ctx, func(tx *bolt.Tx) error {
		names = children(ctx, tx.Bucket(entriesBucket).Cursor(), prefix, after, limit)
		return ctx.Err()
	})
	return names, err
}

// children walks the keys below prefix from the first one that can give a name greater than after. The
// keys of one folder stand together, so each folder is met once and then jumped over.
func children(ctx context.Context, c *bolt.Cursor, prefix, after string, limit int) []string {
	var names []string
	key, _ := c.Seek([]byte(prefix + after))
	for key != nil && (limit <= 0 || len(names) < limit) && ctx.Err() == nil {
		name, ok := strings.CutPrefix(string(key), prefix)
		if !ok {
			break
		}
		if folder, _, ok := strings.Cut(name, "/"); ok {
			name = folder + "/"
			key, _ = c.Seek([]byte(prefix + folder + "0")) // "0" is the byte after "/"
		} else {
			key, _ = c.Next()
		}
		if name > after {
			names = append(names, name)
		}
	}
	return names
}

// storedFence is the fence as it is stored.
type storedFence struct {
	Format  int    `json:"format"`
	Lineage string `json:"lineage"`
	Term    uint64 `json:"term"`
	Nonce   []byte `json:"nonce"`
}

// Fence returns the stored fence.
func (s *Store) Fence(ctx context.Context) (physical.Fence, error) {
	var f physical.Fence
	err := s.view(ctx, func(tx *bolt.Tx) (err error) {
		f, err = readFence(tx)
		return err
	})
	return f, err
}

func readFence(tx *bolt.Tx) (physical.Fence, error) {
	text := tx.Bucket(metaBucket).Get(fenceKey)
	if text == nil {
		return physical.Fence{}, nil
	}
	var stored storedFence
	if err := json.Unmarshal(text, &stored); err != nil {
		return physical.Fence{}, fmt.Errorf("%w: the fence is %w: %w", physical.ErrUnavailable, ErrDamaged, err)
	}
	f := physical.Fence{Lineage: stored.Lineage, Term: stored.Term}
	if stored.Format != format || copy(f.Nonce[:], stored.Nonce) != len(f.Nonce) {
		return physical.Fence{}, fmt.Errorf("%w: the fence is %w", physical.ErrUnavailable, ErrNewerFormat)
	}
	return f, nil
}

func writeFence(tx *bolt.Tx, f physical.Fence) error {
	text, err := json.Marshal(storedFence{Format: format, Lineage: f.Lineage, Term: f.Term, Nonce: f.Nonce[:]})
	if err != nil {
		return err
	}
	return tx.Bucket(metaBucket).Put(fenceKey, text)
}
