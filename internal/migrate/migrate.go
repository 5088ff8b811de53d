package migrate

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/locum-ha/locum/physical"
)

// Options say what is copied.
type Options struct {
	Source, Destination physical.Backend

	// Last are the keys that make a store a cluster's: they are written in the last commit.
	Last []string
	// Drop are the keys that belong to the source's own life, the advertisement of its active node say: they are not copied.
	Drop []string

	// Progress is told now and then; nil: nobody.
	Progress func(Progress)
}

// Progress is how far a migration has come.
type Progress struct {
	Verifying bool // copying before
	Entries   int  // so far, those of an earlier attempt included
	Bytes     int64
}

// Result is what a migration has done.
type Result struct {
	Entries int   `json:"entries"`
	Bytes   int64 `json:"bytes"`
	Resumed bool  `json:"resumed"`

	Lineage string `json:"lineage"`
	Term    uint64 `json:"term"` // the next leadership's is above it
}

var (
	// ErrNotEmpty: the destination holds entries that no interrupted migration from this source has left.
	ErrNotEmpty = errors.New("the destination is not empty")
	// ErrChanged: the source was written to by somebody else, a node that still runs say.
	ErrChanged = errors.New("the source was written to meanwhile")
	// ErrDiffers: an entry of the destination is not the source's.
	ErrDiffers = errors.New("source and destination differ")
	// ErrEmpty: there is no cluster in the source.
	ErrEmpty = errors.New("the source holds no cluster")
)

// keyMarker holds the position of a migration that is under way, in the destination.
const keyMarker = "core/migration"

const markerFormat = 1

type marker struct {
	Format  int    `json:"format"`
	Source  string `json:"source"` // its fence, as text
	After   string `json:"after"`  // the last key that was copied
	Entries int    `json:"entries"`
	Bytes   int64  `json:"bytes"`
}

// run is one migration.
type run struct {
	Options
	from, to physical.Fence // the fences of source and destination
	marker   marker
	result   Result

	ops   []physical.Op
	bytes int
}

// Batches are kept within the destination's limits, and these.
const (
	batchOps   = 100
	batchBytes = 512 << 10
)

// Run copies, verifies, and returns what was done. Interrupted, it can be run again and goes on.
func Run(ctx context.Context, o Options) (Result, error) {
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	o.Source, o.Destination = patient{o.Source}, patient{o.Destination}
	r := &run{Options: o}
	for _, step := range []func(context.Context) error{r.begin, r.copy, r.verify, r.finish} {
		if err := step(ctx); err != nil {
			return r.result, err
		}
	}
	return r.result, nil
}

// begin finds out whether this is a continuation, and raises the fences.
func (r *run) begin(ctx context.Context) error {
	for _, key := range r.Last {
		if _, err := r.Source.Get(ctx, key); errors.Is(err, physical.ErrNotFound) {
			return fmt.Errorf("%w: it has no entry %q", ErrEmpty, key)
		} else if err != nil {
			return fmt.Errorf("source: %w", err)
		}
	}
	now, err := r.Source.Fence(ctx)
	if err != nil {
		return fmt.Errorf("source: fence: %w", err)
	}
	entry, err := r.Destination.Get(ctx, keyMarker)
	switch {
	case err == nil:
		if err := json.Unmarshal(entry.Value, &r.marker); err != nil || r.marker.Format != markerFormat {
			return fmt.Errorf("destination: the mark of an interrupted migration is not this version's: empty it and begin anew")
		}
		if r.marker.Source != describe(now) {
			return fmt.Errorf("%w, since a migration was interrupted: empty the destination and begin anew", ErrChanged)
		}
		r.from, r.result.Resumed = now, true
	case errors.Is(err, physical.ErrNotFound):
		if err := r.wantEmpty(ctx); err != nil {
			return err
		}
		if r.from, err = r.claimSource(ctx, now); err != nil {
			return err
		}
		r.marker = marker{Format: markerFormat, Source: describe(r.from)}
	default:
		return fmt.Errorf("destination: %w", err)
	}
	return r.raise(ctx)
}

func (r *run) wantEmpty(ctx context.Context) error {
	names, err := r.Destination.List(ctx, "", "", 1)
	if err != nil {
		return fmt.Errorf("destination: %w", err)
	}
	if len(names) > 0 {
		return fmt.Errorf("%w: it has %q", ErrNotEmpty, names[0])
	}
	return nil
}

// claimSource raises the fence of a store that others can open. A source that nobody else can open is locked by being open.
func (r *run) claimSource(ctx context.Context, now physical.Fence) (physical.Fence, error) {
	if inNodes(r.Source) || !r.Source.Caps().Shared {
		return now, nil
	}
	to := physical.Fence{Lineage: now.Lineage, Term: now.Term + 1}
	if to.Lineage == "" {
		to.Lineage = newLineage()
	}
	rand.Read(to.Nonce[:])
	if err := raiseFence(ctx, r.Source, now, to); err != nil {
		return now, fmt.Errorf("source: raise the fence: %w", err)
	}
	return to, nil
}

// raise begins a new lineage in the destination, above every term of the source.
func (r *run) raise(ctx context.Context) error {
	now, err := r.Destination.Fence(ctx)
	if err != nil {
		return fmt.Errorf("destination: fence: %w", err)
	}
	r.to = physical.Fence{Lineage: newLineage(), Term: max(now.Term, r.from.Term) + 1}
	rand.Read(r.to.Nonce[:])
	if err := raiseFence(ctx, r.Destination, now, r.to); err != nil {
		return fmt.Errorf("destination: raise the fence: %w", err)
	}
	r.result.Lineage, r.result.Term = r.to.Lineage, r.to.Term
	return nil
}

// raiseFence settles an unclear outcome by reading back.
func raiseFence(ctx context.Context, store physical.Backend, from, to physical.Fence) error {
	err := store.RaiseFence(ctx, from, to)
	if !errors.Is(err, physical.ErrUnknown) {
		return err
	}
	now, readErr := store.Fence(ctx)
	if readErr == nil && now == to {
		return nil
	}
	return errors.Join(err, readErr)
}

func newLineage() string {
	b := make([]byte, 8)
	rand.Read(b)
	return hex.EncodeToString(b)
}

func describe(f physical.Fence) string { return fmt.Sprintf("%s/%d/%x", f.Lineage, f.Term, f.Nonce) }

// apart reports whether a key is not copied like the others.
func (r *run) apart(key string) bool {
	return key == keyMarker || slices.Contains(r.Last, key) || slices.Contains(r.Drop, key)
}

// copy brings everything over that comes after the marker's position.
func (r *run) copy(ctx context.Context) error {
	err := walk(ctx, r.Source, "", r.marker.After, func(key string) error {
		if r.apart(key) {
			return nil
		}
		return r.add(ctx, key)
	})
	if err != nil {
		return err
	}
	return r.flush(ctx)
}

// add reads an entry, and commits what has gathered when the next commit would be too large.
func (r *run) add(ctx context.Context, key string) error {
	e, err := r.Source.Get(ctx, key)
	if err != nil {
		return fmt.Errorf("source: %q: %w", key, err)
	}
	caps, size := r.Destination.Caps(), len(key)+len(e.Value)
	const forMarker = 8 << 10
	most := batchBytes
	if caps.MaxCommit > 0 {
		most = min(most, caps.MaxCommit-forMarker)
	}
	ops := batchOps
	if caps.MaxOps > 0 {
		ops = min(ops, caps.MaxOps-1)
	}
	if len(r.ops) > 0 && (len(r.ops) >= ops || r.bytes+size > most) {
		if err := r.flush(ctx); err != nil {
			return err
		}
	}
	r.ops = append(r.ops, physical.Put(key, e.Value))
	r.bytes += size
	r.marker.After = key
	r.marker.Entries++
	r.marker.Bytes += int64(len(e.Value))
	return nil
}

// flush commits what has gathered, with the position.
func (r *run) flush(ctx context.Context) error {
	data, err := json.Marshal(r.marker)
	if err != nil {
		return err
	}
	if err := r.Destination.Commit(ctx, &r.to, append(r.ops, physical.Put(keyMarker, data))...); err != nil {
		return fmt.Errorf("destination: up to %q: %w", r.marker.After, err)
	}
	r.ops, r.bytes = nil, 0
	r.result.Entries, r.result.Bytes = r.marker.Entries, r.marker.Bytes
	r.Progress(Progress{Entries: r.marker.Entries, Bytes: r.marker.Bytes})
	return nil
}

// verify reads everything again and compares, and makes sure that there is nothing else.
func (r *run) verify(ctx context.Context) error {
	seen, bytesSeen := 0, int64(0)
	err := walk(ctx, r.Source, "", "", func(key string) error {
		if r.apart(key) {
			return nil
		}
		want, err := r.Source.Get(ctx, key)
		if err != nil {
			return fmt.Errorf("source: %q: %w", key, err)
		}
		got, err := r.Destination.Get(ctx, key)
		if err != nil {
			return fmt.Errorf("destination: %q: %w", key, err)
		}
		if !bytes.Equal(got.Value, want.Value) {
			return fmt.Errorf("%w at %q", ErrDiffers, key)
		}
		if seen, bytesSeen = seen+1, bytesSeen+int64(len(want.Value)); seen%batchOps == 0 {
			r.Progress(Progress{Verifying: true, Entries: seen, Bytes: bytesSeen})
		}
		return nil
	})
	if err != nil {
		return err
	}
	there := 0
	err = walk(ctx, r.Destination, "", "", func(key string) error {
		if key != keyMarker {
			there++
		}
		return nil
	})
	if err == nil && there != seen {
		err = fmt.Errorf("%w: the source has %d entries and the destination %d", ErrDiffers, seen, there)
	}
	return err
}

// finish makes the destination the cluster's, if nobody has written to the source.
func (r *run) finish(ctx context.Context) error {
	now, err := r.Source.Fence(ctx)
	if err != nil {
		return fmt.Errorf("source: fence: %w", err)
	}
	if now != r.from {
		return fmt.Errorf("%w: a node of the cluster still runs. End all of them, empty the destination, and begin anew", ErrChanged)
	}
	var ops []physical.Op
	for _, key := range r.Last {
		e, err := r.Source.Get(ctx, key)
		if err != nil {
			return fmt.Errorf("source: %q: %w", key, err)
		}
		ops = append(ops, physical.Put(key, e.Value))
		r.result.Entries++
		r.result.Bytes += int64(len(e.Value))
	}
	if err := r.Destination.Commit(ctx, &r.to, append(ops, physical.Delete(keyMarker))...); err != nil {
		return fmt.Errorf("destination: the last commit: %w", err)
	}
	return nil
}

// MoveLock begins a new lineage in a store whose HA lock is to be kept elsewhere from now on: the keys that say where it was are
// removed. No node may run: the leadership of one that was
// forgotten ends by the fence, and another it does not get, since it looks first where the lock is (internal/server).
func MoveLock(ctx context.Context, store physical.Backend, drop ...string) (Result, error) {
	now, err := store.Fence(ctx)
	if err != nil {
		return Result{}, fmt.Errorf("fence: %w", err)
	}
	to := physical.Fence{Lineage: newLineage(), Term: now.Term + 1}
	rand.Read(to.Nonce[:])
	if err := raiseFence(ctx, store, now, to); err != nil {
		return Result{}, fmt.Errorf("raise the fence: %w", err)
	}
	var ops []physical.Op
	for _, key := range drop {
		ops = append(ops, physical.Delete(key))
	}
	if err := store.Commit(ctx, &to, ops...); err != nil {
		return Result{}, fmt.Errorf("forget where the lock was: %w", err)
	}
	return Result{Lineage: to.Lineage, Term: to.Term}, nil
}
