package cache

import (
	"container/heap"
	"sync/atomic"
	"unsafe"
)

// entry is immutable for readers: a change puts another in its place. Only the goroutine that applies the
// log touches the fields below the line.
type entry struct {
	key     string
	value   string
	version uint64
	expires int64 // milliseconds of the log's time; 0 for never
	// ——
	older, newer *entry // by last write
	place        int32  // in the expiry heap, -1 if it is not there
	origin       uint32 // hash of the node whose direct put this was, 0 for other writes
}

// entryOverhead is what an entry costs beyond key and value, about: itself, its place in the map, rounding.
const entryOverhead = 144

func newEntry(key string, value []byte) *entry {
	b := make([]byte, len(key)+len(value))
	copy(b[copy(b, key):], value)
	s := unsafe.String(unsafe.SliceData(b), len(b)) // nobody else has b
	return &entry{key: s[:len(key)], value: s[len(key):], place: -1}
}

// bytes returns the value without a copy; its capacity ends with it.
func (e *entry) bytes() []byte {
	if e.value == "" {
		return []byte{}
	}
	return unsafe.Slice(unsafe.StringData(e.value), len(e.value))
}

func (e *entry) size() int64 { return entrySize(e.key, e.value) }

func entrySize[V string | []byte](key string, value V) int64 {
	return int64(len(key) + len(value) + entryOverhead)
}

// table is one cache: entries by key in shards for the readers, and for the one who applies the log the order of
// writes, by which entries are evicted, and a heap of expiries. Both depend on the log alone, so that they
// are the same on every node.
type table struct {
	name   string
	shards [shardCount]shard
	reads  [readsCount]reads

	count, size        atomic.Int64 // entries, and bytes with what they cost beyond key and value
	evictions, expired atomic.Uint64

	options atomic.Pointer[Options]
	oldest  *entry
	newest  *entry
	expiry  expiryHeap
	tombs   tombs
}

func newTable(name string, options Options) *table {
	t := &table{name: name}
	t.options.Store(&options)
	return t
}

func (t *table) bounds() Options { return *t.options.Load() }

func (t *table) shard(hash uint64) *shard { return &t.shards[hash>>56] }

func (t *table) get(key string) *entry {
	hash := hashOf(key)
	return t.shard(hash).get(hash, key)
}

// counted returns how often an entry was there for a reader, and how often not.
func (t *table) counted() (hits, misses uint64) {
	for i := range t.reads {
		hits += t.reads[i].hits.Load()
		misses += t.reads[i].misses.Load()
	}
	return hits, misses
}

// set puts e in the place of old, which may be nil.
func (t *table) set(e, old *entry) {
	hash := hashOf(e.key)
	t.shard(hash).set(hash, e)
	if old != nil {
		t.unlink(old)
	}
	e.older, e.newer = t.newest, nil
	if t.newest != nil {
		t.newest.newer = e
	} else {
		t.oldest = e
	}
	t.newest = e
	if e.expires != 0 {
		heap.Push(&t.expiry, e)
	}
	t.count.Add(1)
	t.size.Add(e.size())
}

func (t *table) remove(e *entry) {
	hash := hashOf(e.key)
	t.shard(hash).remove(hash, e.key)
	t.unlink(e)
}

func (t *table) unlink(e *entry) {
	if e.older != nil {
		e.older.newer = e.newer
	} else {
		t.oldest = e.newer
	}
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		t.newest = e.older
	}
	e.older, e.newer = nil, nil
	if e.place >= 0 {
		heap.Remove(&t.expiry, int(e.place))
	}
	t.count.Add(-1)
	t.size.Add(-e.size())
}

func (t *table) clear() {
	for i := range t.shards {
		t.shards[i].clear()
	}
	t.oldest, t.newest, t.expiry = nil, nil, nil
	t.count.Store(0)
	t.size.Store(0)
}

// expiryHeap has the entry that expires first on top. Equal instants go by version, so that all nodes agree.
type expiryHeap []*entry

func (h expiryHeap) Len() int { return len(h) }
func (h expiryHeap) Less(i, j int) bool {
	return h[i].expires < h[j].expires || h[i].expires == h[j].expires && h[i].version < h[j].version
}

func (h expiryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = int32(i), int32(j)
}

func (h *expiryHeap) Push(x any) {
	e, _ := x.(*entry)
	e.place = int32(len(*h))
	*h = append(*h, e)
}

func (h *expiryHeap) Pop() any {
	n := len(*h) - 1
	e := (*h)[n]
	(*h)[n] = nil
	*h, e.place = (*h)[:n], -1
	return e
}

// tombs remembers of the last keys that went the versions at which they were removed, or were written before they expired or gave
// way, so that a direct put that was made before cannot bring an older value back. What it has forgotten counts as gone at floor.
type tombs struct {
	floor uint64
	at    map[string]uint64
	order []tomb // a ring once it is full
	next  int
}

type tomb struct {
	key     string
	version uint64
}

const tombCount = 4096

func (t *tombs) add(key string, version uint64) {
	if t.at == nil {
		t.at = make(map[string]uint64)
	}
	if len(t.order) < tombCount {
		t.order = append(t.order, tomb{key, version})
	} else {
		old := t.order[t.next]
		if t.at[old.key] == old.version {
			delete(t.at, old.key)
		}
		t.floor = max(t.floor, old.version)
		t.order[t.next] = tomb{key, version}
		t.next = (t.next + 1) % tombCount
	}
	t.at[key] = version
}

// last returns the version at which the key was removed last, or may have been.
func (t *tombs) last(key string) uint64 { return max(t.floor, t.at[key]) }

// all returns the tombs, oldest first.
func (t *tombs) all() []tomb {
	return append(append([]tomb(nil), t.order[t.next:]...), t.order[:t.next]...)
}

func (t *tombs) reset(floor uint64) { *t = tombs{floor: floor} }
