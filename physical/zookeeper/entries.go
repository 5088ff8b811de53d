package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/locum-ha/locum/physical"
)

// current makes what is read behind it show all that was written before.
var current = query{op: opSync, path: "/"}

// Get returns the entry at key.
func (s *Store) Get(ctx context.Context, key string) (*physical.Entry, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	if err := physical.CheckKey(key); err != nil {
		return nil, err
	}
	_, node := s.nodes(key)
	found, err := s.ask(ctx, current, query{op: opGetData, path: node})
	if err != nil {
		return nil, err
	}
	if found[1].err != nil {
		return nil, physical.ErrNotFound
	}
	return &physical.Entry{Key: key, Value: found[1].data}, nil
}

// List returns the direct children of prefix. ZooKeeper gives all of them in one answer, and has no pages.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	if err := physical.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	found, err := s.ask(ctx, current, query{op: opGetChildren, path: s.folder(prefix)})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, stored := range found[1].names {
		name := unescape(stored[1:])
		if stored[:1] == folderSign {
			name += "/"
		}
		if name > after {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if limit > 0 && len(names) > limit {
		names = names[:limit]
	}
	return names, nil
}

// A commit is tried so often while others change what it has read, and from the attempt patientAttempts on it keeps
// this node's other commits out, so that some end is in sight.
const (
	commitAttempts  = 100
	patientAttempts = 3
)

// Commit applies all ops or none, in one multi that begins with the fence.
func (s *Store) Commit(ctx context.Context, fence *physical.Fence, ops ...physical.Op) error {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := s.caps.Check(ops); err != nil {
		return err
	}
	want := physical.Fence{}
	if fence != nil {
		want = *fence
	}
	if retry, err := s.commitAsGuessed(ctx, want, ops); !retry {
		return err
	}
	for attempt := range commitAttempts {
		enter := s.writes.enter
		if attempt >= patientAttempts {
			enter = s.writes.enterAlone
		}
		leave, err := enter(ctx)
		if err != nil {
			return translate(ctx, err, false)
		}
		retry, err := s.commitAsRead(ctx, want, ops)
		leave()
		if !retry {
			return err
		}
	}
	return fmt.Errorf("%w: others changed the same entries over and over meanwhile", physical.ErrUnavailable)
}

// commitAsGuessed writes without reading, where hints say what there is. It is to be retried, with reading, if they were
// wrong or there are none.
func (s *Store) commitAsGuessed(ctx context.Context, fence physical.Fence, ops []physical.Op) (retry bool, err error) {
	steps, ok := s.hints.guess(s, ops)
	if !ok {
		return true, nil
	}
	leave, err := s.writes.enter(ctx)
	if err != nil {
		return false, translate(ctx, err, false)
	}
	defer leave()
	if retry, err = s.write(ctx, fence, steps); retry {
		s.hints.wrong(s, ops)
	}
	return retry, err
}

// commitAsRead reads, plans and writes. It is to be tried again if what it had read changed before it could write.
func (s *Store) commitAsRead(ctx context.Context, fence physical.Fence, ops []physical.Op) (retry bool, err error) {
	p := newPlan(s, ops)
	// The fence last: one that is there then was there all the time, since none ever comes back.
	queries := append(append([]query{current}, p.queries...), query{op: opExists, path: s.fenceNode(fence)})
	found, err := s.ask(ctx, queries...)
	if err != nil {
		return false, err
	}
	if found[len(found)-1].err != nil {
		return false, s.fenced(ctx)
	}
	if err := p.learn(found[1 : len(found)-1]); err != nil {
		return false, err
	}
	s.hints.saw(p.node(s.deletes).stat.version)
	if retry, err = s.write(ctx, fence, p.steps()); err == nil && !retry {
		s.hints.exist(p.folders())
	}
	return retry, err
}

// write carries out steps behind a check of the fence. It is to be retried if they do not fit what there is.
func (s *Store) write(ctx context.Context, fence physical.Fence, steps []step) (retry bool, err error) {
	steps = append([]step{checkStep(s.fenceNode(fence), -1)}, steps...)
	versions, err := s.multi(ctx, steps)
	var failed *multiError
	switch {
	case err == nil:
		s.hints.learn(s, steps, versions)
		return false, nil
	case !errors.As(err, &failed):
		return false, translate(ctx, err, true)
	case failed.index == 0 && int32(failed.code) == codeNoNode:
		return false, s.fenced(ctx)
	case raced(err):
		return true, nil
	}
	return false, fmt.Errorf("%w: %v", physical.ErrUnavailable, err)
}

func (s *Store) fenced(ctx context.Context) error {
	now, err := s.readFence(ctx)
	if err != nil {
		return fmt.Errorf("%w: which one it is cannot be read now", physical.ErrFenced)
	}
	return fmt.Errorf("%w: the store's fence is %v", physical.ErrFenced, now)
}

// RaiseFence replaces the fence from by to. An unclear outcome is settled by reading back the nonce, while ctx lasts.
func (s *Store) RaiseFence(ctx context.Context, from, to physical.Fence) error {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if !from.Below(to) {
		return fmt.Errorf("%w: %v is not above %v", physical.ErrFenced, to, from)
	}
	_, err = s.multi(ctx, []step{deleteStep(s.fenceNode(from)), createStep(s.fenceNode(to), nil), setStep(s.fence, encodeFence(to), -1)})
	var failed *multiError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &failed) && int32(failed.code) == codeNoNode:
		return s.fenced(ctx)
	}
	if now, again := s.readFence(ctx); again == nil && now == to {
		return nil
	}
	return translate(ctx, err, true)
}

// Fence returns the stored fence.
func (s *Store) Fence(ctx context.Context) (physical.Fence, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return physical.Fence{}, err
	}
	defer end()
	return s.readFence(ctx)
}

func (s *Store) readFence(ctx context.Context) (physical.Fence, error) {
	found, err := s.ask(ctx, current, query{op: opGetData, path: s.fence})
	if err != nil {
		return physical.Fence{}, err
	}
	if found[1].err != nil {
		return physical.Fence{}, fmt.Errorf("%w: the node %s was removed", physical.ErrUnavailable, s.fence)
	}
	return decodeFence(found[1].data)
}
