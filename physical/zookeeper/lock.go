package zookeeper

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/locum-ha/locum/physical"
)

// state is the lock at one instant.
type state struct {
	record  physical.Record // without a Holder while the lock is free
	session int64           // that has it, or 0
	version int32           // of the record of the last term
}

// readAgain is how often the lock is read that others take and release meanwhile.
const readAgain = 5

// readLock reads the last term, the holder, and the last term again: if that has not changed, the three belong together.
func (s *Store) readLock(ctx context.Context, watch bool) (state, error) {
	for range readAgain {
		found, err := s.ask(ctx, current, query{op: opGetData, path: s.term, watch: watch},
			query{op: opGetData, path: s.holder, watch: watch}, query{op: opExists, path: s.holder, watch: watch}, query{op: opExists, path: s.term})
		if err != nil {
			return state{}, err
		}
		term, holder := found[1], found[2]
		if term.err != nil {
			if err := s.initialise(ctx); err != nil { // it was removed: terms go on above the fence's
				return state{}, err
			}
			continue
		}
		if found[4].stat.version != term.stat.version || holder.err != found[3].err {
			continue
		}
		st := state{version: term.stat.version}
		if holder.err == nil {
			st.session = holder.stat.owner
			st.record, err = decodeRecord(holder.data)
			return st, err
		}
		st.record, err = decodeRecord(term.data)
		st.record.Holder = ""
		return st, err
	}
	return state{}, fmt.Errorf("%w: the lock changes hands too fast to be read", physical.ErrUnavailable)
}

// token is what a grant carries: the session, and the version of the record that was written with it.
type token struct {
	session credentials
	version int32
}

func (t token) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(t.session.id))
	b = binary.BigEndian.AppendUint32(b, uint32(t.version))
	return append(b, t.session.password...)
}

func tokenOf(g physical.Grant) (token, bool) {
	const head = 8 + 4
	if len(g.Token) < head {
		return token{}, false
	}
	return token{
		session: credentials{int64(binary.BigEndian.Uint64(g.Token)), g.Token[head:]},
		version: int32(binary.BigEndian.Uint32(g.Token[8:])),
	}, true
}

// attempts is how often the lock is tried for that others take and release meanwhile.
const attempts = 3

// Acquire makes one attempt to take the lock, by a session of its own. The servers may lengthen or shorten its time-out:
// the grant says what was given.
func (s *Store) Acquire(ctx context.Context, r physical.Record, ttl time.Duration, above uint64) (physical.Grant, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return physical.Grant{}, err
	}
	defer end()
	if r.Holder == "" || ttl <= 0 {
		return physical.Grant{}, fmt.Errorf("%w: a lock for %q over %v", physical.ErrInvalid, r.Holder, ttl)
	}
	now, err := s.readLock(ctx, false)
	if err != nil {
		return physical.Grant{}, err
	}
	if now.session != 0 {
		return physical.Grant{}, &physical.HeldError{Record: now.record}
	}
	c, err := s.dialer.attach(ctx, credentials{}, ttl, 0)
	if err != nil {
		return physical.Grant{}, translate(ctx, err, false) // a session alone is no lock, and runs out
	}
	defer c.close()
	g := physical.Grant{Record: physical.Record{Holder: r.Holder, Name: r.Name}, TTL: c.timeout}
	for range attempts {
		g.Record.Term = max(now.record.Term, above) + 1
		g.Token = token{c.session, now.version + 1}.encode()
		err := s.take(ctx, c, g.Record, now.version)
		if err != nil && !raced(err) {
			return s.settle(ctx, c, g, err)
		}
		if err == nil {
			return g, nil
		}
		if now, err = s.readLock(ctx, false); err != nil {
			return physical.Grant{}, err
		}
		if now.session != 0 {
			break
		}
	}
	_, _ = c.call(ctx, opCloseSession, nil) // else it runs out
	if now.session == 0 {
		return physical.Grant{}, fmt.Errorf("%w: others took the lock and released it %d times meanwhile", physical.ErrUnavailable, attempts)
	}
	return physical.Grant{}, &physical.HeldError{Record: now.record}
}

// take makes the holder's node, and counts up the term if its record is still the one that was read.
func (s *Store) take(ctx context.Context, c *conn, r physical.Record, version int32) error {
	holder := createStep(s.holder, encodeRecord(r))
	holder.flags = flagEphemeral
	_, err := c.multi(ctx, encodeMulti([]step{setStep(s.term, encodeRecord(physical.Record{Name: r.Name, Term: r.Term}), version), holder}, s.rights))
	return s.allowed(err)
}

// settle finds out what became of a take that got no answer: the session tells whose the lock is.
func (s *Store) settle(ctx context.Context, c *conn, g physical.Grant, err error) (physical.Grant, error) {
	if now, again := s.readLock(ctx, false); again == nil && now.session == c.session.id && now.record.Term == g.Record.Term {
		return g, nil
	}
	return physical.Grant{}, translate(ctx, err, true)
}

// Renew extends the grant by its TTL: it attaches to the session anew, and commits a check that the lock is still its.
func (s *Store) Renew(ctx context.Context, g physical.Grant) (physical.Grant, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return physical.Grant{}, err
	}
	defer end()
	t, ok := tokenOf(g)
	if !ok {
		return physical.Grant{}, fmt.Errorf("%w: the grant names no session", physical.ErrLost)
	}
	for range attempts {
		var timeout time.Duration
		if timeout, err = s.renewOnce(ctx, t, g.TTL); err == nil {
			g.TTL = timeout
			return g, nil
		}
		if errors.Is(err, physical.ErrLost) || !errors.Is(err, errSent) || ctx.Err() != nil {
			break
		}
	}
	if errors.Is(err, physical.ErrLost) {
		return physical.Grant{}, err
	}
	return physical.Grant{}, translate(ctx, err, false)
}

// renewOnce returns the session's time-out as the servers gave it.
func (s *Store) renewOnce(ctx context.Context, t token, ttl time.Duration) (time.Duration, error) {
	c, err := s.dialer.attach(ctx, t.session, ttl, 0)
	if errors.Is(err, errExpired) {
		return 0, fmt.Errorf("%w: the session has run out", physical.ErrLost)
	}
	if err != nil {
		return 0, err
	}
	defer c.close()
	_, err = c.multi(ctx, encodeMulti([]step{checkStep(s.term, t.version), checkStep(s.holder, -1)}, s.rights))
	switch {
	case raced(err):
		return 0, fmt.Errorf("%w: the lock is free or another's", physical.ErrLost)
	case hasCode(err, codeSessionExpired):
		return 0, fmt.Errorf("%w: the session has run out", physical.ErrLost)
	}
	return c.timeout, s.allowed(err)
}

// Release gives the lock up. Its session is left to run out.
func (s *Store) Release(ctx context.Context, g physical.Grant, next string) error {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	t, ok := tokenOf(g)
	if !ok {
		return nil
	}
	free := encodeRecord(physical.Record{Name: g.Record.Name, Term: g.Record.Term, Next: next})
	_, err = s.multi(ctx, []step{setStep(s.term, free, t.version), deleteStep(s.holder)})
	if raced(err) {
		return nil // it was lost
	}
	return translate(ctx, err, true)
}

// Holder returns the record of the lock.
func (s *Store) Holder(ctx context.Context) (physical.Record, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return physical.Record{}, err
	}
	defer end()
	now, err := s.readLock(ctx, false)
	if err != nil {
		return physical.Record{}, err
	}
	if now.session == 0 {
		return now.record, physical.ErrNoHolder
	}
	return now.record, nil
}

// Watch waits until the record of the lock differs from seen, by ZooKeeper's watches.
func (s *Store) Watch(ctx context.Context, seen physical.Record) (physical.Record, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return physical.Record{}, err
	}
	defer end()
	for {
		c, err := s.main.get(ctx)
		if err != nil {
			return physical.Record{}, translate(ctx, err, false)
		}
		changed := c.events() // before the read, which sets the watches
		now, err := s.readLock(ctx, true)
		if err != nil {
			return physical.Record{}, err
		}
		if now.record != seen {
			return now.record, nil
		}
		select {
		case <-changed:
		case <-c.dead: // its watches went with it
		case <-ctx.Done():
			return physical.Record{}, translate(ctx, context.Cause(ctx), false)
		}
	}
}
