package raft

import (
	"context"
	"errors"

	"github.com/locum-ha/locum/physical"
)

var (
	_ physical.Backend   = (*Store)(nil)
	_ physical.HABackend = (*Store)(nil)
	_ physical.Watcher   = (*Store)(nil)
	_ physical.Yielder   = (*Store)(nil)
)

// Caps says what the store can do.
func (s *Store) Caps() physical.Caps {
	return physical.Caps{
		Name: "raft", Entries: true, HA: true, Watch: true, LocalReads: true, Shared: true,
		MaxKey: maxKey, MaxValue: maxValue, MaxOps: maxOps, MaxCommit: maxCommit,
		MinTTL: s.timing.heartbeat, DefaultTTL: s.timing.heartbeat,
		Failover: "The store is the cluster itself: while a majority of the nodes is there, nothing acknowledged is lost; " +
			"without a majority nothing is written and nobody is active.",
	}
}

// Get reads this node's copy. On the node that holds the lock it is current.
func (s *Store) Get(ctx context.Context, key string) (*physical.Entry, error) {
	if err := s.readable(ctx); err != nil {
		return nil, err
	}
	if err := physical.CheckKey(key); err != nil {
		return nil, err
	}
	value, err := s.state.get(key)
	if err != nil {
		return nil, err
	}
	return &physical.Entry{Key: key, Value: value}, nil
}

// List reads this node's copy, as Get does.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if err := s.readable(ctx); err != nil {
		return nil, err
	}
	if err := physical.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	return s.state.list(prefix, after, limit)
}

// Fence returns the fence in this node's copy.
func (s *Store) Fence(ctx context.Context) (physical.Fence, error) {
	if err := s.readable(ctx); err != nil {
		return physical.Fence{}, err
	}
	return s.state.header().fence, nil
}

func (s *Store) readable(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return physical.ErrClosed
	}
	return nil
}

// Commit writes through the log. Only the node that leads raft can: on any other it is ErrUnavailable, and
// certainly nothing was written.
func (s *Store) Commit(ctx context.Context, fence *physical.Fence, ops ...physical.Op) error {
	if err := s.Caps().Check(ops); err != nil {
		return err
	}
	req := request{kind: kindCommit, ops: ops}
	if fence != nil {
		req.fenced, req.fence = true, *fence
	}
	_, err := s.submit(ctx, req)
	return err
}

// RaiseFence raises the fence through the log.
func (s *Store) RaiseFence(ctx context.Context, from, to physical.Fence) error {
	if !from.Below(to) {
		return physical.ErrFenced
	}
	_, err := s.submit(ctx, request{kind: kindRaise, fence: from, to: to})
	return err
}

func (s *Store) submit(ctx context.Context, req request) (result, error) {
	run, err := s.engine()
	if err != nil {
		return result{}, err
	}
	out, err := run.commits.submit(ctx, req)
	if errors.Is(err, errNotRunning) && s.isClosed() {
		return out, physical.ErrClosed
	}
	return out, err
}

func (s *Store) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}
