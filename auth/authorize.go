package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/locum-ha/locum/physical"
)

// Op is what a request wants to do to a path.
type Op string

// The ops, as policies name them.
const (
	Read   Op = "read"
	List   Op = "list"
	Create Op = "create" // write what is not there yet
	Update Op = "update" // write
	Patch  Op = "patch"
	Delete Op = "delete"
)

var opBits = map[Op]capability{
	Read: canRead, List: canList, Create: canCreate, Update: canUpdate, Patch: canPatch, Delete: canDelete,
}

// Access is what a token is asked for.
type Access struct {
	Path string // without "/v1/": "secret/data/app"
	Op   Op
	Sudo bool // a path that takes the power of root
	Any  bool // every token may: what the path shows, it shows to anybody

	// Exists tells an Update that writes something new, for which "create" is needed, from one that changes what is there,
	// for which it is "update". It is asked only if that decides. nil: "update" is needed, as in Vault for paths that
	// make no such difference.
	Exists func(context.Context) (bool, error)

	// Answered reports whether the request was carried out before, where it is not its slot that tells (package internal/slots). It is asked
	// only for a repeat that would be denied. nil: the slot tells.
	Answered func(context.Context) (bool, error)
}

// spentFor is how long a token is kept after its last use, for a repeat of the request that made it.
const spentFor = 10 * time.Minute

// Authorize returns the token of the request's bearer if it may have the access, or [ErrDenied]. Where a token's uses are
// counted, this is one, in a commit of its own, whether or not it may; a repeat of a request that was counted is not
// counted again. A repeat of a write that was carried out is allowed whatever became of the token in the meantime: it
// gets the stored answer and does nothing.
func (s *Store) Authorize(ctx context.Context, secret Secret, need Access, req Request) (*Token, error) {
	t, d, err := s.verify(ctx, secret)
	if err == nil && t.NumUses != 0 {
		t, err = s.use(ctx, d, req)
	}
	if err == nil {
		err = s.permit(ctx, t, need)
	}
	if !errors.Is(err, ErrDenied) {
		return t, err
	}
	if done, aerr := s.carriedOut(ctx, need, req); done || aerr != nil {
		return &Token{answered: true}, aerr
	}
	return nil, ErrDenied
}

// carriedOut reports whether a request was carried out before. What a writer keeps with its data it may put into the slot meanwhile,
// and never the other way: so the slot is asked last.
func (s *Store) carriedOut(ctx context.Context, need Access, req Request) (bool, error) {
	if need.Answered != nil && s.slots.Repeated(req) {
		if done, err := need.Answered(ctx); done || err != nil {
			return done, err
		}
	}
	return s.slots.Answered(ctx, req, nil)
}

// Check is Authorize where no use can be counted, since this node is not the active one: tokens whose uses are limited are
// denied.
func (s *Store) Check(ctx context.Context, secret Secret, need Access) error {
	t, err := s.Verify(ctx, secret)
	if err != nil {
		return err
	}
	if t.NumUses != 0 {
		return ErrDenied
	}
	return s.permit(ctx, t, need)
}

// permit decides by the token's policies.
func (s *Store) permit(ctx context.Context, t *Token, need Access) error {
	if need.Any || t.Root() {
		return nil
	}
	a, err := s.policies.of(ctx, s.entries, t.Policies)
	if err != nil {
		return err
	}
	if need.Op == List && !strings.HasSuffix(need.Path, "/") {
		need.Path += "/" // what is listed are folders
	}
	allow := a.allowed(need.Path, need.Op == List)
	if need.Sudo && allow&canSudo == 0 {
		return ErrDenied
	}
	bit := opBits[need.Op]
	if need.Op == Update && need.Exists != nil {
		switch allow & (canCreate | canUpdate) {
		case canCreate | canUpdate:
			return nil
		case 0:
			return ErrDenied
		}
		there, err := need.Exists(ctx)
		if err != nil {
			return err
		}
		if !there {
			bit = canCreate
		}
	}
	if allow&bit == 0 {
		return ErrDenied
	}
	return nil
}

// use counts a use of a token, and returns it as it is for the request that made the use.
func (s *Store) use(ctx context.Context, d digest, req Request) (*Token, error) {
	lock := s.lock(d)
	lock.Lock()
	defer lock.Unlock()
	name := requestName(req)
	for range attempts {
		before, raw, err := s.read(ctx, d)
		switch {
		case err != nil:
			return nil, err
		case name != "" && slices.Contains(before.uses, name), before.NumUses == 0:
			return before, nil
		case before.NumUses == spent:
			return nil, ErrDenied
		}
		after := *before
		after.NumUses--
		if name != "" {
			after.uses = append(slices.Clone(before.uses), name)
			after.uses = after.uses[max(0, len(after.uses)-rememberUse):]
		}
		if after.NumUses == 0 {
			after.NumUses, after.Renewable = spent, false
			if end := s.now().Add(spentFor).UTC(); after.ExpireTime.IsZero() || after.ExpireTime.After(end) {
				after.ExpireTime = end
			}
		}
		ops, err := change(d, before, raw, &after)
		if err != nil {
			return nil, err
		}
		err = s.commit(ctx, []digest{d}, ops...)
		if err == nil {
			return &after, nil
		}
		if !errors.Is(err, physical.ErrConflict) {
			return nil, fmt.Errorf("count a token's use: %w", err)
		}
	}
	return nil, busy()
}

// requestName names a request for good; "" if it is never repeated.
func requestName(req Request) string {
	if req.Slot == "" {
		return ""
	}
	return req.Slot + "/" + req.ID
}

// change gives the ops that replace a token by another state of it, on condition that it still is as it was read.
func change(d digest, before *Token, raw []byte, after *Token) ([]physical.Op, error) {
	value, err := after.marshal()
	if err != nil {
		return nil, err
	}
	ops := []physical.Op{physical.RequireValue(tokenKey(d), raw), physical.Put(tokenKey(d), value)}
	if minuteOf(before.ExpireTime) == minuteOf(after.ExpireTime) {
		return ops, nil
	}
	if !before.ExpireTime.IsZero() {
		ops = append(ops, physical.Delete(expiryKey(before.ExpireTime, d)))
	}
	if !after.ExpireTime.IsZero() {
		ops = append(ops, physical.Put(expiryKey(after.ExpireTime, d), nil))
	}
	return ops, nil
}

// busy is the error of a write that others always came before.
func busy() error {
	return fmt.Errorf("%w: %d other writes came first", physical.ErrUnavailable, attempts)
}
