package memory

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/locum-ha/locum/physical"
)

// lock is the HA lock. It is held while record has a Holder and expires has not come; the record's term
// never falls.
type lock struct {
	record  physical.Record
	token   []byte // of the grant in force
	ttl     time.Duration
	expires time.Time
}

// current returns the lock's record as it is now, after the lock has run out if its time has come.
func (s *Store) current() physical.Record {
	if s.lock.record.Holder != "" && !s.clock.Now().Before(s.lock.expires) {
		s.free("")
	}
	return s.lock.record
}

// free ends the grant in force and tells the watchers.
func (s *Store) free(next string) {
	s.lock.record.Holder = ""
	s.lock.record.Next = next
	s.lock.token = nil
	s.tell()
}

func (s *Store) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// holds reports whether g is the grant in force.
func (s *Store) holds(g physical.Grant) bool {
	now := s.current()
	return now.Holder != "" && now.Holder == g.Record.Holder && now.Term == g.Record.Term &&
		bytes.Equal(s.lock.token, g.Token)
}

func (s *Store) grant() physical.Grant {
	return physical.Grant{Record: s.lock.record, TTL: s.lock.ttl, Token: bytes.Clone(s.lock.token)}
}

// Acquire makes one attempt to take the lock.
func (h *Handle) Acquire(ctx context.Context, r physical.Record, ttl time.Duration, above uint64) (physical.Grant, error) {
	if err := h.enter(ctx); err != nil {
		return physical.Grant{}, err
	}
	defer h.store.mu.Unlock()
	if r.Holder == "" || ttl <= 0 {
		return physical.Grant{}, fmt.Errorf("%w: a lock for %q over %v", physical.ErrInvalid, r.Holder, ttl)
	}
	s := h.store
	now := s.current()
	if now.Holder != "" {
		return physical.Grant{}, &physical.HeldError{Record: now}
	}
	token := make([]byte, 16)
	_, _ = rand.Read(token) // never fails
	s.lock = lock{
		record:  physical.Record{Holder: r.Holder, Name: r.Name, Term: max(now.Term, above) + 1},
		token:   token,
		ttl:     ttl,
		expires: s.clock.Now().Add(ttl),
	}
	s.tell()
	return s.grant(), nil
}

// Renew extends the grant by its TTL.
func (h *Handle) Renew(ctx context.Context, g physical.Grant) (physical.Grant, error) {
	if err := h.enter(ctx); err != nil {
		return physical.Grant{}, err
	}
	defer h.store.mu.Unlock()
	s := h.store
	if !s.holds(g) {
		return physical.Grant{}, physical.ErrLost
	}
	s.lock.expires = s.clock.Now().Add(s.lock.ttl)
	return s.grant(), nil
}

// Release gives the lock up.
func (h *Handle) Release(ctx context.Context, g physical.Grant, next string) error {
	if err := h.enter(ctx); err != nil {
		return err
	}
	defer h.store.mu.Unlock()
	if h.store.holds(g) {
		h.store.free(next)
	}
	return nil
}

// Holder returns the record of the lock.
func (h *Handle) Holder(ctx context.Context) (physical.Record, error) {
	if err := h.enter(ctx); err != nil {
		return physical.Record{}, err
	}
	defer h.store.mu.Unlock()
	now := h.store.current()
	if now.Holder == "" {
		return now, physical.ErrNoHolder
	}
	return now, nil
}

// Watch waits until the record of the lock differs from seen.
func (h *Handle) Watch(ctx context.Context, seen physical.Record) (physical.Record, error) {
	s := h.store
	for {
		if err := h.enter(ctx); err != nil {
			return physical.Record{}, err
		}
		now, changed, left := s.current(), s.changed, s.lock.expires.Sub(s.clock.Now())
		s.mu.Unlock()
		if now != seen {
			return now, nil
		}
		if err := h.wait(ctx, changed, now.Holder != "", left); err != nil {
			return physical.Record{}, err
		}
	}
}

// wait returns when the record has changed, or, while the lock is held, when it may have run out.
func (h *Handle) wait(ctx context.Context, changed <-chan struct{}, held bool, left time.Duration) error {
	var ranOut <-chan time.Time
	if held {
		c, stop := h.store.clock.NewTimer(left)
		defer stop()
		ranOut = c
	}
	select {
	case <-changed:
	case <-ranOut:
	case <-ctx.Done():
		return ctx.Err()
	case <-h.done:
		return physical.ErrClosed
	}
	return nil
}
