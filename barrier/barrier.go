package barrier

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locum-ha/locum/physical"
)

// The barrier's own entries. A View refuses them.
const (
	KeyKeyring    = "core/keyring"     // the keyring, sealed by the root key
	KeySealConfig = "core/seal-config" // plain: seal.Config
	KeyRootKey    = "core/root-key"    // plain to the barrier: the root key, wrapped by the seal
)

const (
	// defaultMaxUses is nine tenths of the 2^32 random nonces that one AES-GCM key may see.
	defaultMaxUses = 3_865_470_566
	// defaultBlock is small against defaultMaxUses, since every leadership throws one away, and large against
	// the writes in a second, since each costs a write.
	defaultBlock = 1 << 20
)

// Options of a Barrier. The zero value is right for production.
type Options struct {
	MaxUses  uint64           // entries that one key may seal; default and most 3 865 470 566
	Block    uint64           // uses reserved at a time; default 1 048 576
	Now      func() time.Time // of install times; default time.Now
	Observer Observer
}

// Observer is told what happens. Every field may be nil; all must return at once.
type Observer struct {
	Operation func(op string, took time.Duration, err error) // op is "get", "list" or "commit": through a View
	Rotated   func(term uint32, automatic bool)              // this node made a new key
	Reloaded  func(err error)                                // this node read the keyring again
}

// Barrier is the encryption over a store. It may be used concurrently.
type Barrier struct {
	store physical.Backend
	opts  Options

	state atomic.Pointer[keys] // nil while sealed

	// turn is held by whoever reads or writes the keyring in the store: a mutex whose wait ends with its context.
	// Only its holder may set state to anything but nil.
	turn chan struct{}

	// loads numbers the loads of the keyring as they begin; loaded is the last one that succeeded.
	loads, loaded atomic.Uint64

	// material guards the bytes of root key and keys against being wiped while they are read. It is never held
	// over I/O, so that Seal does not wait for a store.
	material sync.RWMutex
}

// New makes a sealed barrier over a store.
func New(store physical.Backend, opts Options) *Barrier {
	if opts.MaxUses == 0 || opts.MaxUses > defaultMaxUses {
		opts.MaxUses = defaultMaxUses
	}
	if opts.Block == 0 {
		opts.Block = min(defaultBlock, opts.MaxUses)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Barrier{store: store, opts: opts, turn: make(chan struct{}, 1)}
}

// Initialize gives the store its first keyring, sealed by the root key. The extra ops are part of the same
// commit: those on the plain keys ([KeySealConfig], [KeyRootKey]) are stored as they are, all others are sealed.
// It returns [ErrInitialized] where there is a keyring, and physical.ErrFenced where there is a fence: nothing was
// written. The barrier stays sealed.
func (b *Barrier) Initialize(ctx context.Context, rootKey []byte, extra ...physical.Op) error {
	rootAEAD, err := newAEAD(rootKey)
	if err != nil {
		return fmt.Errorf("initialize barrier: %w", err)
	}
	ring := (&storedKeyring{Format: keyringFormat}).rotated(b.opts.Now(), uint64(len(extra)))
	defer ring.wipe()
	plain, err := ring.marshal()
	if err != nil {
		return err
	}
	defer clear(plain)
	sealed := sealEntry(rootAEAD, rootTerm, KeyKeyring, plain)
	k, err := newKeys(nil, rootAEAD, ring, sealed, nil)
	if err != nil {
		return err
	}
	ops, err := b.sealOps(ctx, k, extra, true)
	if err != nil {
		return err
	}
	ops = append(ops, physical.RequireAbsent(KeyKeyring), physical.Put(KeyKeyring, sealed))
	if err := b.store.Commit(ctx, nil, ops...); err != nil {
		if errors.Is(err, physical.ErrConflict) {
			return fmt.Errorf("%w: %w", ErrInitialized, err)
		}
		return fmt.Errorf("initialize barrier: %w", err)
	}
	return nil
}

// Initialized reports whether the store has a keyring. On a standby it can be behind, as any Get.
func (b *Barrier) Initialized(ctx context.Context) (bool, error) {
	_, err := b.store.Get(ctx, KeyKeyring)
	if errors.Is(err, physical.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Unseal opens the keyring with the root key, of which it keeps a copy. On an unsealed barrier it checks the key and
// reads the keyring again. [ErrNotInitialized], [ErrWrongKey], [ErrNewerFormat].
func (b *Barrier) Unseal(ctx context.Context, rootKey []byte) error {
	rootAEAD, err := newAEAD(rootKey)
	if err != nil {
		return fmt.Errorf("%w: it has %d bytes", ErrWrongKey, len(rootKey))
	}
	if err := b.lock(ctx); err != nil {
		return err
	}
	defer b.unlock()
	root := bytes.Clone(rootKey)
	if err := b.load(ctx, b.state.Load(), root, rootAEAD); err != nil {
		clear(root)
		return err
	}
	return nil
}

// Seal forgets all keys. Whatever is under way with the store ends as it would have; nothing begins any more.
func (b *Barrier) Seal() {
	b.material.Lock()
	defer b.material.Unlock()
	if k := b.state.Swap(nil); k != nil {
		clear(k.root)
		k.ring.wipe()
	}
}

// Sealed reports whether the barrier has no keys. It answers from memory (P10).
func (b *Barrier) Sealed() bool { return b.state.Load() == nil }

// ReloadKeyring reads the keyring again: at activation, and after the store's contents were replaced by a
// snapshot's, before anything is written. [ErrWrongKey] when the store holds another cluster's entries by now.
func (b *Barrier) ReloadKeyring(ctx context.Context) error {
	if err := b.lock(ctx); err != nil {
		return err
	}
	defer b.unlock()
	return b.reload(ctx)
}

// CheckKeyring reports whether this cluster's root key opens a keyring as it lies in a store, that of a snapshot for instance:
// nil, [ErrWrongKey], [ErrSealed], or what is wrong with it.
func (b *Barrier) CheckKeyring(stored []byte) error {
	b.material.RLock()
	defer b.material.RUnlock()
	now := b.state.Load()
	if now == nil {
		return ErrSealed
	}
	k, err := openKeyring(bytes.Clone(stored), now.root, now.rootAEAD, nil)
	if err != nil {
		return err
	}
	k.ring.wipe()
	return nil
}

// KeyStatus is what is known of the key that seals.
type KeyStatus struct {
	Term        uint32
	InstallTime time.Time
	Encryptions uint64 // an estimate that is never too low
}

// KeyStatus describes the key that seals now. It answers from memory.
func (b *Barrier) KeyStatus() (KeyStatus, error) {
	k := b.state.Load()
	if k == nil {
		return KeyStatus{}, ErrSealed
	}
	return KeyStatus{Term: k.term, InstallTime: k.ring.last().InstallTime, Encryptions: min(k.used.Load(), k.reserved)}, nil
}

// DeriveKey gives a key of 32 bytes for a purpose other than sealing entries, the same on every node: see [Derive].
func (b *Barrier) DeriveKey(purpose string) ([]byte, error) {
	b.material.RLock()
	defer b.material.RUnlock()
	k := b.state.Load()
	if k == nil {
		return nil, ErrSealed
	}
	return Derive(k.root, purpose)
}

// Derive gives a key of 32 bytes from a root key: HKDF-SHA256 (RFC 5869) without salt, with "locum/" and the purpose
// as info. Whoever knows the derived key learns nothing of the root key or of other purposes' keys.
func Derive(rootKey []byte, purpose string) ([]byte, error) {
	if len(rootKey) != KeySize {
		return nil, fmt.Errorf("%w: it has %d bytes", ErrWrongKey, len(rootKey))
	}
	return hkdf.Key(sha256.New, rootKey, nil, "locum/"+purpose, KeySize)
}

// GetPlain reads one of the two entries that are not sealed by the barrier. physical.ErrNotFound, [ErrReserved].
func (b *Barrier) GetPlain(ctx context.Context, key string) ([]byte, error) {
	if !isPlain(key) {
		return nil, fmt.Errorf("%q: %w", key, ErrReserved)
	}
	e, err := b.store.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	return e.Value, nil
}

// CommitPlain is a View's Commit that may also write the two entries which the barrier does not seal: the
// seal's configuration and the wrapped root key belong in one commit. While sealed it takes only those two.
func (b *Barrier) CommitPlain(ctx context.Context, fence *physical.Fence, ops ...physical.Op) error {
	return b.commit(ctx, fence, ops, true)
}

func isPlain(key string) bool { return key == KeySealConfig || key == KeyRootKey }

func isReserved(key string) bool { return key == KeyKeyring || isPlain(key) }

func (b *Barrier) lock(ctx context.Context) error {
	select {
	case b.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (b *Barrier) unlock() { <-b.turn }
