package forward

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
)

// slots hands out the names under which repeatable requests commit their answers (P6). A name is used
// by one request at a time and again only after a definite answer, so the store keeps one record per
// request that was ever in flight at the same time, not one per request. A name whose outcome stayed
// unknown is burnt: the request may still be committed, and would overwrite the record of a later one.
type slots struct {
	prefix string // "<node id>/<incarnation>/"
	uses   atomic.Uint64

	mu   sync.Mutex
	next uint64
	free []slot
}

type slot struct {
	n    uint64
	name string
}

func (s *slots) take() (sl slot, key string) {
	s.mu.Lock()
	if n := len(s.free); n > 0 {
		sl = s.free[n-1]
		s.free = s.free[:n-1]
	} else {
		sl = slot{n: s.next, name: s.prefix + strconv.FormatUint(s.next, 10)}
		s.next++
	}
	s.mu.Unlock()
	return sl, strconv.FormatUint(s.uses.Add(1), 36)
}

func (s *slots) give(sl slot) {
	s.mu.Lock()
	s.free = append(s.free, sl)
	s.mu.Unlock()
}

// runningSlots keeps two deliveries of one request from running at the same time on this node: the
// second, a repeat after a lost connection, waits until the first is over, and then finds in the slot
// what that has committed.
type runningSlots struct {
	mu sync.Mutex
	m  map[string]chan struct{}
}

// enter returns false when ctx ended first.
func (r *runningSlots) enter(ctx context.Context, i *Info) bool {
	if i.Slot == "" {
		return true
	}
	for {
		r.mu.Lock()
		first, busy := r.m[i.Slot]
		if !busy {
			if r.m == nil {
				r.m = make(map[string]chan struct{})
			}
			r.m[i.Slot] = nil // a channel is made only if somebody waits
			r.mu.Unlock()
			return true
		}
		if first == nil {
			first = make(chan struct{})
			r.m[i.Slot] = first
		}
		r.mu.Unlock()
		select {
		case <-first:
		case <-ctx.Done():
			return false
		}
	}
}

func (r *runningSlots) leave(i *Info) {
	if i.Slot == "" {
		return
	}
	r.mu.Lock()
	if ch := r.m[i.Slot]; ch != nil {
		close(ch)
	}
	delete(r.m, i.Slot)
	r.mu.Unlock()
}
