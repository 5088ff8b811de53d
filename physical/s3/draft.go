package s3

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"

	"github.com/locum-ha/locum/physical"
)

// draft is the index that a batch makes of another one.
type draft struct {
	store *Store
	on    view
	fence physical.Fence

	raised   bool
	changes  map[string]*item // by key; nil: deleted
	written  []string         // objects that are of no use if the swap is lost
	replaced []string         // objects that are of no use once it is won
	uploads  []upload
}

type upload struct {
	object string
	data   []byte
}

// uploads is how many requests a store makes at a time.
const uploads = 16

func (s *Store) draftOn(_ context.Context, v view) (*draft, error) {
	f, err := v.fenceNow()
	if err != nil {
		return nil, err
	}
	return &draft{store: s, on: v, fence: f, changes: map[string]*item{}}, nil
}

func (d *draft) changed() bool { return d.raised || len(d.changes) > 0 }

// apply takes a request into the draft. refused is the request's own error: then it leaves the draft as it was.
func (d *draft) apply(ctx context.Context, r *request) (refused, err error) {
	want := physical.Fence{}
	if r.fence != nil {
		want = *r.fence
	}
	if d.fence != want {
		return fmt.Errorf("%w: the store's fence is %v", physical.ErrFenced, d.fence), nil
	}
	if r.to != nil {
		d.fence, d.raised = *r.to, true
		return nil, nil
	}
	for _, op := range r.ops {
		if !op.IsCondition() {
			continue
		}
		it, err := d.item(ctx, op.Key)
		switch {
		case err != nil:
			return nil, err
		case op.Kind == physical.OpRequireAbsent && it != nil:
			return fmt.Errorf("%w: there is an entry at %q", physical.ErrConflict, op.Key), nil
		case op.Kind == physical.OpRequireValue && it == nil:
			return fmt.Errorf("%w: there is no entry at %q", physical.ErrConflict, op.Key), nil
		case op.Kind == physical.OpRequireValue && !it.holds(op.Value):
			return fmt.Errorf("%w: another value at %q", physical.ErrConflict, op.Key), nil
		}
	}
	for _, op := range r.ops {
		switch op.Kind {
		case physical.OpPut:
			it := newItem(op.Key, op.Value)
			d.changes[op.Key] = &it
		case physical.OpDelete:
			d.changes[op.Key] = nil
		}
	}
	return nil, nil
}

// item is the entry at key as the draft has it; nil if there is none.
func (d *draft) item(ctx context.Context, key string) (*item, error) {
	if it, ok := d.changes[key]; ok {
		return it, nil
	}
	return d.store.find(ctx, d.on, key)
}

// name makes the name of a new object: it begins with the version of the index that it is written for.
func (d *draft) name() string {
	nonce := make([]byte, 12)
	rand.Read(nonce)
	name := objectPrefix(d.on.Version) + hex.EncodeToString(nonce)
	d.written = append(d.written, name)
	return name
}

func objectPrefix(version uint64) string { return fmt.Sprintf("%s%016x-", objectsDir, version) }

// upload writes the new values and pages, and returns the index that has them.
func (d *draft) upload(ctx context.Context) (*index, error) {
	next := &index{
		Format: format, Version: d.on.Version + 1, Fence: d.on.Fence,
		Marks: append(slices.Clone(d.on.Marks[max(0, len(d.on.Marks)-marksKept+1):]), newMark()),
	}
	if d.raised {
		next.Fence = storedFence(d.fence)
	}
	for _, it := range d.changes {
		if it != nil && len(it.value) > inlineMax {
			it.object = d.name()
			d.uploads = append(d.uploads, upload{it.object, it.value})
			it.value = nil
		}
	}
	if err := d.rewrite(ctx, next); err != nil {
		return nil, err
	}
	if err := d.send(ctx); err != nil {
		return nil, err
	}
	return next, nil
}

func newMark() string {
	mark := make([]byte, 12)
	rand.Read(mark)
	return hex.EncodeToString(mark)
}

// rewrite fills next's pages: those that no change touches stay as they are.
func (d *draft) rewrite(ctx context.Context, next *index) error {
	keys := make([]string, 0, len(d.changes))
	for key := range d.changes {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	old := d.on.Pages
	for n := range max(len(old), 1) {
		end := len(keys)
		if n+1 < len(old) {
			end = sort.SearchStrings(keys, old[n+1].First)
		}
		mine := keys[:end]
		keys = keys[end:]
		if len(mine) == 0 {
			if n < len(old) {
				next.Pages = append(next.Pages, old[n])
			}
			continue
		}
		items := []item(nil)
		if n < len(old) {
			p, err := d.store.page(ctx, old[n])
			if err != nil {
				return err
			}
			items = p.items
			d.replaced = append(d.replaced, old[n].Object)
		}
		if err := d.absorb(ctx, next, d.merge(items, mine)); err != nil {
			return err
		}
	}
	return nil
}

// merge makes the items of a page with the changes of keys, which are in order.
func (d *draft) merge(items []item, keys []string) []item {
	out := make([]item, 0, len(items)+len(keys))
	for _, it := range items {
		for len(keys) > 0 && keys[0] < it.key {
			out = d.take(out, keys[0])
			keys = keys[1:]
		}
		if len(keys) > 0 && keys[0] == it.key {
			if it.object != "" {
				d.replaced = append(d.replaced, it.object)
			}
			out = d.take(out, keys[0])
			keys = keys[1:]
			continue
		}
		out = append(out, it)
	}
	for _, key := range keys {
		out = d.take(out, key)
	}
	return out
}

func (d *draft) take(out []item, key string) []item {
	if it := d.changes[key]; it != nil {
		return append(out, *it)
	}
	return out
}

// absorb adds items to the end of next's pages: split where they are too many, and together with the page before where both are
// small, so that deleting leaves no crumbs.
func (d *draft) absorb(ctx context.Context, next *index, items []item) error {
	if last := len(next.Pages) - 1; last >= 0 && newPage(items).bytes < pageMax/8 && next.Pages[last].Bytes < pageMax/4 {
		before, err := d.pageOf(ctx, next.Pages[last])
		if err != nil {
			return err
		}
		d.discard(next.Pages[last].Object)
		next.Pages = next.Pages[:last]
		items = slices.Concat(before.items, items)
	}
	for len(items) > 0 {
		size, n := 0, 0
		for n < len(items) && (n == 0 || size+items[n].cost() <= pageMax) {
			size += items[n].cost()
			n++
		}
		if n < len(items) { // leave room in both for what comes
			n = max(1, min(n, (len(items)+1)/2))
		}
		d.add(next, newPage(slices.Clone(items[:n])))
		items = items[n:]
	}
	return nil
}

func (d *draft) add(next *index, p *page) {
	ref := pageRef{First: p.items[0].key, Object: d.name(), Bytes: p.bytes}
	d.uploads = append(d.uploads, upload{ref.Object, p.marshal()})
	d.store.pages.put(ref.Object, p)
	next.Pages = append(next.Pages, ref)
}

// pageOf is a page of the draft, perhaps one that it has made itself.
func (d *draft) pageOf(ctx context.Context, ref pageRef) (*page, error) {
	for _, u := range d.uploads {
		if u.object == ref.Object {
			return parsePage(u.data)
		}
	}
	return d.store.page(ctx, ref)
}

// discard takes a page out of the draft: it is not uploaded, or is garbage afterwards.
func (d *draft) discard(object string) {
	at := slices.IndexFunc(d.uploads, func(u upload) bool { return u.object == object })
	if at >= 0 {
		d.uploads = slices.Delete(d.uploads, at, at+1)
		return
	}
	d.replaced = append(d.replaced, object)
}

// send uploads what the draft has made.
func (d *draft) send(ctx context.Context) error {
	var all sync.WaitGroup
	errs := make([]error, len(d.uploads))
	room := make(chan struct{}, uploads)
	for i, u := range d.uploads {
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			errs[i] = d.store.objects.put(ctx, u.object, u.data)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func marshalIndex(x *index) ([]byte, error) {
	data, err := json.Marshal(x)
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	return data, nil
}

// marked reports whether the swap with this mark is one of the last that made this index.
func (x *index) marked(mark string) bool { return slices.Contains(x.Marks, mark) }
