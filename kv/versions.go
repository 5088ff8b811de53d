package kv

import (
	"context"
	"slices"

	"github.com/locum-ha/locum/physical"
)

// DeleteLatest deletes the current version, so that it can be undeleted. Where there is none it does nothing.
func (s *Store) DeleteLatest(ctx context.Context, path string, req Request) error {
	return s.mark(ctx, path, req, nil, s.deleteVersion)
}

// Delete deletes versions, so that they can be undeleted. What is not there, or deleted already, is left alone.
func (s *Store) Delete(ctx context.Context, path string, versions []uint64, req Request) error {
	if len(versions) == 0 {
		return invalidf("No version number provided")
	}
	return s.mark(ctx, path, req, versions, s.deleteVersion)
}

// Undelete takes deletions back. Where versions are deleted by age, they get their whole time again. What is not
// there, or destroyed, is left alone.
func (s *Store) Undelete(ctx context.Context, path string, versions []uint64, req Request) error {
	if len(versions) == 0 {
		return invalidf("No version number provided")
	}
	config, err := s.Config(ctx)
	if err != nil {
		return err
	}
	return s.mark(ctx, path, req, versions, func(m *metadata, v *version) bool {
		if v.destroyed {
			return false
		}
		v.deletion = m.deletionTime(config, s.now().UnixNano())
		return true
	})
}

func (s *Store) deleteVersion(_ *metadata, v *version) bool {
	now := s.now().UnixNano()
	if v.gone(now) {
		return false
	}
	v.deletion = now
	return true
}

// mark changes the metadata of versions, nil being the current one, if change says that there is anything to change.
func (s *Store) mark(ctx context.Context, path string, req Request, versions []uint64, change func(*metadata, *version) bool) error {
	if err := checkPath(path); err != nil {
		return err
	}
	return s.change(ctx, path, req, nil, false, func(m *metadata) (plan, error) {
		if m == nil {
			return plan{nothing: true}, nil
		}
		wanted := versions
		if wanted == nil {
			wanted = []uint64{m.current}
		}
		changed := false
		for _, n := range wanted {
			if v := m.find(n); v != nil && change(m, v) {
				changed = true
			}
		}
		return plan{nothing: !changed, meta: m}, nil
	})
}

// Destroy removes the data of versions for ever. What is not there, or destroyed already, is left alone.
func (s *Store) Destroy(ctx context.Context, path string, versions []uint64, req Request) error {
	if len(versions) == 0 {
		return invalidf("No version number provided")
	}
	if err := checkPath(path); err != nil {
		return err
	}
	escaped := escapePath(path)
	return s.change(ctx, path, req, nil, false, func(m *metadata) (plan, error) {
		if m == nil {
			return plan{nothing: true}, nil
		}
		p := plan{meta: m}
		for _, n := range versions {
			v := m.find(n)
			if v == nil || v.destroyed {
				continue
			}
			if len(p.ops) == s.removes {
				p.more = true
				break
			}
			v.destroyed = true
			if n == m.current {
				m.inline = nil
			}
			p.ops = append(p.ops, physical.Delete(dataKey(escaped, n)))
		}
		p.nothing = len(p.ops) == 0
		return p, nil
	})
}

// DeleteMetadata removes the path with all its versions for ever. Where there is none it does nothing.
func (s *Store) DeleteMetadata(ctx context.Context, path string, req Request) error {
	if err := checkPath(path); err != nil {
		return err
	}
	escaped := escapePath(path)
	return s.change(ctx, path, req, nil, false, func(m *metadata) (plan, error) {
		if m == nil {
			return plan{nothing: true}, nil
		}
		var p plan
		for _, n := range m.sweep(s.removes) {
			p.ops = append(p.ops, physical.Delete(dataKey(escaped, n)))
		}
		gone := 0
		for _, v := range m.versions {
			if len(p.ops) == s.removes {
				break
			}
			if !v.destroyed {
				p.ops = append(p.ops, physical.Delete(dataKey(escaped, v.number)))
			}
			gone++
		}
		if m.swept < m.oldest || gone < len(m.versions) { // a part: the oldest go first, as if by age
			if gone == len(m.versions) {
				m.inline = nil
			}
			m.versions = slices.Delete(m.versions, 0, gone)
			if len(m.versions) > 0 && gone > 0 {
				m.oldest = m.versions[0].number
				m.swept = m.oldest
			}
			p.meta, p.more = m, true
		}
		return p, nil
	})
}
