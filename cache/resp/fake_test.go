package resp

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"
)

// fake is a Store of one node, for tests of the protocol.
type fake struct {
	mu      sync.Mutex
	dbs     map[int]map[string]fakeEntry
	version uint64
	fail    error // what every call returns instead
	levels  []Level
	steps   int // calls of Apply

	replicas, settled int   // settled: calls of Settle
	unsettled         error // what they return

	subscribers map[int]func(string, []byte)
	lost        map[int]func()
	next        int
}

type fakeEntry struct {
	value   []byte
	expires time.Time
	version uint64
}

func newFake() *fake {
	return &fake{dbs: map[int]map[string]fakeEntry{}, subscribers: map[int]func(string, []byte){}, lost: map[int]func(){}}
}

func (f *fake) db(n int) map[string]fakeEntry {
	if f.dbs[n] == nil {
		f.dbs[n] = map[string]fakeEntry{}
	}
	return f.dbs[n]
}

func (f *fake) entry(db int, key []byte) (fakeEntry, bool) {
	e, ok := f.db(db)[string(key)]
	if ok && !e.expires.IsZero() && !time.Now().Before(e.expires) {
		delete(f.db(db), string(key))
		return fakeEntry{}, false
	}
	return e, ok
}

func (e fakeEntry) ttl() time.Duration {
	if e.expires.IsZero() {
		return 0
	}
	return time.Until(e.expires).Round(time.Millisecond)
}

func (f *fake) Get(db int, key []byte) (Entry, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return Entry{}, false, f.fail
	}
	e, ok := f.entry(db, key)
	return Entry{Value: e.value, TTL: e.ttl(), Version: e.version}, ok, nil
}

func (f *fake) Scan(db int, cursor uint64, count int) ([]string, uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	keys := slices.Sorted(maps.Keys(f.db(db)))
	from := min(int(cursor), len(keys))
	to := min(from+count, len(keys))
	next := uint64(to)
	if to == len(keys) {
		next = 0
	}
	return keys[from:to], next, f.fail
}

func (f *fake) Len(db int) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key := range f.db(db) {
		f.entry(db, []byte(key))
	}
	return len(f.db(db)), f.fail
}

func (f *fake) Apply(_ context.Context, db int, level Level, tx Tx) ([]Result, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.steps++
	f.levels = append(f.levels, level)
	if f.fail != nil {
		return nil, false, f.fail
	}
	for _, w := range tx.Watch {
		if e, _ := f.entry(db, w.Key); e.version != w.Version {
			return nil, false, nil
		}
	}
	results := make([]Result, len(tx.Ops))
	for i, op := range tx.Ops {
		results[i] = f.apply(db, op)
	}
	return results, true, nil
}

func (f *fake) Clear(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail == nil {
		f.version++
		clear(f.dbs)
	}
	return f.fail
}

func (f *fake) apply(db int, op Op) Result {
	e, found := f.entry(db, op.Key)
	r := Result{Found: found, TTL: e.ttl()}
	if op.Old || op.Kind == OpGet {
		r.Old = e.value
	}
	if !f.holds(op, e, found) {
		return r
	}
	r.Done = true
	f.version++
	switch op.Kind {
	case OpGet:
		return r
	case OpPut:
		e.value = bytes.Clone(op.Value)
		e.expires = f.expiry(op, e)
	case OpDelete:
		r.Done = found
		delete(f.db(db), string(op.Key))
		return r
	case OpExpire:
		if r.Done = found; !found {
			return r
		}
		e.expires = f.expiry(op, e)
	case OpIncr:
		n, ok := int64(0), true
		if found {
			n, ok = parseInt(e.value)
		}
		switch sum := n + op.Delta; {
		case !ok:
			r.Done, r.Err = false, ErrNotInteger
			return r
		case op.Delta > 0 && sum < n, op.Delta < 0 && sum > n:
			r.Done, r.Err = false, ErrOverflow
			return r
		default:
			e.value, r.Number = strconv.AppendInt(nil, sum, 10), sum
		}
	case OpAppend:
		e.value = append(slices.Clip(e.value), op.Value...)
		r.Number = int64(len(e.value))
	case OpClear:
		clear(f.db(db))
		return r
	}
	e.version = f.version
	f.db(db)[string(op.Key)] = e
	return r
}

func (f *fake) expiry(op Op, e fakeEntry) time.Time {
	switch op.Expiry {
	case ExpiryKeep:
		return e.expires
	case ExpirySet:
		return time.Now().Truncate(time.Millisecond).Add(op.TTL)
	}
	return time.Time{}
}

func (f *fake) holds(op Op, e fakeEntry, found bool) bool {
	ttl := e.ttl()
	switch op.If {
	case IfAbsent:
		return !found
	case IfPresent:
		return found
	case IfEqual:
		return found && bytes.Equal(e.value, op.Equal)
	case IfNoTTL:
		return found && ttl == 0
	case IfTTL:
		return found && ttl != 0
	case IfLater:
		return found && ttl != 0 && op.TTL > ttl
	case IfEarlier:
		return found && (ttl == 0 || op.TTL < ttl)
	case IfEarlierTTL:
		return found && ttl != 0 && op.TTL < ttl
	}
	return true
}

func (f *fake) Publish(_ context.Context, channel string, message []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, deliver := range f.subscribers {
		deliver(channel, bytes.Clone(message))
	}
	return f.fail
}

func (f *fake) Subscribe(ctx context.Context, deliver func(string, []byte), lost func()) error {
	f.mu.Lock()
	f.next++
	id := f.next
	f.subscribers[id], f.lost[id] = deliver, lost
	f.mu.Unlock()
	<-ctx.Done()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.subscribers, id)
	return nil
}

func (f *fake) Settle(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settled++
	return f.unsettled
}

func (f *fake) Replicas() int { return f.replicas }

func (f *fake) Info() Info { return Info{Version: "test", IsLeader: true, Started: time.Now()} }
