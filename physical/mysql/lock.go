package mysql

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
	beat       uint64 // counts renewals
	ttl        time.Duration
	comparable bool          // left was measured on the clock that the holder's server had
	left       time.Duration // of the grant; 0 or less: it has run out
}

// look reads the row.
func (s *Store) look(ctx context.Context) (row, error) {
	var r row
	var ttl, left int64
	var format int
	err := s.query(ctx, s.calls, false, s.schema.expand("SELECT holder, name, term, next, token, beat, ttl_us, clock = @server, TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(6), expires), format FROM @lock WHERE id = 1"),
		nil, &r.record.Holder, &r.record.Name, &r.record.Term, &r.record.Next, &r.token, &r.beat, &ttl, &r.comparable, &left, &format)
	if err == nil {
		err = newer(s.schema.lock, format)
	}
	if err != nil {
		return row{}, err
	}
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
// server's clock is another one than when the grant was given.
type observed struct {
	mu    sync.Mutex
	token []byte
	beat  uint64
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

// acquire takes the lock if it is free, has run out on the clock that it was given on, or is the grant that the caller has
// seen for its TTL without a renewal. UTC_TIMESTAMP is the instant at which the statement began.
const acquire = `UPDATE @lock SET holder = ?, name = ?, term = LAST_INSERT_ID(GREATEST(term, ?) + 1), next = '', token = ?, beat = 1, ttl_us = ?,
  expires = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND, clock = @server
WHERE id = 1 AND (holder = '' OR clock = @server AND expires <= UTC_TIMESTAMP(6) OR token = ? AND beat = ?)`

// mostName is what the columns of the lock take.
const mostName = 255

// Acquire makes one attempt to take the lock.
func (s *Store) Acquire(ctx context.Context, r physical.Record, ttl time.Duration, above uint64) (physical.Grant, error) {
	if err := s.enter(ctx); err != nil {
		return physical.Grant{}, err
	}
	if r.Holder == "" || ttl < time.Microsecond || len(r.Holder) > mostName || len(r.Name) > mostName {
		return physical.Grant{}, fmt.Errorf("%w: a lock for %q over %v", physical.ErrInvalid, r.Holder, ttl)
	}
	now, err := s.look(ctx)
	if err != nil {
		return physical.Grant{}, err
	}
	if now.current().Holder != "" {
		return physical.Grant{}, &physical.HeldError{Record: now.record}
	}
	var seen any // NULL unless a grant is to be ended that the server cannot end by itself
	if now.record.Holder != "" && !now.comparable {
		seen = now.token
	}
	token := make([]byte, 16)
	_, _ = rand.Read(token) // never fails
	rows, term, err := s.change(ctx, s.schema.expand(acquire), []byte(r.Holder), []byte(r.Name), above, token,
		ttl.Microseconds(), ttl.Microseconds(), seen, now.beat)
	switch {
	case err != nil:
		return physical.Grant{}, err
	case rows == 0:
		return physical.Grant{}, s.held(ctx)
	}
	won := physical.Record{Holder: r.Holder, Name: r.Name, Term: uint64(term)}
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

// inForce is the grant of a token and a term, unless its time is over on the clock that it was given on.
const inForce = ` WHERE id = 1 AND holder <> '' AND token = ? AND term = ? AND NOT (clock = @server AND expires <= UTC_TIMESTAMP(6))`

// Renew extends the grant by its TTL.
func (s *Store) Renew(ctx context.Context, g physical.Grant) (physical.Grant, error) {
	rows, us, err := s.change(ctx, s.schema.expand(`UPDATE @lock SET beat = beat + 1, clock = @server,
  expires = UTC_TIMESTAMP(6) + INTERVAL ttl_us MICROSECOND, ttl_us = LAST_INSERT_ID(ttl_us)`+inForce), notNull(g.Token), g.Term())
	if err != nil {
		return physical.Grant{}, err
	}
	if rows == 0 {
		return physical.Grant{}, physical.ErrLost
	}
	g.TTL = time.Duration(us) * time.Microsecond
	return g, nil
}

// Release gives the lock up.
func (s *Store) Release(ctx context.Context, g physical.Grant, next string) error {
	if len(next) > mostName {
		return fmt.Errorf("%w: a successor of %d bytes", physical.ErrInvalid, len(next))
	}
	_, _, err := s.change(ctx, s.schema.expand(`UPDATE @lock SET holder = '', next = ?, token = '', beat = beat + 1`+inForce),
		[]byte(next), notNull(g.Token), g.Term())
	return err
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
