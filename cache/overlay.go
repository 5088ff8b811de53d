package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// overlays are the direct puts of this node that the log has not decided yet: each key's newest, with the
// version that the node had seen of it. Local reads look here first.
type overlays struct {
	count atomic.Int32
	mu    sync.RWMutex
	m     map[overKey]*overlay
	aloft map[overKey]*overlay // on their way, one of a key at a time; m may have a newer one, or none any more
	queue []overKey            // to be proposed
	bytes int
	last  *settling
	seq   uint64 // of the last put
	wake  chan struct{}
}

// undecided marks the version that a read shows of a direct put. No entry of the log ever has such a version, so that no condition holds
// against what the log has meanwhile. Where the rest of it begins is random: no other node, and none after a restart, shows the same.
const undecided = 1 << 63

type overKey struct{ cache, key string }

type overlay struct {
	e        *entry
	op       Op
	deadline int64    // see now
	behind   *overlay // the put on its way that this one took the place of, if the log has not removed the key since
	awaited  *settling
}

// settling is the wait for those of the direct puts of a moment that nobody waited for yet; prev, for the others.
type settling struct {
	prev *settling
	left int // with overlays.mu
	lost error
	done chan struct{} // closed when left is 0
}

// settle has those told who wait for a put. The caller holds mu.
func (over *overlay) settle(err error) {
	s := over.awaited
	if s == nil {
		return
	}
	over.awaited = nil
	s.lost = errors.Join(s.lost, err)
	if s.left--; s.left == 0 {
		close(s.done)
	}
}

func newOverlays() *overlays {
	return &overlays{m: map[overKey]*overlay{}, aloft: map[overKey]*overlay{}, seq: rand.Uint64() / 4, wake: make(chan struct{}, 1)}
}

// get returns a key's direct put, nil if there is none, and up to which version it comes after what the log has.
func (o *overlays) get(cache, key string) (put *entry, base uint64) {
	if o.count.Load() == 0 {
		return nil, 0
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	if over := o.m[overKey{cache, key}]; over != nil {
		return over.e, over.op.base
	}
	return nil, 0
}

// hides reports whether an answer of the request depends on a direct put that the log has not decided. What needs no answer goes ahead:
// the log refuses the older put.
func (o *overlays) hides(level Level, r *request) bool {
	if o.count.Load() == 0 {
		return false
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	for i := range r.watch {
		if o.m[overKey{r.watch[i].Cache, r.watch[i].Key}] != nil {
			return true
		}
	}
	for i := range r.ops {
		op := &r.ops[i]
		answered := op.conditional() || op.Kind == OpDelete && level == Quorum
		if answered && o.m[overKey{op.Cache, op.Key}] != nil {
			return true
		}
	}
	return false
}

// of returns the direct puts of a cache, nil if there are none.
func (o *overlays) of(cache string) map[string]*entry {
	if o.count.Load() == 0 {
		return nil
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	found := map[string]*entry{}
	for k, over := range o.m {
		if k.cache == cache {
			found[k.key] = over.e
		}
	}
	return found
}

// overEntry returns what a local read shows of a direct put and of what the log has.
func overEntry(put *entry, base uint64, logged *entry) *entry {
	if put == nil || logged != nil && logged.version > base && logged.origin != put.origin {
		return logged
	}
	return put
}

// put adds a direct put; it takes the place of an earlier one of the same key.
func (o *overlays) put(op Op, e *entry, deadline int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	k := overKey{op.Cache, op.Key}
	old := o.m[k]
	if old == nil && (len(o.m) >= queueEntries || o.bytes+len(op.Value) > queueBytes) {
		return fmt.Errorf("%w: %w", ErrNotDone, ErrBusy)
	}
	o.seq++
	e.version = undecided | o.seq
	next := &overlay{e: e, op: op, deadline: deadline}
	switch aloft := o.aloft[k]; {
	case old != nil && old == aloft:
		o.bytes -= len(old.op.Value)
		next.behind = old
	case old != nil: // nobody will decide it: who waits for it waits for this one
		o.bytes -= len(old.op.Value)
		next.behind, next.awaited = old.behind, old.awaited
	case aloft == nil:
		o.queue = append(o.queue, k)
	}
	o.m[k] = next
	o.bytes += len(op.Value)
	o.count.Store(int32(len(o.m)))
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return nil
}

// removed forgets a direct put because the log has removed the key since.
func (o *overlays) removed(cache, key string) {
	if o == nil || o.count.Load() == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forget(overKey{cache, key})
}

// cleared forgets all direct puts of a cache.
func (o *overlays) cleared(cache string) {
	if o == nil || o.count.Load() == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for k := range o.m {
		if k.cache == cache {
			o.forget(k)
		}
	}
}

func (o *overlays) forget(k overKey) {
	if over := o.m[k]; over != nil {
		o.bytes -= len(over.op.Value)
		over.settle(nil)
		delete(o.m, k)
		o.count.Store(int32(len(o.m)))
	}
}

// next takes a key whose put is to be proposed.
func (o *overlays) next() (overKey, *overlay) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.queue) > 0 {
		k := o.queue[0]
		if o.queue = o.queue[1:]; len(o.queue) == 0 {
			o.queue = nil
		}
		if over := o.m[k]; over != nil && o.aloft[k] == nil {
			o.aloft[k] = over
			return k, over
		}
	}
	return overKey{}, nil
}

// await returns the wait for the puts that are there now, nil if there are none.
func (o *overlays) await() *settling {
	if o.count.Load() == 0 {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.last != nil && o.last.left == 0 {
		o.last = o.last.prev
	}
	s := &settling{prev: o.last, done: make(chan struct{})}
	for _, over := range o.m {
		if over.awaited == nil {
			over.awaited = s
			s.left++
		}
	}
	if s.left > 0 {
		o.last = s
	}
	return o.last
}

// decided ends a proposal, with err if the log is not known to have decided it. If a newer put of the key came meanwhile, or again is
// set, it is proposed next.
func (o *overlays) decided(k overKey, over *overlay, again bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.aloft, k)
	switch current := o.m[k]; {
	case current == nil:
		over.settle(nil) // the log has removed the key since
	case current == over && !again:
		over.settle(err)
		o.forget(k)
	default:
		if current != over {
			over.settle(err)
		}
		current.behind = nil
		o.queue = append(o.queue, k)
		select {
		case o.wake <- struct{}{}:
		default:
		}
	}
}

// taken notes with the put that comes after one which the log has taken that nothing lies between them: when the first expires before
// the second comes to the log, the second is not the older one for that.
func (o *overlays) taken(k overKey, over *overlay, resp *response) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if current := o.m[k]; current != nil && current.behind == over && len(resp.results) == 1 && resp.results[0].Done {
		current.op.base = max(current.op.base, resp.results[0].Version)
	}
}

// direct puts on this node now, and on its way to the others.
func (m *member) direct(op Op) error {
	r := m.node.current.Load()
	st := m.node.view()
	if r == nil || st == nil || r.over != m.over {
		return fmt.Errorf("%w: %w", ErrNotDone, ErrNoQuorum)
	}
	op.base, op.from = st.rev.Load(), m.id
	op.Value = append([]byte(nil), op.Value...)
	e := newEntry(op.Key, op.Value)
	e.origin = hashOrigin(m.id)
	bounds := st.boundsOf(op.Cache)
	if e.size() > bounds.MaxBytes {
		return fmt.Errorf("%w: %w", ErrTooLarge, ErrNotDone)
	}
	ttl := op.TTL
	if ttl == DefaultTTL {
		ttl = bounds.DefaultTTL
	}
	if ttl > 0 { // it begins now, whenever the log takes it
		e.expires = max(st.clock.Load(), st.ahead.Load()+now()/int64(time.Millisecond)) + max(int64(ttl/time.Millisecond), 1)
	}
	op.TTL, op.ends = NoExpiry, e.expires
	return m.over.put(op, e, now()+int64(m.cfg.OperationTimeout))
}

// directLanes is how many direct puts of a node may be on their way at once.
const directLanes = 64

// directs proposes the direct puts.
func (m *member) directs() {
	slots := make(chan struct{}, directLanes)
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-m.over.wake:
		}
		for {
			k, over := m.over.next()
			if over == nil {
				break
			}
			select {
			case slots <- struct{}{}:
			case <-m.ctx.Done():
				return
			}
			m.background(func() {
				m.proposeDirect(k, over)
				<-slots
			})
		}
	}
}

// proposeDirect puts one through the log. An unknown outcome is tried again: the log takes no put whose key
// has changed since by another's hand, so a repeat can do no harm. So is one for which there was no quorum: while the node keeps its data,
// that may have been for a moment.
func (m *member) proposeDirect(k overKey, over *overlay) {
	ctx, cancel := context.WithTimeoutCause(m.ctx, max(time.Duration(over.deadline-now()), time.Millisecond), errTimeout)
	defer cancel()
	out := m.submit(ctx, Quorum, request{ops: []Op{over.op}})
	if out.err == nil {
		m.over.taken(k, over, &out.resp)
		_ = m.fsm.progress.wait(ctx, out.index) // until local reads find what the log decided
	}
	again := (errors.Is(out.err, ErrUnknown) || errors.Is(out.err, ErrNoQuorum)) && now() < over.deadline && m.ctx.Err() == nil
	if out.err != nil && !again && m.ctx.Err() == nil {
		m.cfg.Logger.Warn("a direct put did not reach the cache's log", "cache", k.cache, "error", out.err)
	}
	m.over.decided(k, over, again, out.err)
}
