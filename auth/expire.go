package auth

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/locum-ha/locum/physical"
)

const (
	sweepEvery  = 30 * time.Second
	sweepRetry  = 2 * time.Second // after an error, doubled up to sweepEvery
	sweepPage   = 64              // names read at once
	expiryEvery = time.Minute     // tokens that run out within one are removed together
)

// minuteOf is when a token that runs out at an instant is removed: after the minute that the instant lies in. "" for
// never. In this form minutes sort as they come.
func minuteOf(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return fmt.Sprintf("%016x", uint64(max(0, at.Unix()/int64(expiryEvery/time.Second))))
}

// Run removes tokens that ran out, and the descendants of those that were revoked, until ctx ends, which is the
// leadership's. Nothing waits for it: such tokens are denied at once. It returns nil.
func (s *Store) Run(ctx context.Context) error {
	retry := sweepRetry
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-timer.C:
		}
		next := sweepEvery
		if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.Warn("tokens that ran out could not be removed yet", "error", err, "retry_in", retry)
			next = retry
			retry = min(2*retry, sweepEvery)
		} else {
			retry = sweepRetry
		}
		timer.Reset(next)
	}
}

// sweep removes everything that is due. What cannot be removed is left, and does not keep the rest from it.
func (s *Store) sweep(ctx context.Context) error {
	var errs []error
	for after := ""; ; {
		minutes, err := s.entries.List(ctx, expiryPrefix, after, 1)
		if err != nil {
			return err
		}
		if len(minutes) == 0 || minutes[0] >= minuteOf(s.now())+"/" {
			break
		}
		after = minutes[0]
		if err := s.each(ctx, expiryPrefix+after, s.expire(after)); err != nil {
			errs = append(errs, fmt.Errorf("expired tokens: %w", err))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	// A generation at a time: removing one notes the next, which lists behind or before it.
	for range maxParents + 1 {
		left, err := s.entries.List(ctx, revokedPrefix, "", 1)
		if err == nil && len(left) > 0 {
			err = s.each(ctx, revokedPrefix, s.removeChildren)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("children of revoked tokens: %w", err))
			break
		}
		if len(left) == 0 {
			break
		}
	}
	return errors.Join(errs...)
}

// each calls f with every digest below a prefix. f removes the entry; one that it leaves is met no second time. What is
// wrong with one entry does not keep the others from it.
func (s *Store) each(ctx context.Context, prefix string, f func(context.Context, digest) error) error {
	var odd error
	for after := ""; ; {
		names, err := s.entries.List(ctx, prefix, after, sweepPage)
		if err != nil || len(names) == 0 {
			return errors.Join(odd, err)
		}
		for _, name := range names {
			after = name
			d, err := parseDigest(name)
			if err == nil {
				err = f(ctx, d)
			}
			switch {
			case errors.Is(err, ErrDamaged), errors.Is(err, ErrNewerFormat), errors.Is(err, physical.ErrConflict):
				odd = err
			case err != nil:
				return err
			case ctx.Err() != nil:
				return ctx.Err()
			}
		}
	}
}

// expire removes a token that ran out in a minute, given as listed.
func (s *Store) expire(minute string) func(context.Context, digest) error {
	return func(ctx context.Context, d digest) error {
		lock := s.lock(d)
		lock.Lock()
		defer lock.Unlock()
		note := expiryPrefix + minute + d.String()
		t, raw, err := s.read(ctx, d)
		if errors.Is(err, ErrDenied) || err == nil && !t.Expired(s.now()) {
			// What notes it was left behind.
			return s.entries.Commit(ctx, physical.Delete(note))
		}
		if err != nil {
			return err
		}
		ops, _, err := s.removal(ctx, d, t, raw)
		if err != nil {
			return err
		}
		if expiryKey(t.ExpireTime, d) != note {
			ops = append(ops, physical.Delete(note))
		}
		return s.commit(ctx, []digest{d}, ops...)
	}
}

// removeChildren removes the children of a token that is gone; theirs are noted in turn.
func (s *Store) removeChildren(ctx context.Context, parent digest) error {
	prefix := childPrefix + parent.String() + "/"
	err := s.each(ctx, prefix, func(ctx context.Context, d digest) error {
		lock := s.lock(d)
		lock.Lock()
		defer lock.Unlock()
		t, raw, err := s.read(ctx, d)
		if errors.Is(err, ErrDenied) || err == nil && (t.parent == nil || *t.parent != parent) {
			return s.entries.Commit(ctx, physical.Delete(prefix+d.String()))
		}
		if err != nil {
			return err
		}
		ops, _, err := s.removal(ctx, d, t, raw)
		if err != nil {
			return err
		}
		return s.commit(ctx, []digest{d}, ops...)
	})
	if err != nil {
		return err
	}
	left, err := s.entries.List(ctx, prefix, "", 1)
	if err != nil || len(left) > 0 {
		return err
	}
	return s.entries.Commit(ctx, physical.Delete(revokedKey(parent)))
}
