package server

import (
	"bytes"
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"sync"

	"github.com/locum-ha/locum/physical"
)

// entryCache answers the active node's reads of a data store that is a round trip away from memory, where it has read or
// written the entry in this term. Nobody else writes during a term: the fence sees to that (P1). As on the embedded store, what
// makes such an answer current is the lease, which is asked after the read and before the answer leaves (P4). On a standby,
// and between terms, it is empty and passes everything on.
type entryCache struct {
	physical.Backend
	seed maphash.Seed

	mu      sync.Mutex
	on      bool
	term    uint64 // counts the times that it was switched on
	bytes   int
	ends    cachedEntry // of the ring of entries: behind it is the one used last
	entries map[string]*cachedEntry
	barred  map[string]bool // a write whose outcome is unknown may come yet: never kept in this term

	// By hash of the key: reads that a write overtakes are not kept.
	writing [cacheShards]int
	written [cacheShards]uint64
}

// cachedEntry links itself, so that the collector of garbage has less to look at.
type cachedEntry struct {
	key           string
	value         []byte
	before, after *cachedEntry
}

// unlink takes it out of its ring.
func (e *cachedEntry) unlink() { e.before.after, e.after.before = e.after, e.before }

// link puts it behind another.
func (e *cachedEntry) link(other *cachedEntry) {
	e.before, e.after = other, other.after
	e.before.after, e.after.before = e, e
}

const (
	cacheShards = 1024
	cacheBytes  = 64 << 20
	cacheEntry  = 64       // bytes that an entry takes besides key and value, about
	barredMost  = 10 << 10 // more, and the cache stays off for this term
)

func newEntryCache(store physical.Backend) *entryCache {
	c := &entryCache{Backend: store, seed: maphash.MakeSeed()}
	c.clear()
	return c
}

// begin switches it on, empty: the fence stands at this node's term.
func (c *entryCache) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on = true
	c.term++
	c.clear()
}

// end switches it off.
func (c *entryCache) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on = false
	c.clear()
}

func (c *entryCache) clear() {
	c.entries, c.barred, c.bytes = map[string]*cachedEntry{}, map[string]bool{}, 0
	c.ends.before, c.ends.after = &c.ends, &c.ends
}

func (c *entryCache) shard(key string) int { return int(maphash.String(c.seed, key) % cacheShards) }

// Get answers from memory where it can.
func (c *entryCache) Get(ctx context.Context, key string) (*physical.Entry, error) {
	c.mu.Lock()
	if e := c.entries[key]; c.on && e != nil {
		e.unlink()
		e.link(&c.ends)
		value := e.value
		c.mu.Unlock()
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		return &physical.Entry{Key: key, Value: bytes.Clone(value)}, nil
	}
	at := c.shard(key)
	keep, term, written := c.on && c.writing[at] == 0 && !c.barred[key], c.term, c.written[at]
	c.mu.Unlock()
	entry, err := c.Backend.Get(ctx, key)
	if err != nil || !keep {
		return entry, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.on && c.term == term && c.written[at] == written && !c.barred[key] {
		c.keep(key, bytes.Clone(entry.Value))
	}
	return entry, nil
}

// keep takes an entry in, and lets go of those that were used longest ago.
func (c *entryCache) keep(key string, value []byte) {
	c.drop(key)
	if len(value) > cacheBytes/16 {
		return
	}
	e := &cachedEntry{key: key, value: value}
	e.link(&c.ends)
	c.entries[key] = e
	c.bytes += len(key) + len(value) + cacheEntry
	for c.bytes > cacheBytes {
		c.drop(c.ends.before.key)
	}
}

func (c *entryCache) drop(key string) {
	e := c.entries[key]
	if e == nil {
		return
	}
	e.unlink()
	delete(c.entries, key)
	c.bytes -= len(e.key) + len(e.value) + cacheEntry
}

// Commit goes to the store; what was written is known from then on.
func (c *entryCache) Commit(ctx context.Context, fence *physical.Fence, ops ...physical.Op) error {
	var shards []int // of the keys that it writes
	for _, op := range ops {
		if !op.IsCondition() {
			shards = append(shards, c.shard(op.Key))
		}
	}
	slices.Sort(shards)
	shards = slices.Compact(shards)
	thens := make([]uint64, len(shards)) // how many writes had begun or ended before its own end
	alone := true
	c.mu.Lock()
	term := c.term
	for i, at := range shards {
		alone = alone && c.writing[at] == 0
		c.writing[at]++
		c.written[at]++
		thens[i] = c.written[at]
	}
	c.mu.Unlock()
	err := c.Backend.Commit(ctx, fence, ops...)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, at := range shards {
		alone = alone && c.written[at] == thens[i]
		c.writing[at]--
		c.written[at]++
	}
	if c.on && c.term == term {
		c.committed(err, alone, ops)
	}
	return err
}

// committed takes over what a commit has done, as far as that is known. alone: no other write of keys like its own was under way
// meanwhile; else which of two came last is the store's to say.
func (c *entryCache) committed(err error, alone bool, ops []physical.Op) {
	for _, op := range ops {
		switch {
		case errors.Is(err, physical.ErrConflict):
			c.drop(op.Key) // what was known of it does not hold
		case op.IsCondition():
		case errors.Is(err, physical.ErrUnknown):
			c.drop(op.Key)
			c.barred[op.Key] = true
		case err != nil:
		case c.barred[op.Key] || !alone:
			c.drop(op.Key)
		case op.Kind == physical.OpPut:
			c.keep(op.Key, bytes.Clone(op.Value))
		default:
			c.drop(op.Key)
		}
	}
	if errors.Is(err, physical.ErrFenced) || len(c.barred) > barredMost {
		c.on = false
		c.clear()
	}
}

// RaiseFence begins anew: commits of the term before that are still on their way are not its own any more.
func (c *entryCache) RaiseFence(ctx context.Context, from, to physical.Fence) error {
	err := c.Backend.RaiseFence(ctx, from, to)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.term++
	c.clear()
	return err
}

// Close forgets everything and closes the store.
func (c *entryCache) Close() error {
	c.end()
	return c.Backend.Close()
}
