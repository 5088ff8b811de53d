package kv

import (
	"context"
	"fmt"
	"slices"

	"github.com/locum-ha/locum/physical"
)

// mostRecords is how many records lie with the metadata at the most, besides the one that a write adds.
const mostRecords = 8

// record says that a request was carried out, and what it was answered. It lies with the metadata, in the place of the slot's entry
// that the request would have needed.
type record struct {
	slot              string
	number            uint64 // of the request, among those of its slot
	version           uint64 // that it made
	created, deletion int64  // … as it was then
}

// answer is what the request was answered. The custom metadata are still those of then: who changes them settles the records first.
func (m *metadata) answer(r record) VersionMetadata {
	return m.describe(version{number: r.version, created: r.created, deletion: r.deletion})
}

// recorded finds what a request was answered, among the records of the path that it wrote; nil: nothing. A request whose slot was
// used by a later one is refused: nobody waits for it any more.
func (m *metadata) recorded(req Request) (*VersionMetadata, error) {
	n, ok := req.Number()
	if m == nil || !ok {
		return nil, nil
	}
	for _, r := range m.records {
		switch {
		case r.slot != req.Slot || r.number < n:
		case r.number > n:
			return nil, fmt.Errorf("request overtaken by a later one: %w", physical.ErrUnknown)
		default:
			answer := m.answer(r)
			return &answer, nil
		}
	}
	return nil, nil
}

// record keeps a request's answer with the metadata. false: it is no request whose end can be known, and needs its slot.
func (m *metadata) record(req Request, made version) bool {
	n, ok := req.Number()
	if ok {
		m.records = append(m.records, record{req.Slot, n, made.number, made.created, made.deletion})
	}
	return ok
}

// prune removes the records of requests that are known to be over.
func (s *Store) prune(m *metadata) {
	for _, r := range m.records {
		s.slots.Saw(r.slot, r.number)
	}
	m.records = slices.DeleteFunc(m.records, func(r record) bool { return s.slots.Over(r.slot, r.number) })
}

// settle moves the records of a path into their slots, in a commit of its own: what is planned would lose them, or keep too many.
func (s *Store) settle(ctx context.Context, key string, before []byte) error {
	m, err := decodeMeta(before)
	if err != nil {
		return err
	}
	s.prune(m)
	moved := m.records[:min(len(m.records), s.settles)]
	m.records = m.records[len(moved):]
	ops := []physical.Op{unchanged(key, before), physical.Put(key, encodeMeta(m))}
	for _, r := range moved {
		kept, err := s.slots.Keep(ctx, r.slot, r.number, m.answer(r))
		if err != nil {
			return err
		}
		ops = append(ops, kept...)
	}
	return s.entries.Commit(ctx, ops...)
}

// Answered reports whether a write of a path was carried out before, as far as the path itself tells; else its slot does. It is for who
// must know that without carrying it out.
func (s *Store) Answered(ctx context.Context, path string, req Request) (bool, error) {
	_, m, err := s.readMeta(ctx, metaKey(escapePath(path)))
	if err != nil {
		return false, err
	}
	answer, err := m.recorded(req)
	return answer != nil, err
}
