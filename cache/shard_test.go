package cache

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// TestShard: a shard is a map, also with many removals, and what stays is found all the while others are put in and removed.
func TestShard(t *testing.T) {
	var s shard
	want := map[string]*entry{}
	stays := make([]string, 50)
	for i := range stays {
		stays[i] = fmt.Sprint("stays", i)
		e := newEntry(stays[i], nil)
		want[e.key] = e
		s.set(hashOf(e.key), e)
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	for g := range 2 {
		wg.Go(func() {
			for i := g; !stop.Load(); i++ {
				key := stays[i%len(stays)]
				if e := s.get(hashOf(key), key); e == nil || e.key != key {
					t.Errorf("%s is %v", key, e)
					return
				}
				if s.get(hashOf("never"), "never") != nil {
					t.Error("a key that was never put in")
				}
			}
		})
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 100_000 {
		key := fmt.Sprint("k", rnd.IntN(50+i%500))
		if rnd.IntN(2) == 0 {
			s.remove(hashOf(key), key)
			delete(want, key)
		} else {
			e := newEntry(key, []byte(fmt.Sprint(i)))
			s.set(hashOf(key), e)
			want[key] = e
		}
		if key := stays[i%len(stays)]; i%10 == 0 {
			want[key] = newEntry(key, nil)
			s.set(hashOf(key), want[key])
		}
	}
	stop.Store(true)
	wg.Wait()
	found := 0
	for e := range s.entries() {
		if found++; want[e.key] != e {
			t.Fatalf("%q is not what was put in last", e.key)
		}
	}
	if found != len(want) || s.live != len(want) {
		t.Fatalf("%d entries, %d counted, of %d", found, s.live, len(want))
	}
	if n := len(*s.slots.Load()); n > 8*len(want) {
		t.Errorf("%d slots for %d entries", n, len(want))
	}
	s.clear()
	if s.get(hashOf(stays[0]), stays[0]) != nil {
		t.Error("an entry after everything was cleared")
	}
}
