package locum

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/locum-ha/locum/internal/server"
	"github.com/locum-ha/locum/physical"
)

// What the entries' methods return, besides ErrNotActive and what the data store says of itself.
var (
	// ErrNotFound: there is no entry under this key.
	ErrNotFound = physical.ErrNotFound
	// ErrConflict: a condition of the commit does not hold; nothing was written.
	ErrConflict = physical.ErrConflict
	// ErrUnknown: whether the commit was written is not known. It was, or it never will be.
	ErrUnknown = physical.ErrUnknown
)

// prefixEntries is where a program's entries lie.
const prefixEntries = "program/"

// Entries are a program's own, kept in the storage: encrypted, read and written on the active node, and every commit fenced by
// its term. What a commit without error wrote is found by every later active node (P3); a node that is not active any more,
// and may not know it, writes nothing (P1), and what it reads is refused (P4).
//
// A ctx that Locum made, that of OnActive or of a request, belongs to one term: with it, the methods work in that term or return
// ErrNotActive. With another ctx they work in whatever term this node leads. For big data, or data that many nodes
// read, use a database, and Locum's term to fence it.
type Entries struct{ node *Node }

// Entries returns the program's entries.
func (n *Node) Entries() *Entries { return &Entries{n} }

// Version identifies one write of one entry: no other write, of any entry at any time, has the same. The zero Version is that of
// an entry that is not there.
type Version struct{ Term, Number uint64 }

// Entry is a stored value.
type Entry struct {
	Key     string
	Value   []byte
	Version Version
}

// Change is one part of a commit: Put, Delete, and conditions.
type Change struct {
	op  op
	key string
	val []byte
	ver Version
}

type op uint8

const (
	opPut op = iota
	opDelete
	opIf
)

// Put writes value under key: a path of text without empty, "." or ".." segments.
func Put(key string, value []byte) Change { return Change{op: opPut, key: key, val: value} }

// Delete removes the entry, if it is there.
func Delete(key string) Change { return Change{op: opDelete, key: key} }

// If lets the commit happen only while the entry has this version; with the zero Version, only while it is not there.
func If(key string, v Version) Change { return Change{op: opIf, key: key, ver: v} }

// Get returns the entry, or ErrNotFound.
func (e *Entries) Get(ctx context.Context, key string) (Entry, error) {
	t, err := e.tenure(ctx)
	if err != nil {
		return Entry{}, fmt.Errorf("get %q: %w", key, err)
	}
	entry, _, err := get(ctx, t, key)
	if err != nil {
		return Entry{}, fmt.Errorf("get %q: %w", key, err)
	}
	if !t.Valid() {
		return Entry{}, fmt.Errorf("get %q: %w", key, ErrNotActive)
	}
	return entry, nil
}

// List returns the names directly below prefix, which is "" or ends in "/", in ascending order: entries, and folders with "/" at
// their end. Only names greater than after, at most limit of them where that is above 0.
func (e *Entries) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	t, err := e.tenure(ctx)
	if err != nil {
		return nil, fmt.Errorf("list %q: %w", prefix, err)
	}
	if err := physical.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	names, err := t.View.List(ctx, prefixEntries+prefix, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list %q: %w", prefix, t.Settle(err))
	}
	if !t.Valid() {
		return nil, fmt.Errorf("list %q: %w", prefix, ErrNotActive)
	}
	return names, nil
}

// Put writes one entry and returns its version. Conditions (If) may be added.
func (e *Entries) Put(ctx context.Context, key string, value []byte, conditions ...Change) (Version, error) {
	return e.Commit(ctx, append([]Change{Put(key, value)}, conditions...)...)
}

// Delete removes one entry. Conditions (If) may be added.
func (e *Entries) Delete(ctx context.Context, key string, conditions ...Change) error {
	_, err := e.Commit(ctx, append([]Change{Delete(key)}, conditions...)...)
	return err
}

// Commit carries out all changes or none, and returns the version that all entries have that it put. ErrConflict if a
// condition does not hold.
func (e *Entries) Commit(ctx context.Context, changes ...Change) (Version, error) {
	t, err := e.tenure(ctx)
	if err != nil {
		return Version{}, fmt.Errorf("commit: %w", err)
	}
	version := Version{Term: t.Term, Number: t.Next()}
	ops := make([]physical.Op, 0, len(changes))
	for _, c := range changes {
		if err := physical.CheckKey(c.key); err != nil {
			return Version{}, err
		}
		switch c.op {
		case opPut:
			ops = append(ops, physical.Put(prefixEntries+c.key, encode(version, c.val)))
		case opDelete:
			ops = append(ops, physical.Delete(prefixEntries+c.key))
		case opIf:
			condition, err := c.condition(ctx, t)
			if err != nil {
				return Version{}, err
			}
			ops = append(ops, condition)
		}
	}
	if err := t.View.Commit(ctx, ops...); err != nil {
		return Version{}, fmt.Errorf("commit: %w", t.Settle(err))
	}
	return version, nil
}

// condition is If as the store has it: on the value that the entry has in this version.
func (c Change) condition(ctx context.Context, t *server.Tenure) (physical.Op, error) {
	if c.ver == (Version{}) {
		return physical.RequireAbsent(prefixEntries + c.key), nil
	}
	now, raw, err := get(ctx, t, c.key)
	if errors.Is(err, ErrNotFound) || err == nil && now.Version != c.ver {
		return physical.Op{}, fmt.Errorf("commit: %q is not the version that was asked for: %w", c.key, ErrConflict)
	}
	if err != nil {
		return physical.Op{}, fmt.Errorf("commit: %q: %w", c.key, err)
	}
	return physical.RequireValue(prefixEntries+c.key, raw), nil
}

func (e *Entries) tenure(ctx context.Context) (*server.Tenure, error) {
	s := e.node.running()
	if s == nil {
		return nil, ErrNotActive
	}
	return s.Tenure(ctx)
}

func get(ctx context.Context, t *server.Tenure, key string) (entry Entry, raw []byte, err error) {
	if err := physical.CheckKey(key); err != nil {
		return Entry{}, nil, err
	}
	stored, err := t.View.Get(ctx, prefixEntries+key)
	if err != nil {
		return Entry{}, nil, t.Settle(err)
	}
	version, value, err := decode(stored.Value)
	return Entry{Key: key, Value: value, Version: version}, stored.Value, err
}

// The stored format: 1 (1 B) | term, number (8 B each, big endian) | value.
const (
	entryFormat = 1
	entryHead   = 17
)

func encode(v Version, value []byte) []byte {
	b := make([]byte, 0, entryHead+len(value))
	b = append(b, entryFormat)
	b = binary.BigEndian.AppendUint64(b, v.Term)
	b = binary.BigEndian.AppendUint64(b, v.Number)
	return append(b, value...)
}

func decode(b []byte) (Version, []byte, error) {
	if len(b) < entryHead || b[0] != entryFormat {
		return Version{}, nil, errors.New("the entry has a format that this version does not know")
	}
	return Version{binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint64(b[9:])}, b[entryHead:], nil
}

// Table is entries below one folder whose values are all of one type, kept as JSON.
type Table[T any] struct {
	entries *Entries
	folder  string
}

// TableOf gives the entries below folder, such as "jobs", as values of type T.
func TableOf[T any](e *Entries, folder string) Table[T] {
	return Table[T]{e, strings.Trim(folder, "/") + "/"}
}

// Get returns the value, or ErrNotFound.
func (t Table[T]) Get(ctx context.Context, name string) (value T, v Version, err error) {
	entry, err := t.entries.Get(ctx, t.folder+name)
	if err != nil {
		return value, Version{}, err
	}
	if err := json.Unmarshal(entry.Value, &value); err != nil {
		return value, Version{}, fmt.Errorf("get %q: %w", t.folder+name, err)
	}
	return value, entry.Version, nil
}

// Put writes the value and returns its version. Conditions (If, of this table's method) may be added.
func (t Table[T]) Put(ctx context.Context, name string, value T, conditions ...Change) (Version, error) {
	change, err := t.Change(name, value)
	if err != nil {
		return Version{}, err
	}
	return t.entries.Commit(ctx, append([]Change{change}, conditions...)...)
}

// Delete removes the value.
func (t Table[T]) Delete(ctx context.Context, name string, conditions ...Change) error {
	return t.entries.Delete(ctx, t.folder+name, conditions...)
}

// List returns the names in the table, as Entries.List does.
func (t Table[T]) List(ctx context.Context, after string, limit int) ([]string, error) {
	return t.entries.List(ctx, t.folder, after, limit)
}

// Change is a Put for Entries.Commit, so that values of several tables are written together.
func (t Table[T]) Change(name string, value T) (Change, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return Change{}, fmt.Errorf("put %q: %w", t.folder+name, err)
	}
	return Put(t.folder+name, data), nil
}

// If is the condition that the value has this version.
func (t Table[T]) If(name string, v Version) Change { return If(t.folder+name, v) }
