package kv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/locum-ha/locum/physical"
)

const configFormat = 1

// Vault's bounds of custom metadata.
const (
	maxCustomKeys     = 64
	maxCustomKeyLen   = 128
	maxCustomValueLen = 512
)

// Config is what holds for all paths, where a path's own metadata do not say more.
type Config struct {
	MaxVersions        int           // kept of each path; 0: 10
	CASRequired        bool          // no write without check-and-set
	DeleteVersionAfter time.Duration // the age at which versions are deleted; 0: never, negative: never, whatever a path says
}

// ConfigUpdate changes what is not nil.
type ConfigUpdate struct {
	MaxVersions        *int
	CASRequired        *bool
	DeleteVersionAfter *time.Duration
}

type storedConfig struct {
	Format      int   `json:"format"`
	MaxVersions int   `json:"max_versions,omitempty"`
	CASRequired bool  `json:"cas_required,omitempty"`
	DeleteAfter int64 `json:"delete_version_after_ns,omitempty"`
}

// Config returns the settings for all paths. They are read once in a leadership.
func (s *Store) Config(ctx context.Context) (Config, error) {
	if c := s.config.known.Load(); c != nil {
		return *c, nil
	}
	if err := s.config.lock(ctx); err != nil {
		return Config{}, err
	}
	defer s.config.unlock()
	_, c, err := s.readConfig(ctx)
	if err == nil && !s.config.uncertain {
		s.config.known.Store(&c)
	}
	return c, err
}

// config is the settings for all paths, as far as they are known for certain.
type config struct {
	known     atomic.Pointer[Config] // nil until they were read
	turn      chan struct{}          // held by who reads or writes them in the store
	uncertain bool                   // a write had no clear outcome and can land later: never remember them again
}

func (c *config) lock(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %v while the settings were being read", physical.ErrUnavailable, context.Cause(ctx))
	}
}

func (c *config) unlock() { <-c.turn }

func (s *Store) readConfig(ctx context.Context) (raw []byte, c Config, err error) {
	e, err := s.entries.Get(ctx, configKey)
	if errors.Is(err, physical.ErrNotFound) {
		return nil, Config{}, nil
	}
	if err != nil {
		return nil, Config{}, err
	}
	var stored storedConfig
	if err := json.Unmarshal(e.Value, &stored); err != nil {
		return nil, Config{}, fmt.Errorf("%s: %w: %w", configKey, ErrDamaged, err)
	}
	if stored.Format > configFormat {
		return nil, Config{}, fmt.Errorf("%s: %w: format %d, this build knows %d", configKey, ErrNewerFormat, stored.Format, configFormat)
	}
	return e.Value, Config{stored.MaxVersions, stored.CASRequired, time.Duration(stored.DeleteAfter)}, nil
}

// UpdateConfig changes the settings for all paths.
func (s *Store) UpdateConfig(ctx context.Context, u ConfigUpdate, req Request) error {
	if err := checkMaxVersions(u.MaxVersions); err != nil {
		return err
	}
	if err := s.config.lock(ctx); err != nil {
		return err
	}
	defer s.config.unlock()
	for range attempts {
		if done, err := s.slots.Answered(ctx, req, nil); done || err != nil {
			return err
		}
		before, c, err := s.readConfig(ctx)
		if err != nil {
			return err
		}
		set(&c.MaxVersions, u.MaxVersions)
		set(&c.CASRequired, u.CASRequired)
		set(&c.DeleteVersionAfter, u.DeleteVersionAfter)
		err = s.writeConfig(ctx, before, c, req)
		if !errors.Is(err, physical.ErrConflict) {
			return err
		}
		req.Repeat = true
	}
	return fmt.Errorf("%w: %d other writes of the settings came first", physical.ErrUnavailable, attempts)
}

func (s *Store) writeConfig(ctx context.Context, before []byte, c Config, req Request) error {
	value, err := json.Marshal(storedConfig{configFormat, c.MaxVersions, c.CASRequired, int64(c.DeleteVersionAfter)})
	if err != nil {
		return err
	}
	ops, err := req.Append([]physical.Op{unchanged(configKey, before), physical.Put(configKey, value)}, nil)
	if err != nil {
		return err
	}
	err = s.entries.Commit(ctx, ops...)
	s.config.uncertain = s.config.uncertain || errors.Is(err, physical.ErrUnknown)
	switch {
	case s.config.uncertain:
		s.config.known.Store(nil)
	case err == nil:
		s.config.known.Store(&c)
	}
	return err
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

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
	return s.change(ctx, path, req, nil, func(m *metadata) (plan, error) {
		m, err := custom(m)
		if err != nil {
			return plan{}, err
		}
		if maxVersions != nil {
			m.maxVersions = uint64(*maxVersions)
		}
		set(&m.casRequired, cas)
		set(&m.deleteAfter, after)
		return plan{meta: m}, nil
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
