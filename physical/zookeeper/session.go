package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/locum-ha/locum/physical"
)

// session is a session that outlives its connections: the next call after one broke connects anew and attaches to it, or
// to a new one if it has run out. It never attaches to a server that knows less than it has seen.
type session struct {
	dialer *dialer
	turn   chan struct{} // holds a token while somebody connects

	mu     sync.Mutex
	conn   *conn // the last one; it may be dead
	seen   int64
	closed bool
}

// current returns the connection, nil if there is none that lives.
func (s *session) current() *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return nil
	}
	if !s.conn.alive() {
		return nil
	}
	return s.conn
}

// get returns a connection that lives.
func (s *session) get(ctx context.Context) (*conn, error) {
	if c := s.current(); c != nil {
		return c, nil
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if c := s.current(); c != nil {
		return c, nil
	}
	var credentials credentials
	s.mu.Lock()
	if old := s.conn; old != nil {
		credentials, s.seen = old.session, max(s.seen, old.seen())
	}
	seen := s.seen
	s.mu.Unlock()
	c, err := s.dialer.attach(ctx, credentials, sessionTime, seen)
	if errors.Is(err, errExpired) {
		credentials.id = 0
		c, err = s.dialer.attach(ctx, credentials, sessionTime, seen)
	}
	if err != nil {
		return nil, err
	}
	return c, s.keep(c)
}

// keep makes c the session's connection, after the one before has ended with all that it had started.
func (s *session) keep(c *conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		s.conn.all.Wait() // it is dead
	}
	s.conn = c
	if s.closed {
		c.close()
		return net.ErrClosed
	}
	return nil
}

// goodbye is how long the servers may take to take note of the end of a session.
const goodbye = 50 * time.Millisecond

// close ends the session and its connection.
func (s *session) close() {
	if c := s.current(); c != nil {
		ctx, cancel := context.WithTimeout(context.Background(), goodbye)
		_, _ = c.call(ctx, opCloseSession, nil)
		cancel()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.conn != nil {
		s.conn.close()
	}
}

// query is one read; a sync is one too, and has those behind it see all that was written before.
type query struct {
	op    int32
	path  string
	watch bool
}

// finding is the answer to a query: what there is at the node, or a codeError.
type finding struct {
	err   error
	data  []byte
	stat  stat
	names []string
}

// readAttempts is how often reads are repeated whose connection broke.
const readAttempts = 3

// ask makes queries in one go, over one connection and in order. An error means that there is no answer to all of them.
func (s *Store) ask(ctx context.Context, queries ...query) ([]finding, error) {
	var last error
	for range readAttempts {
		c, err := s.main.get(ctx)
		if err != nil {
			return nil, translate(ctx, err, false)
		}
		found, err := c.ask(ctx, queries)
		if err == nil {
			return found, nil
		}
		if ctx.Err() != nil || !errors.Is(err, errSent) && c.alive() {
			return nil, translate(ctx, s.allowed(err), false)
		}
		last = err
	}
	return nil, fmt.Errorf("%w: %v", physical.ErrUnavailable, last)
}

func (c *conn) ask(ctx context.Context, queries []query) ([]finding, error) {
	requests := make([]*request, len(queries))
	for i, q := range queries {
		var err error
		requests[i], err = c.start(ctx, q.op, func(o *out) {
			o.string(q.path)
			if q.op != opSync {
				o.bool(q.watch)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	found := make([]finding, len(queries))
	for i, q := range queries {
		body, err := c.wait(ctx, requests[i])
		var code codeError
		switch {
		case errors.As(err, &code) && int32(code) == codeNoNode:
			found[i].err = code
			continue
		case err != nil:
			return nil, err
		}
		switch q.op {
		case opGetData:
			found[i].data, found[i].stat = body.buffer(), body.stat()
		case opExists:
			found[i].stat = body.stat()
		case opGetChildren:
			for n := body.int32(); n > 0 && body.err == nil; n-- {
				found[i].names = append(found[i].names, body.string())
			}
		}
		if body.err != nil {
			return nil, body.err
		}
	}
	return found, nil
}

// multi carries out all steps or none, over the main session. It returns the version that each left its node in.
func (s *Store) multi(ctx context.Context, steps []step) ([]int32, error) {
	body := encodeMulti(steps, s.rights)
	if len(body) > maxBody {
		return nil, &physical.TooLargeError{What: "bytes in a commit", Size: len(body), Limit: maxBody}
	}
	c, err := s.main.get(ctx)
	if err != nil {
		return nil, err
	}
	versions, err := c.multi(ctx, body)
	return versions, s.allowed(err)
}

// allowed says of an error for a right that is missing which ones are needed.
func (s *Store) allowed(err error) error {
	if !hasCode(err, codeNoAuth) {
		return err
	}
	return fmt.Errorf("%w; the user needs the rights to create, delete, read and write %s and all below it", err, s.base)
}
