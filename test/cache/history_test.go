package cache_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/locum-ha/locum/cache"
)

// The histories check what docs/cache.md promises. Of quorum writes, conditional operations and consistent
// reads: one order of all operations, on whichever nodes they were called, explains every answer. An
// operation with an unknown outcome may take effect at any time up to the end, or never; one that was not
// done is left out. The other levels and reads are in weak_test.go.

type kind uint8

const (
	get kind = iota
	put
	take
	add
	remove
	increment
	swap    // if the value is still the one expected: by version
	guarded // the same as a transaction that watches the key
	replace // if there is one
	attach  // append
	touch
	list // which keys are there
	both // in one step: two values of the group
	many // the group's values at one time
	wipe // the group
)

// groupKey is a cache of its own, whose keys are written, read and cleared together: its history is one.
const groupKey = "group"

type input struct {
	kind  kind
	key   string
	value string
	level cache.Level // put, remove
	read  cache.Read  // get

	expected string // swap, guarded: the value, and its version
	version  uint64
}

type output struct {
	version uint64 // get
	unknown bool
	found   bool   // get, take, replace, touch: there was one; add: there was one, and nothing was written; swap, guarded: it was another
	value   string // get, take, add, replace: what there was; increment: the sum; attach: the length; many, list: all, with spaces
}

// model is one entry: its value, or "" for none. No value is written twice.
var model = porcupine.Model{
	Init: func() any { return "" },
	Step: func(s, in, out any) (bool, any) {
		state, i, o := s.(string), in.(input), out.(output)
		switch i.kind {
		case get:
			return o.found == (state != "") && o.value == state, state
		case put:
			return true, i.value
		case remove:
			return true, ""
		case take:
			return o.unknown || o.found == (state != "") && o.value == state, ""
		case add:
			if o.unknown {
				if state == "" {
					return true, i.value
				}
				return true, state
			}
			if state == "" {
				return !o.found, i.value
			}
			return o.found && o.value == state, state
		case swap, guarded:
			if o.unknown && state == i.expected || !o.unknown && !o.found {
				return state == i.expected, i.value
			}
			return o.unknown || state != i.expected, state
		case replace:
			if state == "" {
				return o.unknown || !o.found, state
			}
			return o.unknown || o.found && o.value == state, i.value
		case attach:
			return o.unknown || o.value == fmt.Sprint(len(state+i.value)), state + i.value
		case touch, list:
			return o.unknown || o.found == (state != ""), state
		}
		var n int64
		if state != "" {
			_, _ = fmt.Sscan(state, &n)
		}
		next := fmt.Sprint(n + 1)
		return o.unknown || o.value == next, next
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v → %+v", in, out) },
}

// groupModel is the group: both its values.
var groupModel = porcupine.Model{
	Init: func() any { return [2]string{} },
	Step: func(s, in, out any) (bool, any) {
		state, i, o := s.([2]string), in.(input), out.(output)
		switch i.kind {
		case both:
			return true, [2]string{i.value, i.value}
		case put:
			state[1] = i.value
			return true, state
		case wipe:
			return true, [2]string{}
		}
		return o.value == state[0]+" "+state[1], state
	},
	DescribeOperation: model.DescribeOperation,
}

type recorder struct {
	start time.Time
	mu    sync.Mutex
	keys  map[string][]porcupine.Operation
	near  []nearRead
	hosts map[string]map[string]string // key, value: the host at which it was put, or the key removed
	size  int                          // how many hosts there are
	done  atomic.Int64
	open  atomic.Int64 // unknown
	none  atomic.Int64 // not done
	last  atomic.Int64
	gap   atomic.Int64 // the longest time without an acknowledged write, nanoseconds
}

func newRecorder(size int) *recorder {
	return &recorder{size: size, start: time.Now(), keys: map[string][]porcupine.Operation{}, hosts: map[string]map[string]string{}}
}

// node is what a client calls, in this process or another.
type node interface {
	name() string
	call(ctx context.Context, in input) (output, error)
}

// local is a node of this process.
type local struct {
	n    *cache.Node
	host string
}

func (l local) name() string { return l.host }

func (l local) call(ctx context.Context, in input) (output, error) { return carry(ctx, l.n, in) }

func carry(ctx context.Context, n *cache.Node, in input) (output, error) {
	c := n.Cache("history")
	if in.key == groupKey && in.kind == put {
		_, err := n.Cache(groupKey).Put(ctx, "b", []byte(in.value), cache.NoExpiry, cache.Quorum)
		return output{}, err
	}
	none := func(item cache.Item, err error) (output, error) {
		if errors.Is(err, cache.ErrNotFound) {
			return output{}, nil
		}
		return output{found: err == nil, value: string(item.Value), version: item.Version}, err
	}
	switch in.kind {
	case get:
		return none(c.Get(ctx, in.key, in.read))
	case put:
		_, err := c.Put(ctx, in.key, []byte(in.value), cache.NoExpiry, in.level)
		return output{}, err
	case remove:
		_, err := c.Delete(ctx, in.key, in.level)
		return output{}, err
	case take:
		return none(c.Take(ctx, in.key))
	case swap:
		_, err := c.CompareAndSwap(ctx, in.key, in.version, []byte(in.value), cache.NoExpiry)
		if errors.Is(err, cache.ErrConflict) {
			return output{found: true}, nil
		}
		return output{}, err
	case replace:
		return none(c.Replace(ctx, in.key, []byte(in.value), cache.NoExpiry))
	case attach:
		length, err := c.Append(ctx, in.key, []byte(in.value), cache.NoExpiry)
		return output{value: fmt.Sprint(length)}, err
	case touch:
		found, err := c.Touch(ctx, in.key, time.Hour)
		return output{found: found}, err
	case list:
		keys, err := c.List(ctx, "", "", 0, in.read)
		return output{value: strings.Join(keys, " ")}, err
	case both, many, wipe, guarded:
		return together(ctx, n, in)
	case add:
		item, err := c.PutIfAbsent(ctx, in.key, []byte(in.value), cache.NoExpiry)
		if errors.Is(err, cache.ErrConflict) {
			return output{found: true, value: string(item.Value)}, nil
		}
		return output{}, err
	}
	sum, err := c.Increment(ctx, in.key, 1, cache.NoExpiry)
	return output{value: fmt.Sprint(sum)}, err
}

// together carries an operation on the group, or another transaction, out.
func together(ctx context.Context, n *cache.Node, in input) (output, error) {
	c := n.Cache(groupKey)
	switch in.kind {
	case wipe:
		return output{}, c.Clear(ctx, cache.Quorum)
	case guarded:
		_, err := n.Do(ctx, cache.Quorum, cache.Txn{
			Watch: []cache.Watch{{Cache: "history", Key: in.key, Version: in.version}},
			Ops:   []cache.Op{{Kind: cache.OpPut, Cache: "history", Key: in.key, Value: []byte(in.value), TTL: cache.NoExpiry}},
		})
		if errors.Is(err, cache.ErrConflict) {
			return output{found: true}, nil
		}
		return output{}, err
	case both:
		put := func(key string) cache.Op {
			return cache.Op{Kind: cache.OpPut, Cache: groupKey, Key: key, Value: []byte(in.value), TTL: cache.NoExpiry}
		}
		_, err := n.Do(ctx, cache.Quorum, cache.Txn{Ops: []cache.Op{put("a"), put("b")}})
		return output{}, err
	}
	items, err := c.GetMany(ctx, []string{"a", "b"}, in.read)
	if err != nil {
		return output{}, err
	}
	return output{value: string(items[0].Value) + " " + string(items[1].Value)}, nil
}

func (r *recorder) do(ctx context.Context, client int, n node, in input) (output, bool) {
	began := time.Since(r.start)
	out, err := n.call(ctx, in)
	ended := time.Since(r.start)
	switch {
	case err == nil:
		r.done.Add(1)
		if !in.reads() {
			if gap := int64(ended) - r.last.Swap(int64(ended)); gap > r.gap.Load() {
				r.gap.Store(gap)
			}
		}
	case in.reads():
		return out, false
	case errors.Is(err, cache.ErrNotDone):
		r.none.Add(1)
		return out, false
	default:
		r.open.Add(1)
		out, ended = output{unknown: true}, math.MaxInt64
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if in.kind == get && in.read != cache.Consistent {
		r.near = append(r.near, nearRead{n.name(), in.key, in.read, out, int64(began), int64(ended)})
		return out, true
	}
	if in.kind == put || in.kind == remove || in.kind == take {
		if r.hosts[in.key] == nil {
			r.hosts[in.key] = map[string]string{}
		}
		r.hosts[in.key][in.value] = n.name()
	}
	note := func(key string, out output) {
		r.keys[key] = append(r.keys[key], porcupine.Operation{
			ClientId: client, Input: in, Call: int64(began), Output: out, Return: int64(ended)})
	}
	if in.kind == list { // no picture of one moment, but right for each key
		for i := range listed {
			key := fmt.Sprint("k", i)
			note(key, output{found: slices.Contains(strings.Fields(out.value), key)})
		}
		return out, true
	}
	note(in.key, out)
	return out, err == nil
}

func (in input) reads() bool { return in.kind == get || in.kind == list || in.kind == many }

// listed is how many keys there are that are operated on in all ways.
const listed = 4

// clients call until ctx ends; each goes from node to node.
func (r *recorder) clients(ctx context.Context, count int, nodes func() []node) *sync.WaitGroup {
	var wg sync.WaitGroup
	var unique atomic.Int64
	for i := range count {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 1))
			client := i
			for ctx.Err() == nil {
				all := nodes()
				in := anyOperation(rnd, fmt.Sprint("v", unique.Add(1)))
				limit, cancel := context.WithTimeout(ctx, 3*time.Second)
				before := r.open.Load()
				if in.kind == swap || in.kind == guarded { // of what is there now
					if was, ok := r.do(limit, client, all[rnd.IntN(len(all))], input{kind: get, key: in.key, read: cache.Consistent}); ok {
						in.expected, in.version = was.value, was.version
					} else {
						in.kind = put
					}
				}
				r.do(limit, client, all[rnd.IntN(len(all))], in)
				cancel()
				if r.open.Load() != before {
					client += count // a client whose call may still be under way begins no other
				}
				pace(ctx, time.Duration(rnd.IntN(3000))*time.Microsecond)
			}
		})
	}
	return &wg
}

// anyOperation makes one; no value is written twice.
func anyOperation(rnd *rand.Rand, value string) input {
	in := input{key: fmt.Sprint("k", rnd.IntN(listed)), value: value, read: cache.Consistent}
	switch rnd.IntN(7) {
	case 0:
		in.key, in.kind = fmt.Sprint("n", rnd.IntN(2)), []kind{increment, increment, get, touch}[rnd.IntN(4)]
	case 1, 2:
		return anyLevel(rnd, in)
	case 3:
		in.key, in.kind = groupKey, []kind{both, put, many, many, wipe}[rnd.IntN(5)]
	default:
		in.kind = []kind{get, get, put, take, add, remove, swap, guarded, replace, attach, list}[rnd.IntN(11)]
	}
	return in
}

func pace(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// verdictTime is how long the search for an order of one key's operations may take. Most take some milliseconds; it grows with the
// operations of unknown outcome, of counters most.
const verdictTime = 90 * time.Second

// check fails the test if no order explains a key's history, or if that could not be found out.
func (r *recorder) check(t *testing.T, enough int64) {
	t.Helper()
	t.Logf("%d done, %d unknown, %d not done; longest without a write %v", r.done.Load(), r.open.Load(), r.none.Load(), time.Duration(r.gap.Load()))
	if r.done.Load() < enough {
		t.Errorf("only %d operations were carried out, %d are needed for a verdict", r.done.Load(), enough)
	}
	for key, ops := range r.keys {
		model := model
		switch {
		case isWeak(key):
			model, ops = r.weak().ToModel(), r.windows(ops)
		case key == groupKey:
			model = groupModel
		}
		verdict, info := porcupine.CheckOperationsVerbose(model, ops, verdictTime)
		switch verdict {
		case porcupine.Ok:
		case porcupine.Unknown:
			t.Errorf("no verdict on the %d operations on key %s in %v: nothing is known of them", len(ops), key, verdictTime)
		default:
			file := filepath.Join(os.TempDir(), fmt.Sprintf("locum-cache-history-%d-%s.html", os.Getpid(), key))
			if err := porcupine.VisualizePath(model, info, file); err == nil {
				t.Logf("drawn in %s", file)
			}
			t.Errorf("no order explains the %d operations on key %s", len(ops), key)
		}
	}
	r.checkNear(t)
}
