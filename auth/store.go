package auth

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"time"

	"github.com/locum-ha/locum/internal/slots"
	"github.com/locum-ha/locum/physical"
)

const (
	// Purpose is what the key of New and NewRootToken is derived for.
	Purpose = "auth/token"

	keySize    = 32
	maxKnown   = 16384 // tokens kept in memory
	maxUnsure  = 1024  // tokens that are not kept in memory, since a write's outcome is unknown
	maxParents = 32    // generations above a token
	stripes    = 64
	attempts   = 8 // of a write that meets another's

	defaultTTL = 768 * time.Hour // Vault's: 32 days
	defaultMax = 768 * time.Hour
)

// Where things lie in the store. All names of tokens and accessors are digests.
const (
	tokenPrefix    = "core/token/"          // <digest>: the token
	accessorPrefix = "core/token-accessor/" // <digest of the accessor>: which token
	childPrefix    = "core/token-child/"    // <digest>/<digest of a child>: nothing
	expiryPrefix   = "core/token-expiry/"   // <minute, hexadecimal>/<digest>: nothing
	revokedPrefix  = "core/token-revoked/"  // <digest>: nothing; its children are to be removed
	policyPrefix   = "core/policy/"         // <name, escaped>: the policy
)

// Entries is the store in plain: package barrier's View.
type Entries interface {
	Get(ctx context.Context, key string) (*physical.Entry, error)
	List(ctx context.Context, prefix, after string, limit int) ([]string, error)
	Commit(ctx context.Context, ops ...physical.Op) error
}

// Request says which request a write belongs to, so that it can be repeated (P6).
type Request = slots.Request

// Config is what a Store can be given. The zero Config works.
type Config struct {
	Logger     *slog.Logger     // gets what went wrong in Run; default: nowhere
	Now        func() time.Time // wall clock; default time.Now
	DefaultTTL time.Duration    // of tokens made without one; default 768h
	MaxTTL     time.Duration    // of tokens that are not periodic; default 768h
}

// Store knows tokens and policies, for one leadership. It may be used concurrently.
type Store struct {
	entries Entries
	macs    *macs
	slots   *slots.Keeper
	cfg     Config
	now     func() time.Time
	wake    chan struct{} // there is something to remove

	seed  maphash.Seed
	locks [stripes]sync.RWMutex // of a token's digest: held to change it; shared to make children of it

	mu     sync.RWMutex
	known  map[digest]*Token
	unsure map[digest]struct{}
	writes uint64 // of tokens: what was read before the last one is not kept

	policies policyCache
}

// New makes the store of a leadership. The key, of 32 bytes, is derived from the root key for [Purpose].
func New(entries Entries, key []byte, cfg Config) (*Store, error) {
	m, err := newMACs(key)
	if err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.DefaultTTL <= 0 {
		cfg.DefaultTTL = defaultTTL
	}
	if cfg.MaxTTL <= 0 {
		cfg.MaxTTL = max(defaultMax, cfg.DefaultTTL)
	}
	s := &Store{
		entries: entries, macs: m, slots: slots.NewKeeper(entries), cfg: cfg, now: cfg.Now, wake: make(chan struct{}, 1),
		seed: maphash.MakeSeed(), known: map[digest]*Token{}, unsure: map[digest]struct{}{},
	}
	s.policies.acls = map[string]*acl{}
	return s, nil
}

// NewRootToken makes a token that may do everything, and never runs out, with the ops that store it: through the
// barrier, never in plain.
func NewRootToken(key []byte, now time.Time) (Secret, []physical.Op, error) {
	m, err := newMACs(key)
	if err != nil {
		return "", nil, err
	}
	secret := newSecret()
	t := &Token{
		Accessor: randomText(accessorLen), DisplayName: "root", Policies: []string{PolicyRoot}, Path: "auth/token/root",
		CreationTime: now.UTC(),
	}
	ops, err := m.store(m.sum(secret), t)
	if err != nil {
		return "", nil, fmt.Errorf("root token: %w", err)
	}
	return secret, ops, nil
}

// store gives the ops that put a new token and what leads to it.
func (m *macs) store(d digest, t *Token) ([]physical.Op, error) {
	value, err := t.marshal()
	if err != nil {
		return nil, err
	}
	ops := []physical.Op{
		physical.Put(tokenKey(d), value),
		physical.Put(accessorPrefix+m.accessor(t.Accessor).String(), marshalAccessor(d)),
	}
	if !t.ExpireTime.IsZero() {
		ops = append(ops, physical.Put(expiryKey(t.ExpireTime, d), nil))
	}
	if t.parent != nil {
		ops = append(ops, physical.Put(childKey(*t.parent, d), nil))
	}
	return ops, nil
}

func tokenKey(d digest) string                { return tokenPrefix + d.String() }
func childKey(parent, d digest) string        { return childPrefix + parent.String() + "/" + d.String() }
func expiryKey(at time.Time, d digest) string { return expiryPrefix + minuteOf(at) + "/" + d.String() }
func revokedKey(d digest) string              { return revokedPrefix + d.String() }

// Verify returns the token of who sent the secret, or [ErrDenied]. Any other error is the store's and says nothing
// about the secret. It counts no use.
func (s *Store) Verify(ctx context.Context, secret Secret) (*Token, error) {
	t, _, err := s.verify(ctx, secret)
	if err != nil {
		return nil, err
	}
	if t.NumUses == spent {
		return nil, ErrDenied
	}
	return t, nil
}

// verify is Verify for tokens whose last use was made, too.
func (s *Store) verify(ctx context.Context, secret Secret) (*Token, digest, error) {
	if secret == "" || len(secret) > maxLen {
		return nil, digest{}, ErrDenied
	}
	d := s.macs.sum(secret)
	t, err := s.live(ctx, d)
	return t, d, err
}

// live returns a token that has not run out, nor any of those above it: ErrDenied else. So a token that is revoked or
// runs out takes its children with it in that instant, however long it takes to remove them.
func (s *Store) live(ctx context.Context, d digest) (*Token, error) {
	now := s.now()
	t, err := s.get(ctx, d)
	if err != nil {
		return nil, err
	}
	above := t
	for range maxParents + 1 {
		if above.Expired(now) || above.NumUses == spent && above != t {
			return nil, ErrDenied
		}
		if above.parent == nil {
			return t, nil
		}
		if above, err = s.get(ctx, *above.parent); err != nil {
			return nil, err
		}
	}
	return nil, ErrDenied
}

// get returns a token from memory or the store; ErrDenied if it is not there.
func (s *Store) get(ctx context.Context, d digest) (*Token, error) {
	s.mu.RLock()
	t, writes := s.known[d], s.writes
	s.mu.RUnlock()
	if t != nil {
		return t, nil
	}
	t, _, err := s.read(ctx, d)
	if err != nil {
		return nil, err
	}
	s.keep(d, t, writes)
	return t, nil
}

// read returns a token from the store, as it is and as bytes.
func (s *Store) read(ctx context.Context, d digest) (*Token, []byte, error) {
	e, err := s.entries.Get(ctx, tokenKey(d))
	if errors.Is(err, physical.ErrNotFound) {
		return nil, nil, ErrDenied
	}
	if err != nil {
		return nil, nil, fmt.Errorf("token: %w", err)
	}
	t, err := parseToken(e.Value)
	return t, e.Value, err
}

// keep remembers a token, in the place of any other if there are too many; not if any token was written since it was read.
func (s *Store) keep(d digest, t *Token, writes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, unsure := s.unsure[d]; unsure || s.writes != writes || s.unsure == nil {
		return
	}
	if len(s.known) >= maxKnown {
		for other := range s.known {
			delete(s.known, other)
			break
		}
	}
	s.known[d] = t
}

// commit writes tokens, and forgets what is known of them. After an unknown outcome the write can still land at any
// time: then these tokens are not kept in memory any more.
func (s *Store) commit(ctx context.Context, written []digest, ops ...physical.Op) error {
	err := s.entries.Commit(ctx, ops...)
	if err != nil && !errors.Is(err, physical.ErrUnknown) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	for _, d := range written {
		delete(s.known, d)
		if err != nil && s.unsure != nil {
			s.unsure[d] = struct{}{}
		}
	}
	if len(s.unsure) > maxUnsure {
		s.unsure = nil // nothing is kept from here on
		clear(s.known)
	}
	return err
}

// Reset forgets what is kept in memory.
func (s *Store) Reset() {
	s.mu.Lock()
	clear(s.known)
	s.writes++
	s.mu.Unlock()
	s.policies.reset()
}

// lock is a token's.
func (s *Store) lock(d digest) *sync.RWMutex {
	return &s.locks[maphash.Comparable(s.seed, d)%stripes]
}
