package kv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/locum-ha/locum/physical"
)

const configFormat = 1

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
		before, c, err := s.readConfig(ctx)
		if err != nil {
			return err
		}
		if done, err := s.slots.Answered(ctx, req, nil); done || err != nil { // after the state, as in change
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
