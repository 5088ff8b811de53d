package server

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/locum-ha/locum/api"
	"github.com/locum-ha/locum/auth"
	"github.com/locum-ha/locum/barrier"
	"github.com/locum-ha/locum/seal"
)

// attemptLimit is how long the keepers of shares have for one attempt: shares do not lie in memory for ever.
const attemptLimit = time.Hour

// rootAttempt makes a root token by a quorum of key shares. It is kept in memory by the active node alone: a
// failover or step-down cancels it, and the shares given so far are forgotten.
type rootAttempt struct {
	mu        sync.Mutex
	nonce     string // "" while none is under way
	otp       string // what the token is hidden with on its way to who began
	began     time.Time
	collector *seal.Collector
}

// clear ends an attempt. The lock is held.
func (a *rootAttempt) clear() {
	if a.collector != nil {
		a.collector.Reset()
	}
	a.nonce, a.otp, a.collector = "", "", nil
}

// current forgets an attempt that took too long. The lock is held.
func (a *rootAttempt) current() {
	if a.nonce != "" && time.Since(a.began) > attemptLimit {
		a.clear()
	}
}

func (a *rootAttempt) status(required int) api.RootGeneration {
	g := api.RootGeneration{Nonce: a.nonce, Started: a.nonce != "", Required: required, OTPLength: auth.SecretLen}
	if a.collector != nil {
		g.Progress = a.collector.Progress().Given
	}
	return g
}

// shares reads how many there are, and refuses where the root key is not kept by shares.
func (l *leading) shares(ctx context.Context) (seal.Config, error) {
	data, err := l.node.barrier.GetPlain(ctx, barrier.KeySealConfig)
	if err != nil {
		return seal.Config{}, err
	}
	c, err := seal.ParseConfig(data)
	if err == nil && c.Type != seal.TypeShamir {
		err = api.Errorf(http.StatusBadRequest, "the root key is kept by the %s seal and not by key shares: there are no shares to make a root token with", c.Type)
	}
	return c, err
}

// RootGeneration tells how far the attempt to make a root token has come.
func (s *service) RootGeneration(ctx context.Context) (api.RootGeneration, error) {
	c, err := s.shares(ctx)
	if err != nil {
		return api.RootGeneration{}, err
	}
	a := &s.root
	a.mu.Lock()
	defer a.mu.Unlock()
	a.current()
	return a.status(c.Threshold), nil
}

// BeginRootGeneration begins an attempt.
func (s *service) BeginRootGeneration(ctx context.Context, otp string) (api.RootGeneration, error) {
	c, err := s.shares(ctx)
	if err != nil {
		return api.RootGeneration{}, err
	}
	a := &s.root
	a.mu.Lock()
	defer a.mu.Unlock()
	a.current()
	switch {
	case a.nonce != "":
		return api.RootGeneration{}, api.Errorf(http.StatusBadRequest, "root generation already in progress: give your share to it, or cancel it first")
	case otp != "" && len(otp) != auth.SecretLen:
		return api.RootGeneration{}, api.Errorf(http.StatusBadRequest, "OTP string is wrong length: it has %d characters, %d are needed; leave it out to get one", len(otp), auth.SecretLen)
	}
	if a.collector, err = seal.NewCollector(c.Shares, c.Threshold); err != nil {
		return api.RootGeneration{}, err
	}
	made := otp == ""
	if made {
		otp = rand.Text() + rand.Text()
		otp = otp[:auth.SecretLen]
	}
	a.nonce, a.otp, a.began = newUUID(), otp, time.Now()
	s.node.log.Warn("making a root token by key shares began", "nonce", a.nonce)
	g := a.status(c.Threshold)
	if made {
		g.OTP = otp
	}
	return g, nil
}

// CancelRootGeneration ends the attempt, if there is one.
func (s *service) CancelRootGeneration(context.Context) error {
	a := &s.root
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.nonce != "" {
		s.node.log.Warn("making a root token by key shares was cancelled", "nonce", a.nonce)
	}
	a.clear()
	return nil
}

// RootShare takes a share. With the last one that is needed the token is made; shares that do not open the root key
// end the attempt.
func (s *service) RootShare(ctx context.Context, nonce string, share []byte) (api.RootGeneration, error) {
	var none api.RootGeneration
	c, err := s.shares(ctx)
	if err != nil {
		return none, err
	}
	a := &s.root
	a.mu.Lock()
	defer a.mu.Unlock()
	a.current()
	switch {
	case a.nonce == "":
		return none, api.Errorf(http.StatusBadRequest, "no root generation in progress: begin one; a change of the active node cancels it")
	case subtle.ConstantTimeCompare([]byte(nonce), []byte(a.nonce)) != 1:
		return none, api.Errorf(http.StatusBadRequest, "the nonce is not that of the attempt under way: ask who began it")
	}
	key, complete, err := a.collector.Add(seal.Share(share))
	if err != nil {
		return none, api.Errorf(http.StatusBadRequest, "%v", err)
	}
	g := a.status(c.Threshold)
	if !complete {
		return g, nil
	}
	defer key.Wipe()
	otp := a.otp
	a.clear()
	secret, err := s.makeRoot(ctx, seal.NewShamir(key))
	if err != nil {
		return none, err
	}
	s.node.log.Warn("a root token was made by key shares", "nonce", g.Nonce)
	g.Progress, g.Complete = g.Required, true
	g.EncodedToken = hide(secret, otp)
	return g, nil
}

// makeRoot stores a new root token, if the seal opens the root key.
func (s *service) makeRoot(ctx context.Context, by seal.Seal) (auth.Secret, error) {
	b := s.node.barrier
	wrapped, err := b.GetPlain(ctx, barrier.KeyRootKey)
	if err != nil {
		return "", err
	}
	rootKey, err := by.Unwrap(ctx, wrapped)
	if errors.Is(err, seal.ErrWrongKey) {
		return "", api.Errorf(http.StatusBadRequest, "the shares do not open the root key: at least one of them is not of this cluster; begin again")
	}
	if err != nil {
		return "", fmt.Errorf("open the root key: %w", err)
	}
	defer clear(rootKey)
	secret, ops, err := newRootToken(rootKey)
	if err != nil {
		return "", err
	}
	return secret, b.View(&s.term.Fence).Commit(ctx, ops...)
}

// hide gives the token XOR the one-time password, as Vault's clients decode it.
func hide(secret auth.Secret, otp string) string {
	text := secret.Reveal()
	hidden := make([]byte, len(text))
	subtle.XORBytes(hidden, []byte(text), []byte(otp))
	return base64.RawStdEncoding.EncodeToString(hidden)
}

// newUUID is a random one (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails; it ends the program instead
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
