package cache_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
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
)

type input struct {
	kind  kind
	key   string
	value string
	level cache.Level // put
	read  cache.Read  // get
}

type output struct {
	version uint64 // get
	unknown bool
	found   bool   // get, take: there was one; add: there was one, and nothing was written
	value   string // get, take, add: what there was; increment: the sum
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

type recorder struct {
	start time.Time
	mu    sync.Mutex
	keys  map[string][]porcupine.Operation
	near  []nearRead
	hosts map[string]map[string]string // key, value: the host at which it was put
	done  atomic.Int64
	open  atomic.Int64 // unknown
	none  atomic.Int64 // not done
	last  atomic.Int64
	gap   atomic.Int64 // the longest time without an acknowledged write, nanoseconds
}

func newRecorder() *recorder {
	return &recorder{start: time.Now(), keys: map[string][]porcupine.Operation{}, hosts: map[string]map[string]string{}}
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
		_, err := c.Delete(ctx, in.key, cache.Quorum)
		return output{}, err
	case take:
		return none(c.Take(ctx, in.key))
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

func (r *recorder) do(ctx context.Context, client int, n node, in input) {
	began := time.Since(r.start)
	out, err := n.call(ctx, in)
	ended := time.Since(r.start)
	switch {
	case err == nil:
		r.done.Add(1)
		if in.kind != get {
			if gap := int64(ended) - r.last.Swap(int64(ended)); gap > r.gap.Load() {
				r.gap.Store(gap)
			}
		}
	case in.kind == get:
		return
	case errors.Is(err, cache.ErrNotDone):
		r.none.Add(1)
		return
	default:
		r.open.Add(1)
		out, ended = output{unknown: true}, math.MaxInt64
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if in.kind == get && in.read != cache.Consistent {
		r.near = append(r.near, nearRead{n.name(), in.key, in.read, out, int64(began), int64(ended)})
		return
	}
	if in.kind == put {
		if r.hosts[in.key] == nil {
			r.hosts[in.key] = map[string]string{}
		}
		r.hosts[in.key][in.value] = n.name()
	}
	r.keys[in.key] = append(r.keys[in.key], porcupine.Operation{
		ClientId: client, Input: in, Call: int64(began), Output: out, Return: int64(ended)})
}

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
				in := input{kind: kind(rnd.IntN(5)), key: fmt.Sprint("k", rnd.IntN(4)), value: fmt.Sprint("v", unique.Add(1)), read: cache.Consistent}
				switch rnd.IntN(6) {
				case 0:
					in = input{kind: []kind{increment, get}[rnd.IntN(2)], key: fmt.Sprint("n", rnd.IntN(2)), read: cache.Consistent}
				case 1, 2:
					in = anyLevel(rnd, in)
				}
				limit, cancel := context.WithTimeout(ctx, 3*time.Second)
				before := r.open.Load()
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

func pace(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// check fails the test if no order explains a key's history.
func (r *recorder) check(t *testing.T, enough int64) {
	t.Helper()
	t.Logf("%d done, %d unknown, %d not done; longest without a write %v", r.done.Load(), r.open.Load(), r.none.Load(), time.Duration(r.gap.Load()))
	if r.done.Load() < enough {
		t.Errorf("only %d operations were carried out, %d are needed for a verdict", r.done.Load(), enough)
	}
	for key, ops := range r.keys {
		model := model
		if isWeak(key) {
			model, ops = weak.ToModel(), windows(ops)
		}
		verdict, info := porcupine.CheckOperationsVerbose(model, ops, 30*time.Second)
		switch verdict {
		case porcupine.Ok:
		case porcupine.Unknown:
			t.Logf("key %s: %d operations, no verdict in time", key, len(ops))
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
