package barrier

import (
	"bytes"
	"context"
	"crypto/cipher"
	"errors"
	"fmt"
	"time"

	"github.com/locum-ha/locum/physical"
)

// View is the store in plain. It may be used concurrently, and outlives sealing: sealed, it returns [ErrSealed].
type View struct {
	b     *Barrier
	fence *physical.Fence
	caps  physical.Caps
}

// View gives the store in plain; its commits carry the fence (P1), or none while the store has none yet.
func (b *Barrier) View(fence *physical.Fence) *View {
	caps := b.store.Caps()
	if caps.MaxValue > 0 {
		caps.MaxValue = max(caps.MaxValue-Overhead, 1)
	}
	return &View{b: b, fence: fence, caps: caps}
}

// Caps is what the store can do, its limits being those of values in plain. A commit's bytes count the
// encryption of each value, [Overhead], besides.
func (v *View) Caps() physical.Caps { return v.caps }

// MaxValue is how many bytes a value may have; 0 for any number.
func (v *View) MaxValue() int { return v.caps.MaxValue }

// Get returns the entry at key: physical.ErrNotFound, [ErrSealed], [ErrTampered], [ErrNewerFormat], [ErrReserved], or
// the store's error. The caller owns the value.
func (v *View) Get(ctx context.Context, key string) (_ *physical.Entry, err error) {
	if observe := v.b.opts.Observer.Operation; observe != nil {
		defer func(begun time.Time) { observe("get", time.Since(begun), err) }(time.Now())
	}
	if isReserved(key) {
		return nil, fmt.Errorf("%q: %w", key, ErrReserved)
	}
	return v.b.get(ctx, key)
}

// List is the store's: names are visible in it by design (P8).
func (v *View) List(ctx context.Context, prefix, after string, limit int) (_ []string, err error) {
	if observe := v.b.opts.Observer.Operation; observe != nil {
		defer func(begun time.Time) { observe("list", time.Since(begun), err) }(time.Now())
	}
	if v.b.Sealed() {
		return nil, ErrSealed
	}
	return v.b.store.List(ctx, prefix, after, limit)
}

// Commit seals the values and commits all ops or none, under the view's fence. Errors are those of
// physical.Backend's Commit and [ErrSealed], [ErrReserved]; limits are in terms of the values given.
func (v *View) Commit(ctx context.Context, ops ...physical.Op) error {
	return v.b.commit(ctx, v.fence, ops, false)
}

func (b *Barrier) get(ctx context.Context, key string) (*physical.Entry, error) {
	if b.Sealed() {
		return nil, ErrSealed
	}
	e, err := b.store.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	term, err := entryTerm(key, e.Value)
	if err != nil {
		return nil, err
	}
	aead, err := b.cipher(ctx, key, term)
	if err != nil {
		return nil, err
	}
	value, err := openEntry(aead, key, e.Value)
	if err != nil {
		return b.getAgain(ctx, key, aead, err)
	}
	e.Value = value
	return e, nil
}

// cipher returns the cipher of a key term, reading the keyring again if it is not known.
func (b *Barrier) cipher(ctx context.Context, key string, term uint32) (cipher.AEAD, error) {
	k := b.state.Load()
	if k == nil {
		return nil, ErrSealed
	}
	if aead := k.ciphers[term]; aead != nil {
		return aead, nil
	}
	if term == rootTerm {
		return nil, fmt.Errorf("%q: %w: it has the keyring's key term", key, ErrTampered)
	}
	if err := b.refresh(ctx); err != nil {
		return nil, fmt.Errorf("key term %d of %q: %w", term, key, err)
	}
	if k = b.state.Load(); k == nil {
		return nil, ErrSealed
	}
	if aead := k.ciphers[term]; aead != nil {
		return aead, nil
	}
	return nil, fmt.Errorf("%q: %w: the keyring has no key term %d", key, ErrTampered, term)
}

// getAgain tries once more with the keyring as it is stored now. An entry can fail to open because the store's
// contents were replaced by a snapshot's, after which the same key term was given to another key.
func (b *Barrier) getAgain(ctx context.Context, key string, failed cipher.AEAD, cause error) (*physical.Entry, error) {
	if err := b.refresh(ctx); err != nil {
		return nil, cause
	}
	e, err := b.store.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	term, err := entryTerm(key, e.Value)
	if err != nil {
		return nil, err
	}
	k := b.state.Load()
	if k == nil {
		return nil, ErrSealed
	}
	aead := k.ciphers[term]
	if aead == nil || aead == failed {
		return nil, cause
	}
	value, err := openEntry(aead, key, e.Value)
	if err != nil {
		return nil, err
	}
	e.Value = value
	return e, nil
}

func (b *Barrier) commit(ctx context.Context, fence *physical.Fence, ops []physical.Op, plain bool) (err error) {
	if observe := b.opts.Observer.Operation; observe != nil {
		defer func(begun time.Time) { observe("commit", time.Since(begun), err) }(time.Now())
	}
	sealed, err := b.prepare(ctx, fence, ops, plain)
	if err != nil {
		return err
	}
	return b.store.Commit(ctx, fence, sealed...)
}

// prepare checks ops and seals their values.
func (b *Barrier) prepare(ctx context.Context, fence *physical.Fence, ops []physical.Op, plain bool) ([]physical.Op, error) {
	n, open := 0, 0
	for _, op := range ops {
		switch {
		case plain && isPlain(op.Key):
			open++
		case isReserved(op.Key):
			return nil, fmt.Errorf("%q: %w", op.Key, ErrReserved)
		case op.Kind == physical.OpPut:
			n++
		}
	}
	if err := checkSizes(b.store.Caps(), ops, n); err != nil {
		return nil, err
	}
	if plain && open == len(ops) {
		return ops, nil
	}
	k, err := b.take(ctx, fence, n)
	if err != nil {
		return nil, err
	}
	return b.sealOps(ctx, k, ops, plain)
}

// checkSizes refuses what will exceed the store's limits once it is sealed, in the user's own terms. Whatever else is
// wrong with the ops, the store says.
func checkSizes(caps physical.Caps, ops []physical.Op, puts int) error {
	total := 0
	for _, op := range ops {
		total += len(op.Key) + len(op.Value)
		if caps.MaxValue > 0 && len(op.Value) > caps.MaxValue-Overhead {
			return &physical.TooLargeError{What: "value", Key: op.Key, Size: len(op.Value), Limit: caps.MaxValue - Overhead}
		}
	}
	if limit := caps.MaxCommit - puts*Overhead; caps.MaxCommit > 0 && total > limit {
		return &physical.TooLargeError{What: "bytes in a commit", Size: total, Limit: max(limit, 0)}
	}
	return nil
}

// sealOps seals the values of ops with k's last key. A condition on a value becomes one on the ciphertext that
// holds it now, since sealing it again would give another.
func (b *Barrier) sealOps(ctx context.Context, k *keys, ops []physical.Op, plain bool) ([]physical.Op, error) {
	out := make([]physical.Op, len(ops), len(ops)+2)
	for i, op := range ops {
		switch {
		case plain && isPlain(op.Key):
		case op.Kind == physical.OpPut:
			op.Value = sealEntry(k.active, k.term, op.Key, op.Value)
		case op.Kind == physical.OpRequireValue:
			stored, err := b.sealedAs(ctx, op)
			if err != nil {
				return nil, err
			}
			op.Value = stored
		}
		out[i] = op
	}
	return out, nil
}

// sealedAs returns the ciphertext at op's key if it holds op's value, else physical.ErrConflict.
func (b *Barrier) sealedAs(ctx context.Context, op physical.Op) ([]byte, error) {
	e, err := b.store.Get(ctx, op.Key)
	if errors.Is(err, physical.ErrNotFound) {
		return nil, fmt.Errorf("%q: %w", op.Key, physical.ErrConflict)
	}
	if err != nil {
		return nil, err
	}
	term, err := entryTerm(op.Key, e.Value)
	if err != nil {
		return nil, err
	}
	aead, err := b.cipher(ctx, op.Key, term)
	if err != nil {
		return nil, err
	}
	value, err := openEntry(aead, op.Key, bytes.Clone(e.Value))
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(value, op.Value) {
		return nil, fmt.Errorf("%q: %w", op.Key, physical.ErrConflict)
	}
	return e.Value, nil
}
