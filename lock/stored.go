package lock

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/locum-ha/locum/physical"
)

const (
	prefix    = "core/lock/"
	keyFloor  = "core/lock-floor"
	format    = 1
	sweepPage = 100
)

// record is a lock as it is stored.
type record struct {
	Format int           `json:"format"`
	Number uint64        `json:"number"`
	Holder string        `json:"holder"`
	Secret string        `json:"secret,omitempty"` // its SHA-256, in hex; "" while nobody holds the lock
	TTL    time.Duration `json:"ttl_ns"`
	Since  int64         `json:"since"` // Unix time in ns, of the acquisition or the release
}

type storedFloor struct {
	Format int    `json:"format"`
	Number uint64 `json:"number"`
}

func keyOf(name string) string { return prefix + url.PathEscape(name) }

// load reads the lock. Its turn is the caller's.
func (m *Manager) load(ctx context.Context, e *entry) error {
	stored, err := m.store.Get(ctx, keyOf(e.name))
	if errors.Is(err, physical.ErrNotFound) {
		e.raw, e.record, e.loaded, e.again = nil, record{}, true, true
		return nil
	}
	if err != nil {
		return fmt.Errorf("lock %q: %w", e.name, err)
	}
	var r record
	if err := json.Unmarshal(stored.Value, &r); err != nil {
		return fmt.Errorf("lock %q: %w", e.name, err)
	}
	if r.Format > format {
		return fmt.Errorf("lock %q: %w: format %d, this build knows %d", e.name, ErrNewerFormat, r.Format, format)
	}
	e.raw, e.record = stored.Value, r
	// A full TTL: from the beginning of this term, or, if it was granted in this term and its commit's outcome was unknown, from now.
	from := m.start
	if e.again {
		from = m.cfg.Clock()
	}
	e.deadline = from.Add(r.TTL)
	e.loaded, e.again = true, true
	return nil
}

// write stores the lock's next record, on condition that the last one is still there. Its turn is the caller's.
func (m *Manager) write(ctx context.Context, e *entry, next record) error {
	raw, err := json.Marshal(next)
	if err != nil {
		return err
	}
	condition := physical.RequireAbsent(keyOf(e.name))
	if e.raw != nil {
		condition = physical.RequireValue(keyOf(e.name), e.raw)
	}
	if bytes.Equal(raw, e.raw) {
		return nil
	}
	if err := m.store.Commit(ctx, condition, physical.Put(keyOf(e.name), raw)); err != nil {
		e.loaded = false // whatever became of it
		return fmt.Errorf("lock %q: %w", e.name, err)
	}
	e.raw, e.record = raw, next
	return nil
}

// floor is a number that no removed lock had more than, with how it is stored.
type floor struct {
	number uint64
	raw    []byte // nil: it is not
}

// readFloor returns the floor as it is stored.
func (m *Manager) readFloor(ctx context.Context) (floor, error) {
	m.mu.Lock()
	known := m.floor
	m.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	var f floor
	stored, err := m.store.Get(ctx, keyFloor)
	switch {
	case errors.Is(err, physical.ErrNotFound):
	case err != nil:
		return f, fmt.Errorf("floor of the locks' numbers: %w", err)
	default:
		var s storedFloor
		if err := json.Unmarshal(stored.Value, &s); err != nil {
			return f, fmt.Errorf("floor of the locks' numbers: %w", err)
		}
		if s.Format > format {
			return f, fmt.Errorf("floor of the locks' numbers: %w", ErrNewerFormat)
		}
		f = floor{s.Number, stored.Value}
	}
	m.setFloor(&f)
	return f, nil
}

func (m *Manager) setFloor(f *floor) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.floor = f
}

// List returns the names of locks greater than after, at most limit of them where limit > 0: those that are held, and
// those that lately were. Names are in the order in which they are stored, which is that of their escaped form.
func (m *Manager) List(ctx context.Context, after string, limit int) ([]string, error) {
	if after != "" {
		after = url.PathEscape(after)
	}
	stored, err := m.store.List(ctx, prefix, after, limit)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(stored))
	for _, s := range stored {
		name, err := url.PathUnescape(s)
		if err != nil {
			return nil, fmt.Errorf("lock %q: %w", s, err)
		}
		names = append(names, name)
	}
	return names, nil
}

// Run removes locks that nobody has held for a while, until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	ticker := time.NewTicker(min(m.cfg.Keep, 10*time.Minute))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := m.Sweep(ctx); err != nil && ctx.Err() == nil {
			m.cfg.Logger.Warn("locks that nobody holds were not removed", "error", err)
		}
	}
}

// Sweep removes the locks that nobody has held for Config.Keep.
func (m *Manager) Sweep(ctx context.Context) error {
	select {
	case m.sweeping <- struct{}{}:
		defer func() { <-m.sweeping }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	after := ""
	for ctx.Err() == nil {
		names, err := m.List(ctx, after, sweepPage)
		if err != nil || len(names) == 0 {
			return err
		}
		for _, name := range names {
			if err := m.sweep(ctx, name); err != nil {
				return err
			}
		}
		after = names[len(names)-1]
	}
	return context.Cause(ctx)
}

func (m *Manager) sweep(ctx context.Context, name string) error {
	if checkName(name) != nil {
		return nil // not one of ours
	}
	e, err := m.use(name)
	if err != nil {
		return err
	}
	defer m.leave(e)
	if err := m.enter(ctx, e); err != nil {
		return err
	}
	defer func() { <-e.turn }()
	if e.raw == nil || !m.idle(e) {
		return nil
	}
	return m.remove(ctx, e)
}

// idle reports whether nobody has held the lock for long. The time of a release is another host's perhaps: a wrong clock
// only lets a lock go earlier or later, and its number is kept either way.
func (m *Manager) idle(e *entry) bool {
	if e.record.held() {
		return m.cfg.Clock().Sub(e.deadline) > m.cfg.Keep
	}
	return time.Since(time.Unix(0, e.record.Since)) > m.cfg.Keep
}

// remove deletes the lock and keeps its number in the floor. Its turn is the caller's, and the sweep.
func (m *Manager) remove(ctx context.Context, e *entry) error {
	f, err := m.readFloor(ctx)
	if err != nil {
		return err
	}
	next := floor{number: max(f.number, e.record.Number)}
	if next.raw, err = json.Marshal(storedFloor{Format: format, Number: next.number}); err != nil {
		return err
	}
	// On the floor's own condition, too: a commit of unknown outcome that lands late must not lower it.
	condition := physical.RequireAbsent(keyFloor)
	if f.raw != nil {
		condition = physical.RequireValue(keyFloor, f.raw)
	}
	err = m.store.Commit(ctx, condition, physical.RequireValue(keyOf(e.name), e.raw), physical.Delete(keyOf(e.name)), physical.Put(keyFloor, next.raw))
	if err != nil {
		m.setFloor(nil)
		e.loaded = false
		return fmt.Errorf("remove lock %q: %w", e.name, err)
	}
	m.setFloor(&next)
	e.raw, e.record = nil, record{}
	return nil
}
