package forward

import "sync"

// A chunk is a pooled piece of memory. Whoever holds it calls free once, and touches it no more.
type chunk struct {
	b     []byte
	class int
	next  *chunk // in a stream's queue
}

var chunkSizes = [...]int{4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20}

var chunkPools [len(chunkSizes)]sync.Pool

// newChunk returns an empty chunk with room for at least n bytes; above the largest class it is not
// pooled.
func newChunk(n int) *chunk {
	for i, size := range chunkSizes {
		if n <= size {
			if c, ok := chunkPools[i].Get().(*chunk); ok {
				c.b = c.b[:0]
				return c
			}
			return &chunk{b: make([]byte, 0, size), class: i}
		}
	}
	return &chunk{b: make([]byte, 0, n), class: -1}
}

func (c *chunk) free() {
	if c == nil || c.class < 0 || cap(c.b) != chunkSizes[c.class] {
		return // grown by append: not of its class any more
	}
	c.next = nil
	chunkPools[c.class].Put(c)
}

// freeAll frees a queue.
func (c *chunk) freeAll() {
	for c != nil {
		next := c.next
		c.free()
		c = next
	}
}

// grow moves c to a chunk with room for n bytes more.
func (c *chunk) grow(n int) *chunk {
	if cap(c.b)-len(c.b) >= n {
		return c
	}
	d := newChunk(len(c.b) + n)
	d.b = append(d.b, c.b...)
	c.free()
	return d
}
