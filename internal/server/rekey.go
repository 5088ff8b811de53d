package server

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/locum-ha/locum/api"
	"github.com/locum-ha/locum/barrier"
	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/seal"
)

// rekeyAttempt replaces the key shares by new ones. It is kept in memory by the active node alone: a failover or step-down
// cancels it, and the shares in use stay in use.
type rekeyAttempt struct {
	mu        sync.Mutex
	nonce     string // "" while none is under way
	began     time.Time
	config    seal.Config     // of the new shares
	collector *seal.Collector // of the shares in use; nil once they were given
	next      *nextShares     // handed out, not yet proven
}

// nextShares wait to be given back.
type nextShares struct {
	nonce     string
	collector *seal.Collector
	wrapped   []byte // the root key, by the new shares' key
	replaces  []byte // the root key as it was wrapped when the shares in use were given
}

// clear ends an attempt. The lock is held.
func (a *rekeyAttempt) clear() {
	if a.collector != nil {
		a.collector.Reset()
	}
	if a.next != nil {
		a.next.collector.Reset()
	}
	a.nonce, a.config, a.collector, a.next = "", seal.Config{}, nil, nil
}

// hold locks the attempt, and forgets one that took too long.
func (a *rekeyAttempt) hold() (unlock func()) {
	a.mu.Lock()
	if a.nonce != "" && time.Since(a.began) > attemptLimit {
		a.clear()
	}
	return a.mu.Unlock
}

func (a *rekeyAttempt) status(required int) api.RekeyStatus {
	st := api.RekeyStatus{
		Nonce: a.nonce, Started: a.nonce != "", Threshold: a.config.Threshold, Shares: a.config.Shares,
		Required: required, VerificationRequired: true,
	}
	if a.collector != nil {
		st.Progress = a.collector.Progress().Given
	}
	if a.next != nil {
		st.Progress, st.VerificationNonce = required, a.next.nonce
	}
	return st
}

func (a *rekeyAttempt) verification() api.RekeyVerification {
	if a.next == nil {
		return api.RekeyVerification{}
	}
	return api.RekeyVerification{
		Nonce: a.next.nonce, Started: true, Threshold: a.config.Threshold, Shares: a.config.Shares,
		Progress: a.next.collector.Progress().Given,
	}
}

// RekeyStatus tells how far the attempt has come.
func (s *service) RekeyStatus(ctx context.Context) (api.RekeyStatus, error) {
	c, err := s.shares(ctx)
	if err != nil {
		return api.RekeyStatus{}, err
	}
	a := &s.rekey
	defer a.hold()()
	return a.status(c.Threshold), nil
}

// BeginRekey begins an attempt.
func (s *service) BeginRekey(ctx context.Context, shares, threshold int) (api.RekeyStatus, error) {
	c, err := s.shares(ctx)
	if err != nil {
		return api.RekeyStatus{}, err
	}
	a := &s.rekey
	defer a.hold()()
	if a.nonce != "" {
		return api.RekeyStatus{}, api.Errorf(http.StatusBadRequest, "rekey already in progress: give your share to it, or cancel it first")
	}
	next := seal.Config{Type: seal.TypeShamir, Shares: shares, Threshold: threshold}
	if _, err := seal.NewCollector(shares, threshold); err != nil {
		return api.RekeyStatus{}, api.Errorf(http.StatusBadRequest, "%v", err)
	}
	if a.collector, err = seal.NewCollector(c.Shares, c.Threshold); err != nil {
		return api.RekeyStatus{}, err
	}
	a.nonce, a.began, a.config = newUUID(), time.Now(), next
	s.node.log.Warn("replacing the key shares began", "nonce", a.nonce, "shares", shares, "threshold", threshold)
	return a.status(c.Threshold), nil
}

// CancelRekey ends the attempt, if there is one. The shares in use stay.
func (s *service) CancelRekey(context.Context) error {
	a := &s.rekey
	defer a.hold()()
	if a.nonce != "" {
		s.node.log.Warn("replacing the key shares was cancelled", "nonce", a.nonce)
	}
	a.clear()
	return nil
}

// RekeyShare takes a share in use. With the last one that is needed the new ones are made and handed out.
func (s *service) RekeyShare(ctx context.Context, nonce string, share []byte) (api.RekeyStatus, [][]byte, error) {
	var none api.RekeyStatus
	c, err := s.shares(ctx)
	if err != nil {
		return none, nil, err
	}
	a := &s.rekey
	defer a.hold()()
	switch {
	case a.nonce == "":
		return none, nil, api.Errorf(http.StatusBadRequest, "no rekey in progress: begin one; a change of the active node cancels it")
	case a.next != nil:
		return none, nil, api.Errorf(http.StatusBadRequest, "the new shares were handed out: give them back to verify that they arrived, or cancel and begin again")
	case subtle.ConstantTimeCompare([]byte(nonce), []byte(a.nonce)) != 1:
		return none, nil, api.Errorf(http.StatusBadRequest, "the nonce is not that of the attempt under way: ask who began it")
	}
	key, complete, err := a.collector.Add(seal.Share(share))
	if err != nil {
		return none, nil, api.Errorf(http.StatusBadRequest, "%v", err)
	}
	if !complete {
		return a.status(c.Threshold), nil, nil
	}
	defer key.Wipe()
	next, shares, err := s.nextShares(ctx, seal.NewShamir(key), a.config)
	if err != nil {
		return none, nil, err
	}
	a.collector, a.next = nil, next
	return a.status(c.Threshold), shares, nil
}

// nextShares wraps the root key anew, if the shares in use open it.
func (s *service) nextShares(ctx context.Context, by seal.Seal, config seal.Config) (*nextShares, [][]byte, error) {
	wrapped, err := s.node.barrier.GetPlain(ctx, barrier.KeyRootKey)
	if err != nil {
		return nil, nil, err
	}
	rootKey, err := by.Unwrap(ctx, wrapped)
	if errors.Is(err, seal.ErrWrongKey) {
		return nil, nil, api.Errorf(http.StatusBadRequest, "the shares do not open the root key: at least one of them is not of this cluster; give them again")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open the root key: %w", err)
	}
	defer clear(rootKey)
	key := seal.NewKey()
	defer key.Wipe()
	next := &nextShares{nonce: newUUID(), replaces: wrapped}
	if next.wrapped, err = seal.NewShamir(key).Wrap(ctx, rootKey); err != nil {
		return nil, nil, err
	}
	if next.collector, err = seal.NewCollector(config.Shares, config.Threshold); err != nil {
		return nil, nil, err
	}
	split, err := seal.Split(key[:], config.Shares, config.Threshold)
	if err != nil {
		return nil, nil, err
	}
	shares := make([][]byte, len(split))
	for i := range split {
		shares[i] = split[i]
	}
	return next, shares, nil
}

// RekeyVerification tells how many new shares were given back.
func (s *service) RekeyVerification(context.Context) (api.RekeyVerification, error) {
	a := &s.rekey
	defer a.hold()()
	return a.verification(), nil
}

// RestartRekeyVerification forgets the new shares that were given back; the attempt goes on under another nonce.
func (s *service) RestartRekeyVerification(context.Context) (api.RekeyVerification, error) {
	a := &s.rekey
	defer a.hold()()
	if a.next != nil {
		a.next.collector.Reset()
		a.next.nonce = newUUID()
	}
	return a.verification(), nil
}

// VerifyRekey takes a new share back. With the last one that is needed they take the place of those in use, in one commit.
func (s *service) VerifyRekey(ctx context.Context, nonce string, share []byte) (api.RekeyVerification, bool, error) {
	var none api.RekeyVerification
	a := &s.rekey
	defer a.hold()()
	switch {
	case a.next == nil:
		return none, false, api.Errorf(http.StatusBadRequest, "no rekey verification in progress: begin a rekey and give the shares in use; a change of the active node cancels it")
	case subtle.ConstantTimeCompare([]byte(nonce), []byte(a.next.nonce)) != 1:
		return none, false, api.Errorf(http.StatusBadRequest, "the nonce is not that of the verification under way: ask who began it")
	}
	key, complete, err := a.next.collector.Add(seal.Share(share))
	if err != nil {
		return none, false, api.Errorf(http.StatusBadRequest, "%v", err)
	}
	if !complete {
		return a.verification(), false, nil
	}
	defer key.Wipe()
	rootKey, err := seal.NewShamir(key).Unwrap(ctx, a.next.wrapped)
	if errors.Is(err, seal.ErrWrongKey) {
		return none, false, api.Errorf(http.StatusBadRequest, "these are not the new shares: give those that were handed out, from the first on")
	}
	if err != nil {
		return none, false, err
	}
	clear(rootKey)
	if err := s.replaceShares(ctx, a); err != nil {
		return none, false, err
	}
	done := a.verification()
	s.node.log.Warn("the key shares were replaced", "nonce", a.nonce, "shares", a.config.Shares, "threshold", a.config.Threshold)
	a.clear()
	return done, true, nil
}

// replaceShares puts the new shares in force. If its outcome is unknown either the old or the new ones are, and their
// keepers have both. On raft a node that was down meanwhile has the root key as it was wrapped before: it is unsealed with the
// old shares once more, catches up, and has the new ones from then on.
func (s *service) replaceShares(ctx context.Context, a *rekeyAttempt) error {
	config, err := a.config.Marshal()
	if err != nil {
		return err
	}
	err = s.node.barrier.CommitPlain(ctx, &s.term.Fence,
		physical.RequireValue(barrier.KeyRootKey, a.next.replaces),
		physical.Put(barrier.KeySealConfig, config), physical.Put(barrier.KeyRootKey, a.next.wrapped))
	if errors.Is(err, physical.ErrConflict) {
		a.clear()
		return api.Errorf(http.StatusBadRequest, "the root key was wrapped anew in the meantime: begin again, with the shares that are in use now")
	}
	if err != nil {
		return fmt.Errorf("replace the key shares: %w", err)
	}
	st, err := newSealing(config, a.next.wrapped)
	if err != nil {
		return err
	}
	s.node.sealing.Store(st)
	return nil
}
