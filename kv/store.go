package kv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync/atomic"
	"time"

	"github.com/locum-ha/locum/internal/slots"
	"github.com/locum-ha/locum/physical"
)

const (
	stripes     = 256
	attempts    = 8   // of a write that meets another's
	defaultOps  = 128 // in a commit, where the store has no limit
	reservedOps = 5   // besides removed data: condition, metadata, new data, data that are moved, slot
	settleOps   = 2   // besides the records that are settled, of two ops each: condition, metadata
	minOps      = reservedOps + 1
)

// Entries is the store in plain: package barrier's View.
type Entries interface {
	Get(ctx context.Context, key string) (*physical.Entry, error)
	List(ctx context.Context, prefix, after string, limit int) ([]string, error)
	Commit(ctx context.Context, ops ...physical.Op) error
	Caps() physical.Caps
}

// Object is a JSON object as bytes. It is stored and given back as it is.
type Object = json.RawMessage

// Request says which request a write belongs to, so that it can be repeated (P6).
type Request = slots.Request

// Store keeps versioned entries for one leadership. It may be used concurrently.
type Store struct {
	entries Entries
	slots   *slots.Keeper
	now     func() time.Time
	caps    physical.Caps
	removes int // data removed in one commit at the most
	settles int // records settled in one
	records int // kept with the metadata at the most, besides the one that a write adds
	inline  int // data of at most so many bytes lie with the metadata while they are the current version's

	remote bool         // a read costs a round trip
	fresh  atomic.Int32 // how many writes in a row found no such path; see guess

	seed  maphash.Seed
	locks [stripes]chan struct{} // writers of a path take turns; a wait ends with its context

	config config
}

// New makes the store of a leadership: entries carry its fence.
func New(entries Entries) *Store {
	s := &Store{entries: entries, slots: slots.NewKeeper(entries), now: time.Now, caps: entries.Caps(), seed: maphash.MakeSeed()}
	ops := s.caps.MaxOps
	if ops == 0 {
		ops = defaultOps
	}
	ops = max(ops, minOps)
	s.removes, s.settles = ops-reservedOps, (ops-settleOps)/2
	s.inline, s.records = inlineMost, mostRecords
	if s.caps.MaxValue > 0 {
		s.inline = min(s.inline, s.caps.MaxValue/inlineShare)
	}
	s.remote = s.caps.Shared && !s.caps.LocalReads
	s.config.turn = make(chan struct{}, 1)
	for i := range s.locks {
		s.locks[i] = make(chan struct{}, 1)
	}
	return s
}

// lock takes the turn of writers of a path.
func (s *Store) lock(ctx context.Context, path string) (unlock func(), err error) {
	turn := s.locks[maphash.String(s.seed, path)%stripes]
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %v while another write was under way", physical.ErrUnavailable, context.Cause(ctx))
	}
}

// plan is what a write does to the state that it was shown.
type plan struct {
	nothing bool      // the state is as wished already
	more    bool      // this is a part: the write goes on afterwards
	settled bool      // no records are to lie with the metadata: what they say changes
	meta    *metadata // as it will be; nil: removed
	made    version   // the new one, where there is: then the request is recorded with the metadata
	ops     []physical.Op
	answer  any // kept in the request's slot
}

// settles reports whether so many records of the path are to be settled before the plan is carried out.
func (p plan) settles(records, most int) bool {
	if p.settled || p.meta == nil {
		return records > 0
	}
	return records > most
}

// change carries out one write of a path. It shows decide the path's metadata as they are (nil: there is no such path; it
// may change them in place) and commits the plan, on condition that they still are. A request that was carried out
// before is not again; its answer is given in answer (nil: it has none). makes: it can make the path.
func (s *Store) change(ctx context.Context, path string, req Request, answer *VersionMetadata, makes bool, decide func(*metadata) (plan, error)) error {
	if err := s.checkLength(path); err != nil {
		return err
	}
	s.slots.Arrived(req)
	unlock, err := s.lock(ctx, path)
	if err != nil {
		return err
	}
	defer unlock()
	key := metaKey(escapePath(path))
	if makes && s.guess(req) {
		if done, err := s.create(ctx, key, req, decide); done {
			return err
		}
		req.Repeat = true
	}
	for left := attempts; left > 0; {
		before, m, err := s.readMeta(ctx, key)
		if err != nil {
			return err
		}
		if makes {
			s.found(m != nil)
		}
		if done, err := s.answered(ctx, m, req, answer); done || err != nil {
			return err
		}
		records := 0
		if m != nil {
			s.prune(m)
			records = len(m.records)
		}
		p, err := decide(m)
		if err != nil || p.nothing {
			return err
		}
		if p.settles(records, s.records) {
			p.more = true
			err = s.settle(ctx, key, before)
		} else {
			err = s.commit(ctx, p, key, before, req)
		}
		switch {
		case errors.Is(err, physical.ErrConflict):
			// Another attempt landed, late, perhaps of this very request: it counts as a repeat from here on.
			req.Repeat = true
			left--
		case err != nil || !p.more:
			return err
		}
	}
	return fmt.Errorf("%w: %d other writes of the path came first", physical.ErrUnavailable, attempts)
}

// guessAfter is how many new paths in a row let the next one be taken for new, too.
const guessAfter = 16

// guess reports whether to take a path for new without asking the store: the commit's own condition finds out if it is not,
// and costs a failed transaction then.
func (s *Store) guess(req Request) bool {
	return s.remote && !req.Repeat && s.fresh.Load() >= guessAfter
}

// found notes whether a path that was to be written was there.
func (s *Store) found(there bool) {
	switch {
	case there:
		s.fresh.Store(0)
	case s.fresh.Load() < guessAfter:
		s.fresh.Add(1)
	}
}

// create carries out a write as if there were no such path. done is false if that must be looked up after all; then nothing was
// written, unless by an earlier attempt of the same request.
func (s *Store) create(ctx context.Context, key string, req Request, decide func(*metadata) (plan, error)) (done bool, err error) {
	if s.slots.Repeated(req) {
		return false, nil
	}
	p, err := decide(nil)
	if err != nil || p.nothing {
		return false, nil
	}
	err = s.commit(ctx, p, key, nil, req)
	if errors.Is(err, physical.ErrConflict) {
		s.found(true)
		return false, nil
	}
	return true, err
}

// answered reports whether a request was carried out before, and gives its answer then. m is the path's metadata, read before: a record
// that was settled since, or an attempt that lands, changes them, and the commit fails.
func (s *Store) answered(ctx context.Context, m *metadata, req Request, answer *VersionMetadata) (bool, error) {
	was, err := m.recorded(req)
	switch {
	case err != nil:
		return false, err
	case was == nil && answer == nil:
		return s.slots.Answered(ctx, req, nil)
	case was == nil:
		return s.slots.Answered(ctx, req, answer)
	case answer != nil:
		*answer = *was
	}
	return true, nil
}

// commit carries the plan out.
func (s *Store) commit(ctx context.Context, p plan, key string, before []byte, req Request) error {
	recorded := p.made.number != 0 && p.meta.record(req, p.made)
	ops := make([]physical.Op, 0, len(p.ops)+reservedOps)
	ops = append(ops, unchanged(key, before))
	switch {
	case p.meta != nil:
		ops = append(ops, physical.Put(key, encodeMeta(p.meta)))
	case before != nil:
		ops = append(ops, physical.Delete(key))
	}
	ops = append(ops, p.ops...)
	if !recorded && !p.more {
		var err error
		if ops, err = req.Append(ops, p.answer); err != nil {
			return err
		}
	}
	return s.entries.Commit(ctx, ops...)
}

// unchanged is the condition that key still holds what was read of it; nil: nothing.
func unchanged(key string, before []byte) physical.Op {
	if before == nil {
		return physical.RequireAbsent(key)
	}
	return physical.RequireValue(key, before)
}

// checkLength refuses a path that the store cannot take as a key, in terms of the path.
func (s *Store) checkLength(path string) error {
	const besides = len(dataPrefix) + len("/18446744073709551615")
	if size := len(escapePath(path)); s.caps.MaxKey > 0 && size+besides > s.caps.MaxKey {
		return &physical.TooLargeError{What: "path", Key: path, Size: size, Limit: s.caps.MaxKey - besides}
	}
	return nil
}

// readMeta returns the metadata at key, encoded and decoded; nil if there are none.
func (s *Store) readMeta(ctx context.Context, key string) (raw []byte, m *metadata, err error) {
	e, err := s.entries.Get(ctx, key)
	if errors.Is(err, physical.ErrNotFound) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	m, err = decodeMeta(e.Value)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", key, err)
	}
	return e.Value, m, nil
}

// List returns the names directly below a path, ascending; folders end in "/". Only names after a given one are
// returned, at most limit of them where limit > 0. A path without any gives an empty list.
func (s *Store) List(ctx context.Context, path, after string, limit int) ([]string, error) {
	prefix := metaPrefix
	if path = trimSlash(path); path != "" {
		prefix += escapePath(path) + "/"
	}
	if after != "" {
		name := trimSlash(after)
		after = escapeSegment(name) + after[len(name):]
	}
	names, err := s.entries.List(ctx, prefix, after, limit)
	if err != nil {
		return nil, err
	}
	for i, n := range names {
		names[i] = unescapeSegment(n)
	}
	if limit <= 0 && !slices.IsSorted(names) {
		slices.Sort(names) // escaping can change the order
	}
	return names, nil
}

func trimSlash(path string) string {
	if path != "" && path[len(path)-1] == '/' {
		return path[:len(path)-1]
	}
	return path
}
