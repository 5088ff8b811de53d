package kv

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/locum-ha/locum/physical"
)

// WriteOptions of Write and Patch.
type WriteOptions struct {
	CAS     *int // only if the path's current version is this one; 0: only if it has none
	Request Request
}

// Secret is one version of a path.
type Secret struct {
	Data     Object
	Metadata VersionMetadata
}

// Write makes a new version of the path. ErrInvalid, [ErrCASMismatch], [ErrCASRequired], physical.ErrTooLarge, or what
// the store says; after physical.ErrUnknown the version may be there, now or later.
func (s *Store) Write(ctx context.Context, path string, data Object, o WriteOptions) (*VersionMetadata, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	if err := checkObject(data); err != nil {
		return nil, err
	}
	config, err := s.Config(ctx)
	if err != nil {
		return nil, err
	}
	var answer VersionMetadata
	err = s.change(ctx, path, o.Request, &answer, true, func(m *metadata) (plan, error) {
		if m == nil {
			m = &metadata{}
		}
		if err := m.checkCAS(config, o.CAS); err != nil {
			return plan{}, err
		}
		return s.addVersion(path, m, config, data, &answer)
	})
	if err != nil {
		return nil, err
	}
	return &answer, nil
}

// Patch makes a new version out of the current one and a JSON merge patch (RFC 7396). Besides Write's errors,
// [ErrNotFound] where there is no current version and a [*DeletedError] where it was deleted.
func (s *Store) Patch(ctx context.Context, path string, patch Object, o WriteOptions) (*VersionMetadata, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	if err := checkObject(patch); err != nil {
		return nil, err
	}
	config, err := s.Config(ctx)
	if err != nil {
		return nil, err
	}
	var answer VersionMetadata
	err = s.change(ctx, path, o.Request, &answer, false, func(m *metadata) (plan, error) {
		if m == nil {
			return plan{}, ErrNotFound
		}
		if err := m.checkCAS(config, o.CAS); err != nil {
			return plan{}, err
		}
		v, err := s.visible(m, 0)
		if err != nil {
			return plan{}, err
		}
		old, err := s.dataOf(ctx, path, m, v)
		if err != nil {
			return plan{}, err
		}
		if old == nil {
			return plan{}, fmt.Errorf("%w: the data of version %d are missing", ErrDamaged, v.number)
		}
		merged, err := mergePatch(old, patch)
		if err != nil {
			return plan{}, err
		}
		return s.addVersion(path, m, config, merged, &answer)
	})
	if err != nil {
		return nil, err
	}
	return &answer, nil
}

// inlineMost is the size of data up to which a path's current version lies with its metadata. It is small against what a
// store takes, inlineShare times at least: the next write carries it once more as its condition, and once as it moves it.
const (
	inlineMost  = 2 << 10
	inlineShare = 64
)

// addVersion plans a new version, and the end of those that it pushes out.
func (s *Store) addVersion(path string, m *metadata, config Config, data Object, answer *VersionMetadata) (plan, error) {
	now := s.now().UnixNano()
	escaped := escapePath(path)
	before, inline := m.current, m.inline
	v := m.add(now, m.deletionTime(config, now), m.keep(config))
	*answer = m.describe(v)
	var ops []physical.Op
	if old := m.find(before); inline != nil && old != nil { // it is still kept: it gets an entry of its own
		ops = append(ops, physical.Put(dataKey(escaped, before), encodeData(old.created, inline)))
	}
	if m.inline = nil; len(data) <= s.inline {
		m.inline = data
	} else {
		ops = append(ops, physical.Put(dataKey(escaped, v.number), encodeData(v.created, data)))
	}
	for _, n := range m.sweep(s.removes) {
		ops = append(ops, physical.Delete(dataKey(escaped, n)))
	}
	if limit := s.caps.MaxValue; limit > 0 && len(data)+dataHeader > limit {
		return plan{}, &physical.TooLargeError{What: "data", Key: path, Size: len(data), Limit: limit - dataHeader}
	}
	return plan{meta: m, made: v, ops: ops, answer: answer}, nil
}

func (m *metadata) checkCAS(c Config, cas *int) error {
	switch {
	case cas != nil && (*cas < 0 || uint64(*cas) != m.current):
		return ErrCASMismatch
	case cas == nil && (c.CASRequired || m.casRequired):
		return ErrCASRequired
	}
	return nil
}

// visible finds a version to read, 0 being the current one: ErrNotFound, or a *DeletedError.
func (s *Store) visible(m *metadata, number uint64) (version, error) {
	if m == nil {
		return version{}, ErrNotFound
	}
	if number == 0 {
		number = m.current
	}
	v := m.find(number)
	if v == nil {
		return version{}, ErrNotFound
	}
	if v.gone(s.now().UnixNano()) {
		return version{}, &DeletedError{Metadata: m.describe(*v)}
	}
	return *v, nil
}

// Read returns a version of the path, the current one if number is 0. [ErrNotFound], or a [*DeletedError] with what
// is left of it.
func (s *Store) Read(ctx context.Context, path string, number uint64) (*Secret, error) {
	key := metaKey(escapePath(path))
	var seen []byte
	for {
		raw, m, err := s.readMeta(ctx, key)
		if err != nil {
			return nil, err
		}
		v, err := s.visible(m, number)
		if err != nil {
			return nil, err
		}
		data, err := s.dataOf(ctx, path, m, v)
		if err != nil {
			return nil, err
		}
		if data != nil {
			return &Secret{Data: data, Metadata: m.describe(v)}, nil
		}
		if bytes.Equal(raw, seen) { // it is not that a write came between
			return nil, fmt.Errorf("%s: %w: the data of version %d are missing", key, ErrDamaged, v.number)
		}
		seen = raw
	}
}

// dataOf returns the data of exactly this version, or nil if the store has them not, or those of another life of the
// path.
func (s *Store) dataOf(ctx context.Context, path string, m *metadata, v version) (Object, error) {
	if m.inline != nil && v.number == m.current {
		return m.inline, nil
	}
	key := dataKey(escapePath(path), v.number)
	e, err := s.entries.Get(ctx, key)
	if errors.Is(err, physical.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	created, object, err := decodeData(e.Value)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	if created != v.created {
		return nil, nil
	}
	return object, nil
}

func checkObject(data Object) error {
	trimmed := bytes.TrimLeft(data, blanks)
	switch {
	case len(trimmed) == 0 || string(bytes.TrimSpace(trimmed)) == "null":
		return invalidf("no data provided")
	case trimmed[0] != '{':
		return invalidf("data must be a JSON object")
	case !plainObject(trimmed) && !json.Valid(trimmed):
		return invalidf("data is not valid JSON")
	}
	return nil
}

// plainObject reports whether b is a JSON object of nothing but strings without escapes, which most entries are, at a fraction of what
// json.Valid takes. Where it is not, json.Valid decides.
func plainObject(b []byte) bool {
	b, ok := cutMember(b, '{')
	for ok && len(b) > 0 && b[0] == ',' {
		b, ok = cutMember(b, ',')
	}
	return ok && string(bytes.TrimRight(b, blanks)) == "}"
}

const blanks = " \t\r\n"

// cutMember takes a sign, and the name and the string behind it, off the front.
func cutMember(b []byte, sign byte) (rest []byte, ok bool) {
	for _, sign := range [...]byte{sign, ':'} {
		if len(b) == 0 || b[0] != sign {
			return nil, false
		}
		b = bytes.TrimLeft(b[1:], blanks)
		end := 1
		for end < len(b) && b[end] >= ' ' && b[end] != '"' && b[end] != '\\' {
			end++
		}
		if end >= len(b) || b[0] != '"' || b[end] != '"' {
			return nil, false
		}
		b = bytes.TrimLeft(b[end+1:], blanks)
	}
	return b, true
}
