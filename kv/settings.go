package kv

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Vault's bounds of custom metadata.
const (
	maxCustomKeys     = 64
	maxCustomKeyLen   = 128
	maxCustomValueLen = 512
)

// MetadataUpdate changes what is not nil.
type MetadataUpdate struct {
	MaxVersions        *int
	CASRequired        *bool
	DeleteVersionAfter *time.Duration
	CustomMetadata     map[string]string // replaces what there was
}

// MetadataPatch is MetadataUpdate for a path that there is; of custom metadata, nil values remove, others are set.
type MetadataPatch struct {
	MaxVersions        *int
	CASRequired        *bool
	DeleteVersionAfter *time.Duration
	CustomMetadata     map[string]*string
}

// ReadMetadata returns all that is known of a path but its data, or [ErrNotFound].
func (s *Store) ReadMetadata(ctx context.Context, path string) (*Metadata, error) {
	_, m, err := s.readMeta(ctx, metaKey(escapePath(path)))
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, ErrNotFound
	}
	out := m.export()
	return &out, nil
}

// UpdateMetadata changes a path's settings, and makes the path if there is none, without a version.
func (s *Store) UpdateMetadata(ctx context.Context, path string, u MetadataUpdate, req Request) error {
	if err := checkCustom(u.CustomMetadata); err != nil {
		return err
	}
	if u.MaxVersions == nil && u.CASRequired == nil && u.DeleteVersionAfter == nil && u.CustomMetadata == nil {
		return checkPath(path)
	}
	return s.settings(ctx, path, req, u.MaxVersions, u.CASRequired, u.DeleteVersionAfter, func(m *metadata) (*metadata, error) {
		if m == nil {
			now := s.now().UnixNano()
			m = &metadata{created: now, updated: now}
		}
		if u.CustomMetadata != nil {
			m.custom = u.CustomMetadata
		}
		return m, nil
	})
}

// PatchMetadata changes a path's settings, or returns [ErrNotFound].
func (s *Store) PatchMetadata(ctx context.Context, path string, p MetadataPatch, req Request) error {
	return s.settings(ctx, path, req, p.MaxVersions, p.CASRequired, p.DeleteVersionAfter, func(m *metadata) (*metadata, error) {
		if m == nil {
			return nil, ErrNotFound
		}
		custom := make(map[string]string, len(m.custom))
		maps.Copy(custom, m.custom)
		for k, v := range p.CustomMetadata {
			if v == nil {
				delete(custom, k)
			} else {
				custom[k] = *v
			}
		}
		m.custom = custom
		return m, checkCustom(custom)
	})
}

func (s *Store) settings(ctx context.Context, path string, req Request, maxVersions *int, cas *bool, after *time.Duration, custom func(*metadata) (*metadata, error)) error {
	if err := checkPath(path); err != nil {
		return err
	}
	if err := checkMaxVersions(maxVersions); err != nil {
		return err
	}
	if after != nil && *after < 0 {
		return invalidf("delete_version_after must not be negative")
	}
	return s.change(ctx, path, req, nil, false, func(m *metadata) (plan, error) {
		m, err := custom(m)
		if err != nil {
			return plan{}, err
		}
		if maxVersions != nil {
			m.maxVersions = uint64(*maxVersions)
		}
		set(&m.casRequired, cas)
		set(&m.deleteAfter, after)
		return plan{meta: m, settled: true}, nil
	})
}

func checkMaxVersions(n *int) error {
	if n != nil && (*n < 0 || int64(*n) > 1<<32-1) {
		return invalidf("max_versions must be between 0 and %d", int64(1<<32-1))
	}
	return nil
}

func checkCustom(custom map[string]string) error {
	const prefix = "custom_metadata validation failed"
	if len(custom) > maxCustomKeys {
		return invalidf("%s: payload must contain at most %d keys, provided %d", prefix, maxCustomKeys, len(custom))
	}
	var faults []string
	fault := func(format string, args ...any) {
		faults = append(faults, prefix+": "+invalidf(format, args...).Error())
	}
	for _, k := range slices.Sorted(maps.Keys(custom)) {
		v := custom[k]
		if len(k) == 0 || len(k) > maxCustomKeyLen {
			fault("length of key %q is %d but must be 0 < len(key) <= %d", k, len(k), maxCustomKeyLen)
		}
		if len(v) == 0 || len(v) > maxCustomValueLen {
			fault("length of value for key %q is %d but must be 0 < len(value) <= %d", k, len(v), maxCustomValueLen)
		}
		if !printable(k) {
			fault("key %q contains unprintable characters", k)
		}
		if !printable(v) {
			fault("value for key %q contains unprintable characters", k)
		}
	}
	if len(faults) > 0 {
		return invalidf("%s", strings.Join(faults, "; "))
	}
	return nil
}

func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}
