package cache

import (
	"container/heap"
	"context"
	"fmt"
	"slices"
	"strings"
)

// List returns up to limit keys (0: 1000) with this prefix that come after a key, sorted. It looks at every
// key of the cache: for going through all of a large one, Scan is the way. It is no picture of one moment, but for each key it is right.
func (c *Cache) List(ctx context.Context, prefix, after string, limit int, read Read) ([]string, error) {
	if limit < 0 {
		return nil, fmt.Errorf("%w: limit %d", ErrInvalid, limit)
	}
	if limit == 0 {
		limit = 1000
	}
	st, err := c.node.readable(ctx, read)
	if err != nil {
		return nil, err
	}
	direct := c.direct(read)
	t := c.table(st)
	if t == nil {
		t = noTable
	}
	var least maxHeap // the least keys so far, the greatest of them on top
	look := func(e *entry) {
		key := e.key
		if key <= after && after != "" || !strings.HasPrefix(key, prefix) || c.node.visible(st, e, read) == 0 {
			return
		}
		if len(least) < limit {
			heap.Push(&least, key)
		} else if key < least[0] {
			least[0] = key
			heap.Fix(&least, 0)
		}
	}
	for _, e := range direct {
		look(e)
	}
	for i := range t.shards {
		for e := range t.shards[i].entries() {
			if direct[e.key] == nil {
				look(e)
			}
		}
	}
	slices.Sort(least)
	return least, nil
}

// direct returns the direct puts of this cache that the log may not have yet, by key. As in find, they are looked for first.
func (c *Cache) direct(read Read) map[string]*entry {
	r := c.node.current.Load()
	if read == Consistent || r == nil || r.over == nil {
		return nil
	}
	return r.over.of(c.name)
}

var noTable = &table{} // of a cache to which nothing was written yet; never changed

type maxHeap []string

func (h maxHeap) Len() int           { return len(h) }
func (h maxHeap) Less(i, j int) bool { return h[i] > h[j] }
func (h maxHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *maxHeap) Push(x any) {
	if s, ok := x.(string); ok {
		*h = append(*h, s)
	}
}

func (h *maxHeap) Pop() any {
	n := len(*h) - 1
	x := (*h)[n]
	*h = (*h)[:n]
	return x
}

// Scan goes through the keys in no order, about count at a time. Begin with cursor 0 and go on with the one
// returned until it is 0 again: every key that was there all the while was returned then, once or more. A
// cursor is good on the node that gave it, as long as that runs.
func (c *Cache) Scan(ctx context.Context, cursor uint64, count int, read Read) (keys []string, next uint64, err error) {
	st, err := c.node.readable(ctx, read)
	if err != nil {
		return nil, 0, err
	}
	direct := c.direct(read)
	t := c.table(st)
	if t == nil {
		t = noTable
	}
	count = max(count, 1)
	type found struct {
		hash uint64
		key  string
	}
	for i := int(cursor >> 56); i < shardCount; i++ {
		var here []found
		look := func(e *entry) {
			if h := hashOf(e.key); h >= cursor && h>>56 == uint64(i) && c.node.visible(st, e, read) != 0 {
				here = append(here, found{h, e.key})
			}
		}
		for _, e := range direct {
			look(e)
		}
		for e := range t.shards[i].entries() {
			if direct[e.key] == nil {
				look(e)
			}
		}
		slices.SortFunc(here, func(a, b found) int {
			switch {
			case a.hash < b.hash:
				return -1
			case a.hash > b.hash:
				return 1
			}
			return 0
		})
		for _, f := range here {
			if len(keys) >= count && f.hash != cursor {
				return keys, f.hash, nil
			}
			keys, cursor = append(keys, f.key), f.hash
		}
		if cursor = uint64(i+1) << 56; len(keys) >= count {
			return keys, cursor, nil
		}
	}
	return keys, 0, nil
}
