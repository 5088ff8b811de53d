package cache

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// Cache is one named cache, as this node reaches it. It is safe for concurrent use.
type Cache struct {
	node *Node
	name string
	last atomic.Pointer[lookup] // the table as it was found last
}

type lookup struct {
	of    *state
	table *table
}

// Name returns the cache's name.
func (c *Cache) Name() string { return c.name }

// table returns the cache's table in st, nil if there is none.
func (c *Cache) table(st *state) *table {
	if l := c.last.Load(); l != nil && l.of == st {
		return l.table
	}
	t := st.table(c.name)
	if t != nil {
		c.last.Store(&lookup{of: st, table: t})
	}
	return t
}

// Get returns the entry, [ErrNotFound] if there is none, [ErrNoQuorum] if nothing is known.
func (c *Cache) Get(ctx context.Context, key string, read Read) (Item, error) {
	st, err := c.node.readable(ctx, read)
	if err != nil {
		return Item{}, err
	}
	item, ok := c.find(st, key, read)
	if !ok {
		return Item{}, ErrNotFound
	}
	return item, nil
}

// find looks a key up, and counts. A direct put is looked for first: it leaves its place when the log has it, so who looks there
// afterwards may find it in neither.
func (c *Cache) find(st *state, key string, read Read) (Item, bool) {
	put, base := c.node.direct(read, c.name, key)
	var e *entry
	hits, misses := &c.node.hits, &c.node.misses
	if t := c.table(st); t != nil {
		hash := hashOf(key)
		n := readsOf(&t.reads)
		e, hits, misses = t.shard(hash).get(hash, key), &n.hits, &n.misses
	}
	e = overEntry(put, base, e)
	var left time.Duration
	if e != nil {
		left = c.node.visible(st, e, read)
	}
	if left == 0 {
		hits = misses
	}
	hits.Add(1)
	if tell := c.node.cfg.Observer.Read; tell != nil {
		tell(left != 0)
	}
	if left == 0 {
		return Item{}, false
	}
	return Item{Value: e.bytes(), Version: e.version, TTL: left}, true
}

// GetMany returns the entries of several keys as they were at one time; an item without version was not
// there.
func (c *Cache) GetMany(ctx context.Context, keys []string, read Read) ([]Item, error) {
	st, err := c.node.readable(ctx, read)
	if err != nil {
		return nil, err
	}
	items := make([]Item, len(keys))
	st.txn.RLock()
	defer st.txn.RUnlock()
	for i, key := range keys {
		items[i], _ = c.find(st, key, read)
	}
	return items, nil
}

// Do carries one operation out; its Cache field is set to this cache. Errors are those of the write as a
// whole; what the operation says of itself is in the result.
func (c *Cache) Do(ctx context.Context, level Level, op Op) (Result, error) {
	op.Cache = c.name
	return c.node.one(ctx, level, op)
}

// done is Do with the result's error.
func (c *Cache) done(ctx context.Context, level Level, op Op) (Result, error) {
	r, err := c.Do(ctx, level, op)
	if err == nil && r.Err != nil {
		err = fmt.Errorf("cache %q: %w", c.name, r.Err)
	}
	return r, err
}

// Put writes an entry. At levels below Quorum the version is 0 where it is not known yet.
func (c *Cache) Put(ctx context.Context, key string, value []byte, ttl time.Duration, level Level) (version uint64, err error) {
	r, err := c.done(ctx, level, Op{Kind: OpPut, Key: key, Value: value, TTL: ttl})
	return r.Version, err
}

// PutIfAbsent writes an entry that does not exist yet. If there is one it returns that and [ErrConflict].
func (c *Cache) PutIfAbsent(ctx context.Context, key string, value []byte, ttl time.Duration) (Item, error) {
	r, err := c.done(ctx, Quorum, Op{Kind: OpPut, Key: key, Value: value, TTL: ttl, If: IfAbsent})
	if err == nil && !r.Done {
		return itemOf(r), ErrConflict
	}
	return Item{Value: value, Version: r.Version, TTL: ttl}, err
}

// Replace writes an entry that exists and returns what it was; else [ErrNotFound].
func (c *Cache) Replace(ctx context.Context, key string, value []byte, ttl time.Duration) (old Item, err error) {
	r, err := c.done(ctx, Quorum, Op{Kind: OpPut, Key: key, Value: value, TTL: ttl, If: IfPresent, WantOld: true})
	if err == nil && !r.Done {
		return Item{}, ErrNotFound
	}
	return itemOf(r), err
}

// CompareAndSwap writes an entry that still has this version (0: does not exist) and returns the new one;
// else [ErrConflict].
func (c *Cache) CompareAndSwap(ctx context.Context, key string, version uint64, value []byte, ttl time.Duration) (uint64, error) {
	r, err := c.done(ctx, Quorum, Op{Kind: OpPut, Key: key, Value: value, TTL: ttl, If: IfVersion, Version: version})
	if err == nil && !r.Done {
		return r.Version, ErrConflict
	}
	return r.Version, err
}

// Take removes an entry and returns it: of all who take it, one gets it. [ErrNotFound] for the others.
func (c *Cache) Take(ctx context.Context, key string) (Item, error) {
	r, err := c.done(ctx, Quorum, Op{Kind: OpDelete, Key: key, WantOld: true})
	if err == nil && !r.Found {
		return Item{}, ErrNotFound
	}
	return itemOf(r), err
}

// Delete removes an entry. existed is known at Quorum only.
func (c *Cache) Delete(ctx context.Context, key string, level Level) (existed bool, err error) {
	r, err := c.done(ctx, level, Op{Kind: OpDelete, Key: key})
	return r.Found, err
}

// Increment adds delta to a counter and returns it. One that does not exist begins at 0 and gets the TTL.
// [ErrNotNumber], [ErrOverflow].
func (c *Cache) Increment(ctx context.Context, key string, delta int64, ttl time.Duration) (int64, error) {
	r, err := c.done(ctx, Quorum, Op{Kind: OpIncrement, Key: key, Delta: delta, TTL: ttl})
	return r.Number, err
}

// Append adds to the end of a value and returns the new length. A new entry gets the TTL.
func (c *Cache) Append(ctx context.Context, key string, value []byte, ttl time.Duration) (int64, error) {
	r, err := c.done(ctx, Quorum, Op{Kind: OpAppend, Key: key, Value: value, TTL: ttl})
	return r.Number, err
}

// Touch gives an entry a new TTL; NoExpiry takes it away. It reports whether there is such an entry.
func (c *Cache) Touch(ctx context.Context, key string, ttl time.Duration) (bool, error) {
	r, err := c.done(ctx, Quorum, Op{Kind: OpTouch, Key: key, TTL: ttl})
	return r.Done, err
}

// Clear removes all entries.
func (c *Cache) Clear(ctx context.Context, level Level) error {
	_, err := c.done(ctx, level, Op{Kind: OpClear})
	return err
}

// Len returns how many entries this node has, when it has everything that was acknowledged through it; those that expired a moment ago
// are included. [ErrNoQuorum] where nothing may be read.
func (c *Cache) Len(ctx context.Context) (int64, error) {
	st, err := c.node.readable(ctx, OwnWrites)
	if err != nil {
		return 0, err
	}
	if t := c.table(st); t != nil {
		return t.count.Load(), nil
	}
	return 0, nil
}

// Subscribe returns the changes of the keys with this prefix from now on, as this node applies them. Close it.
func (c *Cache) Subscribe(prefix string) *Subscription {
	return c.node.Subscribe(Filter{Cache: c.name, Prefix: prefix})
}

func itemOf(r Result) Item {
	return Item{Value: r.Value, Version: r.Version, TTL: r.TTL}
}
