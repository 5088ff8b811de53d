package metrics

import (
	"context"
	"errors"
	"time"

	"github.com/locum-ha/locum/physical"
)

// Storage wraps a store so that its operations are measured. The result has those of b's optional powers that are called through it:
// physical.HABackend, physical.Watcher, physical.Yielder. Whoever wants to know of others, as of physical.Gatherer, asks b.
func (m *Metrics) Storage(b physical.Backend) physical.Backend {
	entries := &storage{m: m, Backend: b}
	lock, isLock := b.(physical.HABackend)
	if !isLock {
		return entries
	}
	ha := m.lockOf(lock)
	watcher, watches := b.(physical.Watcher)
	yielder, yields := b.(physical.Yielder)
	switch {
	case watches && yields:
		return struct {
			*storage
			*lockMeter
			physical.Watcher
			*yieldMeter
		}{entries, ha, watcher, &yieldMeter{m, yielder}}
	case watches:
		return struct {
			*storage
			*lockMeter
			physical.Watcher
		}{entries, ha, watcher}
	case yields:
		return struct {
			*storage
			*lockMeter
			*yieldMeter
		}{entries, ha, &yieldMeter{m, yielder}}
	default:
		return struct {
			*storage
			*lockMeter
		}{entries, ha}
	}
}

// Lock wraps a store of the HA lock alone, as in split mode, in the same way.
func (m *Metrics) Lock(b physical.HABackend) physical.HABackend {
	type closer = lockOnly
	ha := m.lockOf(b)
	watcher, watches := b.(physical.Watcher)
	yielder, yields := b.(physical.Yielder)
	switch {
	case watches && yields:
		return struct {
			closer
			*lockMeter
			physical.Watcher
			*yieldMeter
		}{closer{b}, ha, watcher, &yieldMeter{m, yielder}}
	case watches:
		return struct {
			closer
			*lockMeter
			physical.Watcher
		}{closer{b}, ha, watcher}
	case yields:
		return struct {
			closer
			*lockMeter
			*yieldMeter
		}{closer{b}, ha, &yieldMeter{m, yielder}}
	default:
		return struct {
			closer
			*lockMeter
		}{closer{b}, ha}
	}
}

// storage measures a Backend.
type storage struct {
	m *Metrics
	physical.Backend
}

func (s *storage) Get(ctx context.Context, key string) (*physical.Entry, error) {
	start := time.Now()
	e, err := s.Backend.Get(ctx, key)
	s.m.storage.done("get", time.Since(start), err)
	return e, err
}

func (s *storage) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	start := time.Now()
	names, err := s.Backend.List(ctx, prefix, after, limit)
	s.m.storage.done("list", time.Since(start), err)
	return names, err
}

func (s *storage) Commit(ctx context.Context, fence *physical.Fence, ops ...physical.Op) error {
	start := time.Now()
	err := s.Backend.Commit(ctx, fence, ops...)
	s.m.storage.done("commit", time.Since(start), err)
	s.m.fenced(err)
	return err
}

func (s *storage) RaiseFence(ctx context.Context, from, to physical.Fence) error {
	start := time.Now()
	err := s.Backend.RaiseFence(ctx, from, to)
	s.m.storage.done("raise_fence", time.Since(start), err)
	s.m.fenced(err)
	return err
}

func (s *storage) Fence(ctx context.Context) (physical.Fence, error) {
	start := time.Now()
	f, err := s.Backend.Fence(ctx)
	s.m.storage.done("fence", time.Since(start), err)
	return f, err
}

// Unwrap is the store itself.
func (s *storage) Unwrap() physical.Backend { return s.Backend }

func (m *Metrics) fenced(err error) {
	if errors.Is(err, physical.ErrFenced) {
		m.fenceRejections.Inc()
	}
}

// lockMeter measures the four methods of the lock.
type lockMeter struct {
	m *Metrics
	b physical.HABackend
}

func (m *Metrics) lockOf(b physical.HABackend) *lockMeter { return &lockMeter{m, b} }

func (l *lockMeter) Acquire(ctx context.Context, r physical.Record, ttl time.Duration, above uint64) (physical.Grant, error) {
	start := time.Now()
	g, err := l.b.Acquire(ctx, r, ttl, above)
	l.m.lock.done("acquire", time.Since(start), err)
	return g, err
}

func (l *lockMeter) Renew(ctx context.Context, g physical.Grant) (physical.Grant, error) {
	start := time.Now()
	renewed, err := l.b.Renew(ctx, g)
	l.m.lock.done("renew", time.Since(start), err)
	return renewed, err
}

func (l *lockMeter) Release(ctx context.Context, g physical.Grant, next string) error {
	start := time.Now()
	err := l.b.Release(ctx, g, next)
	l.m.lock.done("release", time.Since(start), err)
	return err
}

func (l *lockMeter) Holder(ctx context.Context) (physical.Record, error) {
	start := time.Now()
	r, err := l.b.Holder(ctx)
	l.m.lock.done("holder", time.Since(start), err)
	return r, err
}

// lockOnly is the rest of an HABackend.
type lockOnly struct{ b physical.HABackend }

func (l lockOnly) Caps() physical.Caps { return l.b.Caps() }
func (l lockOnly) Close() error        { return l.b.Close() }

// yieldMeter measures a Yielder.
type yieldMeter struct {
	m *Metrics
	y physical.Yielder
}

func (y *yieldMeter) Yield(ctx context.Context, to string) error {
	start := time.Now()
	err := y.y.Yield(ctx, to)
	y.m.lock.done("yield", time.Since(start), err)
	return err
}
