package auth

import (
	"context"
	"errors"
	"fmt"

	"github.com/locum-ha/locum/physical"
)

// Revoke removes a token, and all that descend from it lose their power in the same instant. A token that is not there
// is revoked already.
func (s *Store) Revoke(ctx context.Context, secret Secret, req Request) error {
	if secret == "" || len(secret) > maxLen {
		return nil
	}
	return s.revoke(ctx, s.macs.sum(secret), req)
}

// RevokeAccessor is Revoke for the token that an accessor names; [ErrNoAccessor] if there is none.
func (s *Store) RevokeAccessor(ctx context.Context, accessor string, req Request) error {
	d, err := s.named(ctx, accessor)
	if errors.Is(err, ErrNoAccessor) {
		if done, err := s.slots.Answered(ctx, req, nil); done || err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	return s.revoke(ctx, d, req)
}

func (s *Store) revoke(ctx context.Context, d digest, req Request) error {
	lock := s.lock(d)
	lock.Lock()
	defer lock.Unlock()
	for range attempts {
		t, raw, rerr := s.read(ctx, d)
		if rerr != nil && !errors.Is(rerr, ErrDenied) && !errors.Is(rerr, ErrDamaged) {
			return rerr
		}
		if done, err := s.slots.Answered(ctx, req, nil); done || err != nil {
			return err
		}
		if errors.Is(rerr, ErrDenied) {
			return nil
		}
		ops, more, err := s.removal(ctx, d, t, raw)
		if err != nil {
			return err
		}
		if ops, err = req.Append(ops, nil); err != nil {
			return err
		}
		err = s.commit(ctx, []digest{d}, ops...)
		if err == nil {
			if more {
				s.kick()
			}
			return nil
		}
		if !errors.Is(err, physical.ErrConflict) {
			return fmt.Errorf("revoke a token: %w", err)
		}
		req.Repeat = true // another attempt landed, late, perhaps of this very request
	}
	return busy()
}

// removal gives the ops that remove a token and what leads to it, on condition that it is as it was read, and reports
// whether it has children, which are noted to be removed too. A token that cannot be read (t is nil) is removed
// alone with its children; what leads to it leads nowhere.
func (s *Store) removal(ctx context.Context, d digest, t *Token, raw []byte) (ops []physical.Op, more bool, err error) {
	ops = []physical.Op{physical.RequireValue(tokenKey(d), raw), physical.Delete(tokenKey(d))}
	if t != nil {
		ops = append(ops, physical.Delete(accessorPrefix+s.macs.accessor(t.Accessor).String()))
		if !t.ExpireTime.IsZero() {
			ops = append(ops, physical.Delete(expiryKey(t.ExpireTime, d)))
		}
		if t.parent != nil {
			ops = append(ops, physical.Delete(childKey(*t.parent, d)))
		}
	}
	children, err := s.entries.List(ctx, childPrefix+d.String()+"/", "", 1)
	if err != nil {
		return nil, false, err
	}
	if len(children) > 0 {
		more = true
		ops = append(ops, physical.Put(revokedKey(d), nil))
	}
	return ops, more, nil
}

// orphanPage is how many children become orphans in one commit.
const orphanPage = 16

// RevokeOrphan removes a token and lets its children live on, as orphans. With many children this takes several commits;
// the token goes with the last. [ErrNoToken] if it is not there.
func (s *Store) RevokeOrphan(ctx context.Context, secret Secret, req Request) error {
	d := s.macs.sum(secret)
	lock := s.lock(d)
	lock.Lock()
	defer lock.Unlock()
	for left := attempts; left > 0; {
		t, raw, rerr := s.read(ctx, d)
		if rerr != nil && !errors.Is(rerr, ErrDenied) {
			return rerr
		}
		if done, err := s.slots.Answered(ctx, req, nil); done || err != nil {
			return err
		}
		if rerr != nil || secret == "" || len(secret) > maxLen {
			return ErrNoToken
		}
		more, err := s.orphan(ctx, d, t, raw, req)
		switch {
		case errors.Is(err, physical.ErrConflict):
			req.Repeat = true
			left--
		case err != nil || !more:
			return err
		}
	}
	return busy()
}

// orphan lets some children go, and with the last of them removes their parent.
func (s *Store) orphan(ctx context.Context, d digest, t *Token, raw []byte, req Request) (more bool, err error) {
	names, err := s.entries.List(ctx, childPrefix+d.String()+"/", "", orphanPage+1)
	if err != nil {
		return false, err
	}
	more = len(names) > orphanPage
	names = names[:min(len(names), orphanPage)]
	var ops []physical.Op
	written := []digest{d}
	for _, name := range names {
		child, err := parseDigest(name)
		if err != nil {
			return false, err
		}
		ops = append(ops, physical.Delete(childKey(d, child)))
		c, craw, err := s.read(ctx, child)
		if errors.Is(err, ErrDenied) {
			continue
		}
		if err != nil {
			return false, err
		}
		free := *c
		free.parent = nil
		changes, err := change(child, c, craw, &free)
		if err != nil {
			return false, err
		}
		ops = append(ops, changes...)
		written = append(written, child)
	}
	if !more {
		removed, _, err := s.removal(ctx, d, t, raw)
		if err != nil {
			return false, err
		}
		for _, op := range removed {
			if op.Key != revokedKey(d) {
				ops = append(ops, op)
			}
		}
		if ops, err = req.Append(ops, nil); err != nil {
			return false, err
		}
	}
	if err := s.commit(ctx, written, ops...); err != nil {
		return false, fmt.Errorf("revoke a token and keep its children: %w", err)
	}
	return more, nil
}

// kick wakes Run: there is something to remove.
func (s *Store) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
