package barrier

import (
	"context"
	"crypto/cipher"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/locum-ha/locum/physical"
)

// rotateAttempts bounds how often a rotation begins anew because somebody else wrote the keyring.
const rotateAttempts = 3

// load reads the keyring and puts it in the place of before. The caller holds the turn.
func (b *Barrier) load(ctx context.Context, before *keys, root []byte, rootAEAD cipher.AEAD) error {
	n := b.loads.Add(1)
	e, err := b.store.Get(ctx, KeyKeyring)
	if errors.Is(err, physical.ErrNotFound) {
		return ErrNotInitialized
	}
	if err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	b.material.Lock()
	defer b.material.Unlock()
	k, err := openKeyring(e.Value, root, rootAEAD, before)
	if err != nil {
		return err
	}
	if !b.state.CompareAndSwap(before, k) {
		k.ring.wipe()
		return ErrSealed // meanwhile
	}
	if before != nil {
		before.ring.wipe()
		if &before.root[0] != &root[0] {
			clear(before.root)
		}
	}
	b.loaded.Store(n)
	return nil
}

func openKeyring(raw, root []byte, rootAEAD cipher.AEAD, before *keys) (*keys, error) {
	term, err := entryTerm(KeyKeyring, raw)
	if err != nil {
		return nil, err
	}
	if term != rootTerm {
		return nil, fmt.Errorf("keyring: %w: key term %d", ErrTampered, term)
	}
	plain, err := openEntry(rootAEAD, KeyKeyring, append([]byte(nil), raw...))
	if err != nil {
		return nil, ErrWrongKey
	}
	defer clear(plain)
	ring, err := parseKeyring(plain)
	if err != nil {
		return nil, err
	}
	return newKeys(root, rootAEAD, ring, raw, before)
}

// reload is load with the keys that the barrier has. The caller holds the turn.
func (b *Barrier) reload(ctx context.Context) error {
	k := b.state.Load()
	if k == nil {
		return ErrSealed
	}
	err := b.load(ctx, k, k.root, k.rootAEAD)
	if b.opts.Observer.Reloaded != nil {
		b.opts.Observer.Reloaded(err)
	}
	return err
}

// refresh reloads the keyring unless somebody has since this call began: of all who wait, one reads.
func (b *Barrier) refresh(ctx context.Context) error {
	seen := b.loads.Load()
	if err := b.lock(ctx); err != nil {
		return err
	}
	defer b.unlock()
	if b.loaded.Load() > seen {
		return nil // that load began after our entry was read
	}
	return b.reload(ctx)
}

// Rotate makes a new key, which seals from now on. The extra ops are part of the same commit, as in a View's. Errors
// are Commit's; after physical.ErrUnknown there may be a new key, and repeating makes at worst one more.
func (b *Barrier) Rotate(ctx context.Context, fence *physical.Fence, extra ...physical.Op) error {
	var err error
	for range rotateAttempts {
		var again bool
		if again, err = b.rotate(ctx, fence, extra); !again {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("rotate: %w", err)
	}
	return nil
}

func (b *Barrier) rotate(ctx context.Context, fence *physical.Fence, extra []physical.Op) (again bool, err error) {
	// The extra ops are sealed by the key that was, and counted before the turn is taken, since counting can
	// need the turn itself.
	ops, err := b.prepare(ctx, fence, extra, false)
	if err != nil {
		return false, err
	}
	if err := b.lock(ctx); err != nil {
		return false, err
	}
	defer b.unlock()
	k := b.state.Load()
	if k == nil {
		return false, ErrSealed
	}
	err = b.write(ctx, fence, k, k.ring.rotated(b.opts.Now(), b.opts.Block), ops)
	switch {
	case errors.Is(err, physical.ErrConflict):
		if err := b.reload(ctx); err != nil {
			return false, err
		}
		after := b.state.Load()
		return after != nil && string(after.raw) != string(k.raw), err // unchanged: the conflict was an extra op's
	case err != nil:
		return false, err
	}
	b.rotated(k.term+1, false)
	return false, nil
}

// take counts n uses and returns the keys to seal with, reserving a block or rotating first where it must.
func (b *Barrier) take(ctx context.Context, fence *physical.Fence, n int) (*keys, error) {
	for {
		k := b.state.Load()
		if k == nil {
			return nil, ErrSealed
		}
		if n == 0 || k.take(uint64(n)) {
			return k, nil
		}
		if err := b.reserve(ctx, fence, k, uint64(n)); err != nil {
			return nil, err
		}
	}
}

// reserve makes room for at least n more uses than k has, unless somebody did it meanwhile.
func (b *Barrier) reserve(ctx context.Context, fence *physical.Fence, k *keys, n uint64) error {
	if err := b.lock(ctx); err != nil {
		return fmt.Errorf("reserve key uses: %w: %v", physical.ErrUnavailable, err) // the caller's entry was not sent
	}
	defer b.unlock()
	if b.state.Load() != k {
		return nil
	}
	n = max(n, b.opts.Block)
	ring, automatic := k.ring.clone(), k.reserved+n > b.opts.MaxUses
	if automatic {
		ring = k.ring.rotated(b.opts.Now(), n)
	} else {
		ring.last().Encryptions += n
	}
	err := b.write(ctx, fence, k, ring, nil)
	switch {
	case errors.Is(err, physical.ErrConflict):
		return b.reload(ctx) // another's keyring: begin anew with it
	case errors.Is(err, physical.ErrUnknown):
		// The keyring's outcome is unknown, but the caller's entry was certainly not sent.
		return fmt.Errorf("reserve key uses: %w: no answer to the keyring's write", physical.ErrUnavailable)
	case err != nil:
		return fmt.Errorf("reserve key uses: %w", err)
	}
	if automatic {
		b.rotated(k.term+1, true)
	}
	return nil
}

// write stores ring in the place of k's and makes it the one in use. The caller holds the turn.
func (b *Barrier) write(ctx context.Context, fence *physical.Fence, k *keys, ring *storedKeyring, extra []physical.Op) error {
	sealed, err := b.encode(k, ring)
	if err != nil {
		return err
	}
	ops := append([]physical.Op{physical.RequireValue(KeyKeyring, k.raw), physical.Put(KeyKeyring, sealed)}, extra...)
	if err := b.store.Commit(ctx, fence, ops...); err != nil {
		return err
	}
	b.material.Lock()
	defer b.material.Unlock()
	if b.state.Load() != k {
		return nil // sealed meanwhile; the keyring is stored all the same
	}
	next, err := newKeys(k.root, k.rootAEAD, ring, sealed, k)
	if err != nil {
		return err
	}
	if next.term == k.term {
		next.used = k.used // uses under way count on
	} else {
		next.used = new(atomic.Uint64) // the block was reserved for this node, with the key
	}
	b.state.Store(next)
	return nil
}

// encode seals a keyring made from k's, unless k was wiped.
func (b *Barrier) encode(k *keys, ring *storedKeyring) ([]byte, error) {
	b.material.RLock()
	defer b.material.RUnlock()
	if b.state.Load() != k {
		return nil, ErrSealed
	}
	plain, err := ring.marshal()
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return sealEntry(k.rootAEAD, rootTerm, KeyKeyring, plain), nil
}

func (b *Barrier) rotated(term uint32, automatic bool) {
	if b.opts.Observer.Rotated != nil {
		b.opts.Observer.Rotated(term, automatic)
	}
}
