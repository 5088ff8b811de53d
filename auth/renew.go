package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/locum-ha/locum/physical"
)

// Renewed is a token that lives longer.
type Renewed struct {
	Token    *Token
	Warnings []string
}

// Lookup returns a token, or [ErrNoToken].
func (s *Store) Lookup(ctx context.Context, secret Secret) (*Token, error) {
	t, err := s.Verify(ctx, secret)
	if errors.Is(err, ErrDenied) {
		return nil, ErrNoToken
	}
	return t, err
}

// LookupAccessor returns the token that an accessor names, or [ErrNoAccessor].
func (s *Store) LookupAccessor(ctx context.Context, accessor string) (*Token, error) {
	d, err := s.named(ctx, accessor)
	if err != nil {
		return nil, err
	}
	t, err := s.live(ctx, d)
	if errors.Is(err, ErrDenied) || err == nil && t.NumUses == spent {
		return nil, ErrNoAccessor
	}
	return t, err
}

// named finds the token that an accessor names.
func (s *Store) named(ctx context.Context, accessor string) (digest, error) {
	if accessor == "" || len(accessor) > maxLen {
		return digest{}, ErrNoAccessor
	}
	e, err := s.entries.Get(ctx, accessorPrefix+s.macs.accessor(accessor).String())
	if errors.Is(err, physical.ErrNotFound) {
		return digest{}, ErrNoAccessor
	}
	if err != nil {
		return digest{}, fmt.Errorf("accessor: %w", err)
	}
	return parseAccessor(e.Value)
}

// Accessors lists the accessors of all tokens that have not run out. It reads every token.
func (s *Store) Accessors(ctx context.Context) ([]string, error) {
	const page = 1000
	accessors := []string{}
	for after := ""; ; {
		names, err := s.entries.List(ctx, tokenPrefix, after, page)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			after = name
			d, err := parseDigest(name)
			if err != nil {
				continue
			}
			t, err := s.live(ctx, d)
			switch {
			case errors.Is(err, ErrDenied):
			case err != nil:
				return nil, err
			case t.NumUses != spent:
				accessors = append(accessors, t.Accessor)
			}
		}
		if len(names) < page {
			return accessors, nil
		}
	}
}

// Renew lets a token live longer: for increment, or as long as it was made for if that is 0. [ErrNoToken], or an
// *InvalidError if it cannot be renewed.
func (s *Store) Renew(ctx context.Context, secret Secret, increment time.Duration, req Request) (*Renewed, error) {
	if secret == "" || len(secret) > maxLen {
		return nil, ErrNoToken
	}
	r, err := s.renew(ctx, s.macs.sum(secret), increment, req)
	if errors.Is(err, ErrDenied) {
		return nil, ErrNoToken
	}
	return r, err
}

// RenewAccessor is Renew for the token that an accessor names.
func (s *Store) RenewAccessor(ctx context.Context, accessor string, increment time.Duration, req Request) (*Renewed, error) {
	d, err := s.named(ctx, accessor)
	if err != nil {
		return nil, err
	}
	r, err := s.renew(ctx, d, increment, req)
	if errors.Is(err, ErrDenied) {
		return nil, ErrNoAccessor
	}
	return r, err
}

// renewedAnswer is what a request's slot keeps of a renewal.
type renewedAnswer struct {
	Token    json.RawMessage `json:"token"`
	Warnings []string        `json:"warnings,omitempty"`
}

func (s *Store) renew(ctx context.Context, d digest, increment time.Duration, req Request) (*Renewed, error) {
	if increment < 0 {
		return nil, invalidf("increment must be positive")
	}
	lock := s.lock(d)
	lock.Lock()
	defer lock.Unlock()
	for range attempts {
		before, raw, rerr := s.read(ctx, d)
		if rerr != nil && !errors.Is(rerr, ErrDenied) {
			return nil, rerr
		}
		var answer renewedAnswer
		if done, err := s.slots.Answered(ctx, req, &answer); done || err != nil {
			if err != nil {
				return nil, err
			}
			t, err := parseToken(answer.Token)
			return &Renewed{t, answer.Warnings}, err
		}
		if rerr != nil {
			return nil, rerr
		}
		if _, err := s.live(ctx, d); err != nil {
			return nil, err
		}
		after, warnings, err := s.longer(before, increment)
		if err != nil {
			return nil, err
		}
		ops, err := change(d, before, raw, after)
		if err != nil {
			return nil, err
		}
		if ops, err = req.Append(ops, renewedAnswer{ops[1].Value, warnings}); err != nil {
			return nil, err
		}
		err = s.commit(ctx, []digest{d}, ops...)
		if err == nil {
			return &Renewed{after, warnings}, nil
		}
		if !errors.Is(err, physical.ErrConflict) {
			return nil, fmt.Errorf("renew a token: %w", err)
		}
		req.Repeat = true // another attempt landed, late, perhaps of this very request
	}
	return nil, busy()
}

// longer is the token, renewed.
func (s *Store) longer(before *Token, increment time.Duration) (*Token, []string, error) {
	if !before.Renewable || before.ExpireTime.IsZero() || before.NumUses == spent {
		return nil, nil, invalidf("lease is not renewable")
	}
	now := s.now().UTC().Truncate(time.Second)
	if increment == 0 {
		increment = before.TTL
	}
	ttl, warnings, err := s.ttl(before, increment, now)
	if err != nil {
		return nil, nil, err
	}
	after := *before
	after.ExpireTime, after.LastRenewal = now.Add(ttl), now
	return &after, warnings, nil
}
