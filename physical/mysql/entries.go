package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/locum-ha/locum/physical"
)

// Get returns the entry at key.
func (s *Store) Get(ctx context.Context, key string) (*physical.Entry, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	if err := physical.CheckKey(key); err != nil {
		return nil, err
	}
	e := &physical.Entry{Key: key}
	if err := s.query(ctx, s.db, false, "SELECT v FROM "+s.schema.entries+" WHERE k = ?", []any{[]byte(key)}, &e.Value); err != nil {
		return nil, err
	}
	return e, nil
}

const (
	firstPage = 100
	mostPage  = 5000
)

// List returns the direct children of prefix. It reads keys in pages, longer ones as it goes on, and jumps over the rest of a
// folder at the end of each page.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	if err := physical.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	from, end := prefix+after, "\xff" // which no key in UTF-8 begins with
	if prefix != "" {
		end = prefix[:len(prefix)-1] + "0" // "0" is the byte after "/"
	}
	var names []string
	for page := firstPage; ; page = min(2*page, mostPage) {
		if limit > 0 {
			page = min(page, max(limit-len(names)+1, 10))
		}
		keys, err := s.page(ctx, from, end, page)
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			name := strings.TrimPrefix(key, prefix)
			from = key + "\x00"
			if folder, _, below := strings.Cut(name, "/"); below {
				name = folder + "/"
				from = prefix + folder + "0"
			}
			if name > after && (len(names) == 0 || names[len(names)-1] != name) {
				names = append(names, name)
			}
			if limit > 0 && len(names) == limit {
				return names, nil
			}
		}
		if len(keys) < page {
			return names, nil
		}
	}
}

// page reads the next keys.
func (s *Store) page(ctx context.Context, from, end string, limit int) (keys []string, err error) {
	err = s.on(ctx, s.db, false, func(conn *sql.Conn) error {
		keys = keys[:0]
		rows, err := conn.QueryContext(ctx, "SELECT k FROM "+s.schema.entries+" WHERE k >= ? AND k < ? ORDER BY k LIMIT ?", []byte(from), []byte(end), limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var key string
			if err := rows.Scan(&key); err != nil {
				return err
			}
			keys = append(keys, key)
		}
		return rows.Err()
	})
	return keys, err
}

// Fence returns the stored fence.
func (s *Store) Fence(ctx context.Context) (physical.Fence, error) {
	var f physical.Fence
	var nonce []byte
	var format int
	err := s.query(ctx, s.calls, false, "SELECT lineage, term, nonce, format FROM "+s.schema.fence+" WHERE id = 1", nil, &f.Lineage, &f.Term, &nonce, &format)
	if err != nil {
		return physical.Fence{}, err
	}
	copy(f.Nonce[:], nonce)
	return f, newer(s.schema.fence, format)
}

// RaiseFence replaces the fence from by to.
func (s *Store) RaiseFence(ctx context.Context, from, to physical.Fence) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	if !from.Below(to) {
		return fmt.Errorf("%w: %v is not above %v", physical.ErrFenced, to, from)
	}
	if len(to.Lineage) > 255 {
		return fmt.Errorf("%w: a lineage of %d bytes", physical.ErrInvalid, len(to.Lineage))
	}
	raised, err := s.raise(ctx, "UPDATE "+s.schema.fence+" SET lineage = ?, term = ?, nonce = ? WHERE id = 1 AND lineage = ? AND term = ? AND nonce = ?",
		[]byte(to.Lineage), to.Term, to.Nonce[:], []byte(from.Lineage), from.Term, from.Nonce[:])
	if err != nil {
		return err
	}
	if !raised {
		return fmt.Errorf("%w: the store's fence is not %v", physical.ErrFenced, from)
	}
	return nil
}
