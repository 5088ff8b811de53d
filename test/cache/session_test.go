package cache_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/cache"
)

// sessions are clients of one node each, with keys that nobody else knows: whatever else happens in the cluster, a key is to its client as
// if there were no other nodes, direct puts included, for as long as no call fails and the node keeps its data ("own writes").
type sessions struct {
	t     *testing.T
	find  func(host string) *cache.Node
	mu    sync.Mutex
	count map[string]int // of what was checked
}

// slack is by how much a follower's estimate of the log's time may be wrong here, in a process with much to do.
const slack = 300 * time.Millisecond

// run has each node used until ctx ends. It returns when each was used once, with the wait for the rest: so far nothing else happens.
func (s *sessions) run(ctx context.Context, hosts []string) (wait func()) {
	s.count = map[string]int{}
	var all sync.WaitGroup
	for i, host := range hosts {
		rnd := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(i)))
		s.walk(ctx, host, rnd)
		all.Go(func() {
			for ctx.Err() == nil {
				s.walk(ctx, host, rnd)
				pace(ctx, time.Duration(rnd.IntN(10))*time.Millisecond)
			}
		})
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				s.expire(ctx, host, n)
				pace(ctx, 10*time.Millisecond)
			}
		})
	}
	return func() {
		all.Wait()
		s.t.Logf("in sessions: %v", s.count)
	}
}

// session is one key's.
type session struct {
	*sessions
	node    *cache.Node
	c       *cache.Cache
	host    string
	emptied uint64
	key     string
	state   string // "" if there is none
	seen    map[uint64]string
	last    cache.Item // that was read
	trace   []string
}

func (s *sessions) begin(host, key string) *session {
	n := s.find(host)
	return &session{sessions: s, node: n, c: n.Cache("history"), host: host, emptied: n.Stats().Emptied, key: key, seen: map[uint64]string{}}
}

// is notes what was checked, and fails the test unless it is so, or the node has lost its data since.
func (s *session) is(what string, ok bool, shown any) {
	if s.node.Stats().Emptied != s.emptied {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count[what]++
	if !ok {
		s.t.Errorf("%s, key %s: %s found %v, where %q was written; before: %q", s.host, s.key, what, shown, s.state, s.trace)
	}
}

// walk writes and reads a key.
func (s *sessions) walk(ctx context.Context, host string, rnd *rand.Rand) {
	one := s.begin(host, fmt.Sprint("s", rnd.Uint64()))
	for i := range 20 {
		step := rnd.IntN(10)
		if i < 3 { // at first: there is an entry, a direct put hides it, which is read
			step = []int{0, 1, 9}[i]
		}
		value := fmt.Sprint(1 + rnd.IntN(1<<30)) // digits, for increments
		limit, cancel := context.WithTimeout(ctx, 3*time.Second)
		err := one.step(limit, step, value)
		cancel()
		if err != nil {
			return
		}
		if i == 2 && rnd.IntN(2) == 0 { // with the version that was read while the put was on its way
			if one.swap(ctx, value) != nil {
				return
			}
		}
		one.trace = append(one.trace, fmt.Sprint(step, "→", one.state))
	}
}

// step does one thing. Its error ends the session.
func (s *session) step(ctx context.Context, step int, value string) error {
	switch step {
	case 0, 1, 2, 3:
		level := []cache.Level{cache.Quorum, cache.Direct, cache.Direct, cache.Direct}[step]
		version, err := s.c.Put(ctx, s.key, []byte(value), cache.NoExpiry, level)
		if err != nil {
			return err
		}
		if s.state = value; version != 0 {
			s.seen[version] = value
		}
	case 4:
		item, err := s.c.Take(ctx, s.key)
		if err != nil && !errors.Is(err, cache.ErrNotFound) {
			return err
		}
		s.is("take", string(item.Value) == s.state, string(item.Value))
		s.state = ""
	case 5:
		existed, err := s.c.Delete(ctx, s.key, cache.Quorum)
		if err != nil {
			return err
		}
		s.is("delete", existed == (s.state != ""), existed)
		s.state = ""
	case 6:
		item, err := s.c.PutIfAbsent(ctx, s.key, []byte(value), cache.NoExpiry)
		switch {
		case errors.Is(err, cache.ErrConflict):
			s.is("put if absent", s.state == string(item.Value), string(item.Value))
		case err != nil:
			return err
		default:
			s.is("put if absent", s.state == "", "")
			s.state = value
		}
	case 7:
		sum, err := s.c.Increment(ctx, s.key, 1, cache.NoExpiry)
		if err != nil {
			return err
		}
		before, _ := strconv.ParseInt(s.state, 10, 64)
		s.is("increment", sum == before+1, sum)
		s.state = fmt.Sprint(sum)
	case 8:
		return s.swap(ctx, value)
	case 9:
		item, err := s.c.Get(ctx, s.key, cache.OwnWrites)
		if err != nil && !errors.Is(err, cache.ErrNotFound) {
			return err
		}
		s.is("read", string(item.Value) == s.state, string(item.Value))
		if was, ok := s.seen[item.Version]; ok {
			s.is("version", was == s.state, was)
		}
		if s.last = item; item.Version != 0 {
			s.seen[item.Version] = s.state
		}
	}
	return nil
}

// swap writes if the entry is what was read last.
func (s *session) swap(ctx context.Context, value string) error {
	_, err := s.c.CompareAndSwap(ctx, s.key, s.last.Version, []byte(value), cache.NoExpiry)
	if errors.Is(err, cache.ErrConflict) {
		return nil
	}
	if err == nil {
		s.is("swap", string(s.last.Value) == s.state, string(s.last.Value))
		s.state = value
	}
	return err
}

// expire puts at level direct for a moment: once it has expired on its node, it never comes again, whenever it comes to the log.
func (s *sessions) expire(ctx context.Context, host string, n int) {
	one := s.begin(host, fmt.Sprint("t", host, n))
	if _, err := one.c.Put(ctx, one.key, []byte("short"), 100*time.Millisecond, cache.Direct); err != nil {
		return
	}
	pace(ctx, 100*time.Millisecond+slack)
	if _, err := one.c.Get(ctx, one.key, cache.Local); !errors.Is(err, cache.ErrNotFound) {
		return // a slow machine, or no quorum
	}
	limit, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if one.node.Settle(limit) != nil {
		return
	}
	item, err := one.c.Get(limit, one.key, cache.Consistent)
	if err == nil || errors.Is(err, cache.ErrNotFound) {
		one.is("expiry", err != nil, string(item.Value))
	}
}
