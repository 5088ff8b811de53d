package s3

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/locum-ha/locum/physical"
)

// view is the index as it was at one time, with its ETag. It is never changed.
type view struct {
	*index
	etag string // "": there is none yet
}

// views knows the newest index seen. Whoever needs the present one joins the next question to the service, which is asked after
// it has come: so the answer is current, and one question serves all who wait.
type views struct {
	store *Store

	mu      sync.Mutex
	known   view
	next    *question // not asked yet
	running bool
	closed  bool
}

type question struct {
	done chan struct{}
	view view
	err  error
}

// present returns an index that was current at some instant after the call began.
func (v *views) present(ctx context.Context) (view, error) {
	if err := context.Cause(ctx); err != nil {
		return view{}, err
	}
	v.mu.Lock()
	if v.closed {
		v.mu.Unlock()
		return view{}, physical.ErrClosed
	}
	if v.next == nil {
		v.next = &question{done: make(chan struct{})}
	}
	q := v.next
	if !v.running {
		v.running = true
		v.store.wg.Go(v.ask)
	}
	v.mu.Unlock()
	select {
	case <-q.done:
		return q.view, q.err
	case <-ctx.Done():
		return view{}, context.Cause(ctx)
	}
}

// close lets no question be asked any more.
func (v *views) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closed = true
}

// ask answers questions for as long as there are any.
func (v *views) ask() {
	for {
		v.mu.Lock()
		q, known := v.next, v.known
		v.next = nil
		if q == nil {
			v.running = false
			v.mu.Unlock()
			return
		}
		v.mu.Unlock()
		q.view, q.err = v.fetch(known)
		close(q.done)
	}
}

func (v *views) fetch(known view) (view, error) {
	ctx, cancel := context.WithTimeout(v.store.life, callTimeout)
	defer cancel()
	data, etag, err := v.store.objects.get(ctx, indexName, known.etag)
	switch {
	case errors.Is(err, errUnchanged):
		return known, nil
	case errors.Is(err, errNoObject):
		if known.etag != "" {
			return view{}, fmt.Errorf("%w: the index object is gone from the bucket", physical.ErrUnavailable)
		}
		return view{index: &index{Format: format}}, nil
	case err != nil:
		return view{}, err
	}
	x, err := parseIndex(data)
	if err != nil {
		return view{}, err
	}
	now := view{x, etag}
	v.learn(now)
	return now, nil
}

// learn takes over an index that is newer than the known one.
func (v *views) learn(now view) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.known.index == nil || now.Version > v.known.Version {
		v.known = now
	}
}

// last is the newest index seen; ok is false before the first.
func (v *views) last() (now view, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.known, v.known.index != nil
}

// cachedBytes bounds the pages kept in memory.
const cachedBytes = 64 << 20

// pageCache keeps the pages that were used last. A page's object is never changed, so what is kept is never stale.
type pageCache struct {
	most int

	mu    sync.Mutex
	bytes int
	order list.List // of *cached, the one used last in front
	by    map[string]*list.Element
}

type cached struct {
	object string
	page   *page
}

func (c *pageCache) get(object string) *page {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.by[object]
	if e == nil {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached).page
}

func (c *pageCache) put(object string, p *page) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by[object] != nil {
		return
	}
	if c.by == nil {
		c.by = map[string]*list.Element{}
	}
	c.by[object] = c.order.PushFront(&cached{object, p})
	c.bytes += p.bytes
	for c.bytes > c.most && c.order.Len() > 1 {
		old := c.order.Remove(c.order.Back()).(*cached)
		delete(c.by, old.object)
		c.bytes -= old.page.bytes
	}
}

// page reads a page; errNoObject where a newer index has replaced it.
func (s *Store) page(ctx context.Context, ref pageRef) (*page, error) {
	if p := s.pages.get(ref.Object); p != nil {
		return p, nil
	}
	data, _, err := s.objects.get(ctx, ref.Object, "")
	if err != nil {
		return nil, err
	}
	p, err := parsePage(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref.Object, err)
	}
	s.pages.put(ref.Object, p)
	return p, nil
}

// find looks a key up; nil if it is not there.
func (s *Store) find(ctx context.Context, v view, key string) (*item, error) {
	n := v.pageOf(key)
	if n < 0 {
		return nil, nil
	}
	p, err := s.page(ctx, v.Pages[n])
	if err != nil {
		return nil, err
	}
	if at, ok := p.search(key); ok {
		return &p.items[at], nil
	}
	return nil, nil
}

// rereads bounds how often a read begins anew since what it read has been replaced meanwhile.
const rereads = 10

// reading calls read with the present index, and again while objects of it are gone, which a newer one has replaced.
func (s *Store) reading(ctx context.Context, read func(context.Context, view) error) error {
	ctx, leave := s.enter(ctx)
	for range rereads {
		v, err := s.views.present(ctx)
		if err == nil {
			err = read(ctx, v)
		}
		if !errors.Is(err, errNoObject) {
			return leave(err)
		}
	}
	return leave(fmt.Errorf("%w: objects of the index are gone from the bucket", physical.ErrUnavailable))
}

// Get returns the entry at key.
func (s *Store) Get(ctx context.Context, key string) (*physical.Entry, error) {
	var entry *physical.Entry
	if err := physical.CheckKey(key); err != nil {
		return nil, err
	}
	err := s.reading(ctx, func(ctx context.Context, v view) error {
		it, err := s.find(ctx, v, key)
		if err != nil {
			return err
		}
		if it == nil {
			return physical.ErrNotFound
		}
		value := it.value
		if it.object != "" {
			if value, _, err = s.objects.get(ctx, it.object, ""); err != nil {
				return err
			}
		}
		if !it.holds(value) {
			return fmt.Errorf("the object of %q does not hold what was written", key)
		}
		entry = &physical.Entry{Key: key, Value: append([]byte{}, value...)}
		return nil
	})
	return entry, err
}

// List returns the direct children of prefix.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if err := physical.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	var names []string
	err := s.reading(ctx, func(ctx context.Context, v view) (err error) {
		names, err = s.children(ctx, v, prefix, after, limit)
		return err
	})
	return names, err
}

// children walks the keys from the first one that can give a name greater than after. The keys of one folder stand together,
// so each folder is met once and then jumped over.
func (s *Store) children(ctx context.Context, v view, prefix, after string, limit int) ([]string, error) {
	var names []string
	for at := prefix + after; ; {
		it, err := s.first(ctx, v, at)
		if err != nil {
			return nil, err
		}
		if it == nil {
			return names, nil
		}
		name, ok := strings.CutPrefix(it.key, prefix)
		if !ok {
			return names, nil
		}
		if folder, _, ok := strings.Cut(name, "/"); ok {
			name = folder + "/"
			at = prefix + folder + "0" // "0" is the byte after "/"
		} else {
			at = it.key + "\x00"
		}
		if name > after {
			names = append(names, name)
		}
		if limit > 0 && len(names) == limit {
			return names, nil
		}
	}
}

// first is the first item whose key is not below at; nil if there is none.
func (s *Store) first(ctx context.Context, v view, at string) (*item, error) {
	for n := max(v.pageOf(at), 0); n < len(v.Pages); n++ {
		p, err := s.page(ctx, v.Pages[n])
		if err != nil {
			return nil, err
		}
		if i, _ := p.search(at); i < len(p.items) {
			return &p.items[i], nil
		}
	}
	return nil, nil
}

// Fence returns the stored fence.
func (s *Store) Fence(ctx context.Context) (physical.Fence, error) {
	var f physical.Fence
	err := s.reading(ctx, func(_ context.Context, v view) (err error) {
		f, err = v.fenceNow()
		return err
	})
	return f, err
}
