package auth

import (
	"context"
	"errors"

	"github.com/locum-ha/locum/physical"
)

// Mint makes an orphan token on behalf of Locum itself, as for an application that it starts: no bearer asks for it, and its
// secret cannot be asked for again. The default policy comes with it.
func (s *Store) Mint(ctx context.Context, in Creation) (*Created, error) {
	in.NoParent = true
	self := &Token{Policies: []string{PolicyRoot}}
	for range attempts {
		t, warnings, err := s.plan(ctx, self, in)
		if err != nil {
			return nil, err
		}
		secret := newSecret()
		err = s.commitNew(ctx, secret, t, nil, warnings, Request{})
		if err == nil {
			return &Created{secret, t, warnings}, nil
		}
		if !errors.Is(err, physical.ErrConflict) {
			return nil, err
		}
	}
	return nil, busy()
}
