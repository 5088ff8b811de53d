package auth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"sync"
	"time"

	"github.com/locum-ha/locum/physical"
)

const (
	// Purpose is what the key of New and NewRootToken is derived for.
	Purpose = "auth/token"

	keyPrefix = "core/token/"
	keySize   = 32
	maxKnown  = 4096 // tokens kept in memory
)

// Entries is the store in plain: package barrier's View.
type Entries interface {
	Get(ctx context.Context, key string) (*physical.Entry, error)
}

// digest is a token's HMAC.
type digest [sha256.Size]byte

// Store knows the tokens, for one leadership. It may be used concurrently.
type Store struct {
	entries Entries
	macs    *macs
	now     func() time.Time

	mu    sync.RWMutex
	known map[digest]*Token
}

// New makes the store of a leadership. The key, of 32 bytes, is derived from the root key for [Purpose].
func New(entries Entries, key []byte) (*Store, error) {
	m, err := newMACs(key)
	if err != nil {
		return nil, err
	}
	return &Store{entries: entries, macs: m, now: time.Now, known: map[digest]*Token{}}, nil
}

// NewRootToken makes a token that may do everything, and never runs out, with the op that stores it: through the
// barrier, never in plain.
func NewRootToken(key []byte, now time.Time) (Secret, physical.Op, error) {
	m, err := newMACs(key)
	if err != nil {
		return "", physical.Op{}, err
	}
	secret := newSecret()
	t := &Token{
		Accessor: randomText(24), DisplayName: "root", Policies: []string{PolicyRoot}, Path: "auth/token/root",
		CreationTime: now.UTC(),
	}
	value, err := t.marshal()
	if err != nil {
		return "", physical.Op{}, fmt.Errorf("root token: %w", err)
	}
	return secret, physical.Put(entryKey(m.sum(secret)), value), nil
}

// Verify returns the token of who sent the secret, or [ErrDenied]. Any other error is the store's and says nothing
// about the secret.
func (s *Store) Verify(ctx context.Context, secret Secret) (*Token, error) {
	if secret == "" || len(secret) > maxLen {
		return nil, ErrDenied
	}
	d := s.macs.sum(secret)
	s.mu.RLock()
	t := s.known[d]
	s.mu.RUnlock()
	if t == nil {
		e, err := s.entries.Get(ctx, entryKey(d))
		if errors.Is(err, physical.ErrNotFound) {
			return nil, ErrDenied
		}
		if err != nil {
			return nil, fmt.Errorf("token: %w", err)
		}
		if t, err = parseToken(e.Value); err != nil {
			return nil, err
		}
		s.keep(d, t)
	}
	if t.Expired(s.now()) {
		return nil, ErrDenied
	}
	return t, nil
}

// keep remembers a token, in the place of any other if there are too many.
func (s *Store) keep(d digest, t *Token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) >= maxKnown {
		for other := range s.known {
			delete(s.known, other)
			break
		}
	}
	s.known[d] = t
}

// Reset forgets what is kept in memory.
func (s *Store) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.known)
}

func entryKey(d digest) string { return keyPrefix + hex.EncodeToString(d[:]) }

// macs makes HMACs under one key without setting it up anew each time.
type macs struct{ pool sync.Pool }

func newMACs(key []byte) (*macs, error) {
	if len(key) != keySize {
		return nil, fmt.Errorf("auth: a key of %d bytes, not %d", len(key), keySize)
	}
	own := append([]byte(nil), key...)
	return &macs{pool: sync.Pool{New: func() any { return hmac.New(sha256.New, own) }}}, nil
}

func (m *macs) sum(secret Secret) (d digest) {
	h := m.pool.Get().(hash.Hash)
	h.Reset()
	h.Write([]byte(secret))
	h.Sum(d[:0])
	h.Reset()
	m.pool.Put(h)
	return d
}
