package forward

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// fencedStore is what the nodes of the simulation write to: one fence, one record per slot (P1, P6).
type fencedStore struct {
	mu       sync.Mutex
	term     uint64
	version  int
	slots    map[string][2]string // slot: key, answer
	executed map[string]int
}

var errFenced = errors.New("fenced")

func (s *fencedStore) commit(term uint64, i Info, id string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if term != s.term {
		return "", errFenced
	}
	s.version++
	s.executed[id]++
	answer := strconv.Itoa(s.version)
	if i.Slot != "" {
		s.slots[i.Slot] = [2]string{i.Key, answer}
	}
	return answer, nil
}

// member is a node of the simulation with its own copy of the state, that is only right while it leads.
type member struct {
	*node
	store   *fencedStore
	version atomic.Int64
	gate    sync.RWMutex // held to freeze its handlers
}

// thaw lets a frozen member go on; each step of a handler passes here.
func (m *member) step() {
	m.gate.RLock()
	defer m.gate.RUnlock()
}

func (m *member) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i := InfoFrom(r.Context())
	m.step()
	if r.Method == http.MethodGet {
		v := m.version.Load()
		m.step()
		fmt.Fprint(w, v)
		return
	}
	id, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	if i.Repeat && i.Slot != "" {
		m.store.mu.Lock()
		stored := m.store.slots[i.Slot]
		m.store.mu.Unlock()
		if stored[0] == i.Key {
			fmt.Fprint(w, stored[1])
			return
		}
	}
	m.step()
	answer, err := m.store.commit(i.Term, i, string(id))
	if err != nil {
		Decline(r.Context())
		http.Error(w, err.Error(), 500)
		return
	}
	v, _ := strconv.ParseInt(answer, 10, 64)
	for old := m.version.Load(); old < v && !m.version.CompareAndSwap(old, v); old = m.version.Load() {
	}
	m.step()
	fmt.Fprint(w, answer)
}

func (m *member) lead(term uint64) *lease {
	m.store.mu.Lock()
	m.store.term = term
	m.version.Store(int64(m.store.version))
	m.store.mu.Unlock()
	l := newLease()
	m.Lead(term, l, m)
	return l
}

// Three nodes whose leadership changes hands in every way, under load at all of them: no write is executed
// twice, none that was acknowledged is missing, an answer says truly whether it was processed (P3, P6), no
// read is older than what was acknowledged before it began (P4), and none fails.
func TestChaos(t *testing.T) {
	checkLeaks(t)
	rounds := 150
	if testing.Short() {
		rounds = 40
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	store := &fencedStore{slots: map[string][2]string{}, executed: map[string]int{}}
	var members []*member
	for _, name := range []string{"a", "b", "c"} {
		members = append(members, &member{node: newNode(t, name, keyed), store: store})
	}
	term := uint64(1)
	leader := members[0]
	l := leader.lead(term)
	tell := func(m *member) { m.Follow(leader.target(term, m.node)) }
	for _, m := range members[1:] {
		tell(m)
	}

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	load := &chaosLoad{t: t, store: store}
	for _, m := range members {
		for range 3 {
			wg.Go(func() { load.run(ctx, m.Router) })
		}
	}
	events := map[string]int{}
	for range rounds {
		load.some(20)
		old, oldLease := leader, l
		leader = members[rng.IntN(3)]
		event := []string{"drain", "crash", "lease", "freeze"}[rng.IntN(4)]
		if leader == old && event == "freeze" {
			event = "drain"
		}
		events[event]++
		term++
		switch event {
		case "drain":
			if err := old.Drain(t.Context()); err != nil {
				t.Error(err)
			}
			oldLease.end(errors.New("released"))
		case "crash": // of the connections; the process learns of it by its lease
			old.crash()
			oldLease.end(errors.New("lost"))
		case "lease":
			oldLease.end(errors.New("not renewed"))
		case "freeze":
			old.gate.Lock()
			oldLease.invalid.Store(true)
		}
		l = leader.lead(term)
		for _, m := range rand.Perm(3) {
			if m := members[m]; m != leader && !(event == "freeze" && m == old) {
				tell(m)
			}
		}
		if event == "freeze" {
			load.some(20)
			old.gate.Unlock() // it answers what waits in its sockets before it learns of anything
			load.some(5)
			oldLease.end(errors.New("lost"))
			tell(old)
		}
	}
	stop()
	wg.Wait()
	t.Logf("%v; %d answered, %d unknown, %d reads", events, load.answered.Load(), load.unknown.Load(), load.reads.Load())
	for id, n := range store.executed {
		if n != 1 {
			t.Errorf("%s executed %d times", id, n)
		}
	}
	if load.reads.Load() == 0 || load.answered.Load() == 0 || load.unknown.Load() > load.answered.Load()/2 {
		t.Error("the load did not run")
	}
}

// chaosLoad sends requests and checks each answer.
type chaosLoad struct {
	t                               *testing.T
	store                           *fencedStore
	ids                             atomic.Int64
	acked                           atomic.Int64
	answered, unknown, reads, total atomic.Int64
}

// some waits until n more requests have been answered.
func (c *chaosLoad) some(n int64) {
	until := c.total.Load() + n
	eventually(c.t, func() bool { return c.total.Load() >= until })
}

func (c *chaosLoad) run(ctx context.Context, r *Router) {
	for ctx.Err() == nil {
		switch rand.IntN(3) {
		case 0:
			c.read(r)
		case 1:
			c.write(r, true)
		default:
			c.write(r, false)
		}
		c.total.Add(1)
	}
}

// serve is r.ServeHTTP; false if the answer was broken off.
func serve(r *Router, rec *httptest.ResponseRecorder, req *http.Request) (whole bool) {
	defer func() {
		if v := recover(); v != nil && v != http.ErrAbortHandler {
			panic(v)
		}
	}()
	r.ServeHTTP(rec, req)
	return true
}

func (c *chaosLoad) read(r *Router) {
	before := c.acked.Load()
	rec := httptest.NewRecorder()
	if !serve(r, rec, httptest.NewRequest("GET", "/", nil)) {
		c.t.Error("read broken off")
	}
	v, _ := strconv.ParseInt(rec.Body.String(), 10, 64)
	switch {
	case rec.Code != 200:
		c.t.Errorf("read: %d %s", rec.Code, rec.Body)
	case v < before:
		c.t.Errorf("stale read: %d after %d was acknowledged", v, before)
	}
	c.reads.Add(1)
}

func (c *chaosLoad) write(r *Router, keyed bool) {
	id := fmt.Sprint(keyed, c.ids.Add(1))
	body := id
	if rand.IntN(4) == 0 {
		body += strings.Repeat(" ", 50_000) // streamed
	}
	req := httptest.NewRequest("POST", "/", strings.NewReader(body))
	if keyed {
		req.Header.Set("X-Keyed", "1")
	}
	rec := httptest.NewRecorder()
	if !serve(r, rec, req) {
		c.t.Error("write broken off")
	}
	c.store.mu.Lock()
	executed := c.store.executed[body]
	c.store.mu.Unlock()
	var f failure
	switch {
	case rec.Code == 200:
		if executed != 1 {
			c.t.Errorf("%s acknowledged, executed %d times", id, executed)
		}
		v, _ := strconv.ParseInt(rec.Body.String(), 10, 64)
		for old := c.acked.Load(); old < v && !c.acked.CompareAndSwap(old, v); old = c.acked.Load() {
		}
		c.answered.Add(1)
	case json.Unmarshal(rec.Body.Bytes(), &f) != nil || rec.Code != 503 || f.Processed != "unknown" || keyed:
		c.t.Errorf("%s: %d %s", id, rec.Code, rec.Body)
	default:
		c.unknown.Add(1)
	}
}
