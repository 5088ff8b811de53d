package consul

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/locum-ha/locum/physical"
)

// state is the lock as one consistent read shows it.
type state struct {
	record  physical.Record // without a Holder while the lock is free
	session string          // that has it, or ""
	at      uint64          // the index at which it was last written; 0 if it never was
	index   uint64          // what a blocking query waits behind
}

func (s *Store) readLock(ctx context.Context, query url.Values) (state, error) {
	p, index, err := s.api.get(ctx, s.lock, query)
	if err != nil {
		return state{}, err
	}
	st := state{index: index}
	if p != nil {
		st.session, st.at = p.Session, p.ModifyIndex
	}
	st.record, err = decodeRecord(p)
	return st, err
}

// attempts is how often the lock is tried for that others take and release meanwhile.
const attempts = 3

// Acquire makes one attempt to take the lock, by a session of its own.
func (s *Store) Acquire(ctx context.Context, r physical.Record, ttl time.Duration, above uint64) (physical.Grant, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return physical.Grant{}, err
	}
	defer end()
	if r.Holder == "" || ttl <= 0 {
		return physical.Grant{}, fmt.Errorf("%w: a lock for %q over %v", physical.ErrInvalid, r.Holder, ttl)
	}
	now, err := s.readLock(ctx, consistent)
	if err != nil {
		return physical.Grant{}, err
	}
	if now.session != "" {
		return physical.Grant{}, &physical.HeldError{Record: now.record}
	}
	g := physical.Grant{Record: physical.Record{Holder: r.Holder, Name: r.Name}, TTL: max(ttl, s.minTTL)}
	session, err := s.createSession(ctx, r.Name, g.TTL)
	if err != nil {
		return physical.Grant{}, err
	}
	g.Token = []byte(session)
	for range attempts {
		g.Record.Term = max(now.record.Term, above) + 1
		taken, err := s.take(ctx, g.Record, session, now.at)
		if taken {
			return g, nil
		}
		again, errAgain := s.readLock(ctx, consistent)
		if errAgain == nil && again.session == session {
			return g, nil // it was the answer that got lost
		}
		if err = errors.Join(err, errAgain); err != nil {
			s.destroySession(ctx, session) // else each attempt would leave one behind
			return physical.Grant{}, err
		}
		if now = again; now.session != "" {
			break
		}
	}
	s.destroySession(ctx, session)
	if now.session == "" {
		return physical.Grant{}, fmt.Errorf("%w: others took the lock and released it %d times meanwhile", physical.ErrUnavailable, attempts)
	}
	return physical.Grant{}, &physical.HeldError{Record: now.record}
}

// take locks the record for a session, if nobody has written it since it was read at the index at.
func (s *Store) take(ctx context.Context, r physical.Record, session string, at uint64) (bool, error) {
	unchanged := op{Verb: "check-index", Key: s.lock, Index: at}
	if at == 0 {
		unchanged = op{Verb: "check-not-exists", Key: s.lock}
	}
	failed, err := s.api.txn(ctx, []op{unchanged, {Verb: "lock", Key: s.lock, Value: encodeRecord(r), Session: session}})
	return err == nil && len(failed) == 0, err
}

// createSession makes a session that ends by its TTL, or with its node: no health check ends it before, and no delay follows it.
func (s *Store) createSession(ctx context.Context, name string, ttl time.Duration) (string, error) {
	session := map[string]any{
		"Name": "locum " + name, "TTL": ttl.String(), "LockDelay": "0s", "Behavior": "release", "Checks": []string{}, "NodeChecks": []string{},
	}
	if s.sessionNode != "" {
		session["Node"] = s.sessionNode
	}
	body, err := json.Marshal(session)
	if err != nil {
		return "", fmt.Errorf("%w: %v", physical.ErrInvalid, err)
	}
	got, err := s.api.do(ctx, http.MethodPut, "/v1/session/create", nil, body)
	if err != nil {
		return "", failure(ctx, err, false) // a session alone is no lock, and runs out
	}
	if got.status != http.StatusOK && s.sessionNode != "" && bytes.Contains(got.body, []byte("Missing node registration")) {
		return "", fmt.Errorf("%w: there is no node %q in Consul's catalog, whose session is to hold the lock: write the name of another in session_node",
			physical.ErrUnavailable, s.sessionNode)
	}
	if got.status != http.StatusOK && s.api.where.Has("dc") && foreign(got.body) {
		return "", fmt.Errorf("%w: the agent is of another datacenter than %q, and a lock is held by a session of the agent's node: keep the lock in the agent's own (an ha_storage block without datacenter)",
			physical.ErrUnavailable, s.api.where.Get("dc"))
	}
	if got.status != http.StatusOK {
		return "", refusal(got, false)
	}
	var made struct{ ID string }
	if err := json.Unmarshal(got.body, &made); err != nil || made.ID == "" {
		return "", fmt.Errorf("%w: Consul's answer is not a session: %v", physical.ErrUnavailable, err)
	}
	return made.ID, nil
}

// foreign reports whether Consul refuses a session because its datacenter does not know the agent's node.
func foreign(said []byte) bool {
	return bytes.Contains(said, []byte("Missing node registration")) || bytes.Contains(said, []byte("cross datacenter lock"))
}

// destroySession ends a session that has no lock any more. If that fails, it runs out.
func (s *Store) destroySession(ctx context.Context, session string) {
	_, _ = s.api.do(ctx, http.MethodPut, "/v1/session/destroy/"+url.PathEscape(session), nil, nil)
}

// holds reports whether g is the grant in force.
func (st state) holds(g physical.Grant) bool {
	return st.session != "" && st.session == string(g.Token) && st.record.Term == g.Record.Term && st.record.Holder == g.Record.Holder
}

// Renew extends the grant by its TTL.
func (s *Store) Renew(ctx context.Context, g physical.Grant) (physical.Grant, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return physical.Grant{}, err
	}
	defer end()
	if len(g.Token) == 0 {
		return physical.Grant{}, fmt.Errorf("%w: the grant names no session", physical.ErrLost)
	}
	got, err := s.api.do(ctx, http.MethodPut, "/v1/session/renew/"+url.PathEscape(string(g.Token)), nil, nil)
	switch {
	case err != nil:
		return physical.Grant{}, failure(ctx, err, false)
	case got.status == http.StatusNotFound:
		return physical.Grant{}, fmt.Errorf("%w: the session has run out", physical.ErrLost)
	case got.status != http.StatusOK:
		return physical.Grant{}, refusal(got, false)
	}
	now, err := s.readLock(ctx, consistent)
	if err != nil {
		return physical.Grant{}, err
	}
	if !now.holds(g) {
		return physical.Grant{}, fmt.Errorf("%w: term %d is given", physical.ErrLost, now.record.Term)
	}
	return g, nil
}

// Release gives the lock up. The record stays, with the term.
func (s *Store) Release(ctx context.Context, g physical.Grant, next string) error {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if len(g.Token) == 0 {
		return nil
	}
	free := encodeRecord(physical.Record{Name: g.Record.Name, Term: g.Record.Term, Next: next})
	failed, err := s.api.txn(ctx, []op{{Verb: "unlock", Key: s.lock, Value: free, Session: string(g.Token)}})
	if err != nil {
		return err
	}
	if len(failed) == 0 {
		s.destroySession(ctx, string(g.Token))
	}
	return nil
}

// Holder returns the record of the lock.
func (s *Store) Holder(ctx context.Context) (physical.Record, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return physical.Record{}, err
	}
	defer end()
	now, err := s.readLock(ctx, consistent)
	if err != nil {
		return physical.Record{}, err
	}
	if now.session == "" {
		return now.record, physical.ErrNoHolder
	}
	return now.record, nil
}

// watchWait is how long one blocking query waits for a change, and watchLate how much later its answer may come before
// the agent is thought to be gone.
const (
	watchWait = 10 * time.Second
	watchLate = 2 * time.Second // Consul adds up to a sixteenth of the wait
)

// Watch waits until the record of the lock differs from seen, by Consul's blocking queries.
func (s *Store) Watch(ctx context.Context, seen physical.Record) (physical.Record, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return physical.Record{}, err
	}
	defer end()
	query := consistent
	for {
		now, err := s.watchOnce(ctx, query)
		if err != nil {
			return physical.Record{}, err
		}
		if now.record != seen {
			return now.record, nil
		}
		query = url.Values{"consistent": {""}, "index": {strconv.FormatUint(max(now.index, 1), 10)}, "wait": {watchWait.String()}}
	}
}

func (s *Store) watchOnce(ctx context.Context, query url.Values) (state, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, watchWait+watchLate, errors.New("a blocking query was not answered in time"))
	defer cancel()
	return s.readLock(ctx, query)
}
