package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
)

// row is the lock's row, as one server read it.
type row struct {
	record     physical.Record // as written, also when its time is over
	token      []byte
	beat       int64 // counts renewals
	ttl        time.Duration
	comparable bool          // left was measured on the clock that the holder's server had
	left       time.Duration // of the grant; 0 or less: it has run out
}

// look reads the row.
func (s *Store) look(ctx context.Context) (row, error) {
	var r row
	var term, ttl, left int64
	var format int
	err := s.query(ctx, s.calls, false, s.schema.expand("SELECT l.*, r.format FROM @look() l, @lock r WHERE r.id = 1"), text(),
		&r.record.Holder, &r.record.Name, &term, &r.record.Next, &r.token, &r.beat, &ttl, &r.comparable, &left, &format)
	if err == nil {
		err = newer(s.schema.lock, format)
	}
	if err != nil {
		return row{}, err
	}
	r.record.Term = uint64(term)
	r.ttl, r.left = time.Duration(ttl)*time.Microsecond, time.Duration(left)*time.Microsecond
	if r.record.Holder != "" && !r.comparable {
		r.left = s.seen.left(r)
	}
	return r, nil
}

// current is the record as it counts: without a holder once the grant has run out.
func (r row) current() physical.Record {
	if r.record.Holder != "" && r.left <= 0 {
		return physical.Record{Term: r.record.Term}
	}
	return r.record
}

// observed is for how long a grant has been seen without a renewal, on this machine's own clock: what counts where the
// database's clock is another one than when the grant was given.
type observed struct {
	mu    sync.Mutex
	token []byte
	beat  int64
	since boottime.Instant // just after it was first read
}

// left returns how long r must still be seen unchanged.
func (o *observed) left(r row) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !bytes.Equal(o.token, r.token) || o.beat != r.beat {
		o.token, o.beat, o.since = bytes.Clone(r.token), r.beat, boottime.Now()
	}
	return r.ttl - boottime.Since(o.since)
}

// Acquire makes one attempt to take the lock.
func (s *Store) Acquire(ctx context.Context, r physical.Record, ttl time.Duration, above uint64) (physical.Grant, error) {
	if err := s.enter(ctx); err != nil {
		return physical.Grant{}, err
	}
	if r.Holder == "" || ttl < time.Microsecond {
		return physical.Grant{}, fmt.Errorf("%w: a lock for %q over %v", physical.ErrInvalid, r.Holder, ttl)
	}
	least, _, err := terms(above, 0)
	if err != nil {
		return physical.Grant{}, err
	}
	now, err := s.look(ctx)
	if err != nil {
		return physical.Grant{}, err
	}
	if now.current().Holder != "" {
		return physical.Grant{}, &physical.HeldError{Record: now.record}
	}
	var seenToken []byte // NULL unless a grant is to be ended that the database cannot end by itself
	if now.record.Holder != "" && !now.comparable {
		seenToken = now.token
	}
	token := make([]byte, 16)
	_, _ = rand.Read(token) // never fails
	var term *int64
	err = s.query(ctx, s.calls, true, "SELECT "+s.schema.acquire+"($1::text, $2::text, $3::bytea, $4::bigint, $5::bigint, $6::bytea, $7::bigint)",
		text(r.Holder, r.Name, token, ttl.Microseconds(), least, seenToken, now.beat), &term)
	switch {
	case err != nil:
		return physical.Grant{}, err
	case term == nil:
		return physical.Grant{}, s.held(ctx)
	}
	won := physical.Record{Holder: r.Holder, Name: r.Name, Term: uint64(*term)}
	return physical.Grant{Record: won, TTL: ttl.Truncate(time.Microsecond), Token: token}, nil
}

// held is why an attempt was refused: somebody else came first.
func (s *Store) held(ctx context.Context) error {
	now, err := s.look(ctx)
	if err != nil {
		return err
	}
	if now.current().Holder == "" {
		return fmt.Errorf("%w: the lock has just changed hands", physical.ErrUnavailable)
	}
	return &physical.HeldError{Record: now.record}
}

// Renew extends the grant by its TTL.
func (s *Store) Renew(ctx context.Context, g physical.Grant) (physical.Grant, error) {
	if err := s.enter(ctx); err != nil {
		return physical.Grant{}, err
	}
	term, _, err := terms(g.Term(), 0)
	if err != nil {
		return physical.Grant{}, physical.ErrLost
	}
	var us *int64
	err = s.query(ctx, s.calls, true, "SELECT "+s.schema.renew+"($1::bytea, $2::bigint)", text(notNull(g.Token), term), &us)
	if err != nil {
		return physical.Grant{}, err
	}
	if us == nil {
		return physical.Grant{}, physical.ErrLost
	}
	g.TTL = time.Duration(*us) * time.Microsecond
	return g, nil
}

// Release gives the lock up.
func (s *Store) Release(ctx context.Context, g physical.Grant, next string) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	term, _, err := terms(g.Term(), 0)
	if err != nil {
		return nil // no grant of this store
	}
	var released bool
	return s.query(ctx, s.calls, true, "SELECT "+s.schema.release+"($1::bytea, $2::bigint, $3::text)", text(notNull(g.Token), term, next), &released)
}

// Holder returns the record of the lock.
func (s *Store) Holder(ctx context.Context) (physical.Record, error) {
	r, err := s.look(ctx)
	if err != nil {
		return physical.Record{}, err
	}
	now := r.current()
	if now.Holder == "" {
		return now, physical.ErrNoHolder
	}
	return now, nil
}

// Watch waits until the record of the lock differs from seen. Where nobody can listen it looks every pollEvery.
func (s *Store) Watch(ctx context.Context, seen physical.Record) (physical.Record, error) {
	for {
		changed := s.ear.changes()
		r, err := s.look(ctx)
		if err != nil {
			return physical.Record{}, err
		}
		if now := r.current(); now != seen {
			return now, nil
		}
		if err := s.wait(ctx, changed, r); err != nil {
			return physical.Record{}, err
		}
	}
}

// pollEvery is how often the lock is looked at while nobody can be told of its changes.
const pollEvery = 100 * time.Millisecond

// wait returns when the record may have changed: told so, or because the grant has run out unless it was renewed.
func (s *Store) wait(ctx context.Context, changed <-chan struct{}, r row) error {
	limit := time.Hour
	if changed == nil {
		limit = pollEvery
	}
	if r.record.Holder != "" {
		limit = min(limit, r.left+time.Millisecond)
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ctx.Done():
		return physical.ErrClosed
	}
	return nil
}
