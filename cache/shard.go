package cache

import (
	"hash/maphash"
	"iter"
	"sync/atomic"
	"unsafe"
)

const shardCount = 256

var seed = maphash.MakeSeed()

// shard is one part of a table: a hash table of open addressing whose readers write nothing, so that they do not slow
// one another down. One goroutine changes it. A slot's entry is exchanged as one; what is removed leaves grave
// behind; a table that is full is replaced by another, and who reads the old one finds what was there then.
type shard struct {
	slots      atomic.Pointer[slots]
	live, used int // of the slots: entries; entries and graves
}

// reads counts a part of the reads: see readsOf.
type reads struct {
	hits, misses atomic.Uint64
	_            [48]byte // two do not share a cache line
}

const readsCount = 64

// readsOf returns the counters for this goroutine, by where its stack is: readers that run at the same time do not meet at one
// counter, which would cost more than all the rest of a read.
func readsOf(all *[readsCount]reads) *reads {
	var here byte
	return &all[uintptr(unsafe.Pointer(&here))>>11%readsCount]
}

// slots are a power of two, of which one at least is free.
type slots []atomic.Pointer[entry]

var grave = &entry{}

const fewestSlots = 8

func hashOf(key string) uint64 { return maphash.String(seed, key) }

// get returns the entry of a key, nil for none.
func (s *shard) get(hash uint64, key string) *entry {
	p := s.slots.Load()
	if p == nil {
		return nil
	}
	all := *p
	for i, mask := hash, uint64(len(all)-1); ; i++ {
		switch e := all[i&mask].Load(); {
		case e == nil:
			return nil
		case e != grave && e.key == key:
			return e
		}
	}
}

// set puts an entry in, in the place of the one with its key if there is one.
func (s *shard) set(hash uint64, e *entry) {
	p := s.slots.Load()
	if p == nil || 4*(s.used+1) > 3*len(*p) {
		p = s.rebuild()
	}
	all := *p
	for i, mask := hash, uint64(len(all)-1); ; i++ {
		switch there := all[i&mask].Load(); {
		case there == nil:
			s.live, s.used = s.live+1, s.used+1
			all[i&mask].Store(e)
			return
		case there != grave && there.key == e.key:
			all[i&mask].Store(e)
			return
		}
	}
}

// remove takes the entry of a key out.
func (s *shard) remove(hash uint64, key string) {
	p := s.slots.Load()
	if p == nil {
		return
	}
	all := *p
	for i, mask := hash, uint64(len(all)-1); ; i++ {
		switch e := all[i&mask].Load(); {
		case e == nil:
			return
		case e != grave && e.key == key:
			all[i&mask].Store(grave)
			s.live--
			return
		}
	}
}

// rebuild makes room, without graves.
func (s *shard) rebuild() *slots {
	n := fewestSlots
	for n < 2*(s.live+1) {
		n *= 2
	}
	next := make(slots, n)
	for e := range s.entries() {
		i := hashOf(e.key)
		for next[i&uint64(n-1)].Load() != nil {
			i++
		}
		next[i&uint64(n-1)].Store(e)
	}
	s.used = s.live
	s.slots.Store(&next)
	return &next
}

// entries returns what is there. What is put in or removed meanwhile may be among them or not.
func (s *shard) entries() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		p := s.slots.Load()
		if p == nil {
			return
		}
		for i := range *p {
			if e := (*p)[i].Load(); e != nil && e != grave && !yield(e) {
				return
			}
		}
	}
}

func (s *shard) clear() {
	s.slots.Store(nil)
	s.live, s.used = 0, 0
}
