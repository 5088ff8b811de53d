package kv

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
)

// P6: a write that is repeated after an unclear outcome is carried out once, and every attempt gets the same answer.
func TestRepeat(t *testing.T) {
	s, v := newStore(t)
	ctx := t.Context()
	first := Request{ID: "id-1", Slot: "n/1/1"}
	again := Request{ID: "id-1", Slot: "n/1/1", Repeat: true}
	m1, err := s.Write(ctx, "a", Object(`{"v":1}`), WriteOptions{CAS: ptr(0), Request: first})
	must(t, err)
	m2, err := s.Write(ctx, "a", Object(`{"v":1}`), WriteOptions{CAS: ptr(0), Request: again})
	must(t, err)
	if m1.Version != 1 || m2.Version != 1 || !m1.CreatedTime.Equal(m2.CreatedTime) {
		t.Errorf("%+v, %+v", m1, m2)
	}
	next := New(v) // the next active node knows it by the slot alone
	if m3, err := next.Write(ctx, "a", Object(`{"v":1}`), WriteOptions{Request: again}); err != nil || m3.Version != 1 {
		t.Errorf("%+v, %v", m3, err)
	}
	// The first attempt comes to the lock only now, after its own repeat.
	if m4, err := next.Write(ctx, "a", Object(`{"v":1}`), WriteOptions{Request: first}); err != nil || m4.Version != 1 {
		t.Errorf("%+v, %v", m4, err)
	}
	// The slot's next request is another.
	if m5, err := next.Write(ctx, "a", Object(`{"v":2}`), WriteOptions{Request: Request{ID: "id-2", Slot: "n/1/1", Repeat: true}}); err != nil || m5.Version != 2 {
		t.Errorf("%+v, %v", m5, err)
	}
	if got := keys(t, v, "core/"); len(got) != 1 {
		t.Error("slots pile up:", got)
	}
}

// Every mutating operation keeps its request's slot in its own commit.
func TestEveryWriteKeepsItsSlot(t *testing.T) {
	s, v := newStore(t)
	ctx := t.Context()
	req := func(n int) Request { return Request{ID: fmt.Sprint("id-", n), Slot: "n/1/1"} }
	writes := map[string]func(Request) error{
		"1 write": func(r Request) error {
			_, err := s.Write(ctx, "a", Object(`{}`), WriteOptions{Request: r})
			return err
		},
		"2 patch": func(r Request) error {
			_, err := s.Patch(ctx, "a", Object(`{"x":1}`), WriteOptions{Request: r})
			return err
		},
		"3 delete latest":   func(r Request) error { return s.DeleteLatest(ctx, "a", r) },
		"4 delete":          func(r Request) error { return s.Delete(ctx, "a", []uint64{1}, r) },
		"5 undelete":        func(r Request) error { return s.Undelete(ctx, "a", []uint64{1}, r) },
		"6 destroy":         func(r Request) error { return s.Destroy(ctx, "a", []uint64{1}, r) },
		"7 metadata":        func(r Request) error { return s.UpdateMetadata(ctx, "a", MetadataUpdate{MaxVersions: ptr(3)}, r) },
		"8 patch metadata":  func(r Request) error { return s.PatchMetadata(ctx, "a", MetadataPatch{MaxVersions: ptr(4)}, r) },
		"9 delete metadata": func(r Request) error { return s.DeleteMetadata(ctx, "a", r) },
		"a config":          func(r Request) error { return s.UpdateConfig(ctx, ConfigUpdate{MaxVersions: ptr(2)}, r) },
	}
	n := 0
	for _, name := range []string{"1 write", "2 patch", "3 delete latest", "4 delete", "5 undelete", "6 destroy", "7 metadata", "8 patch metadata", "9 delete metadata", "a config"} {
		n++
		commits := 0
		v.setCommit(func(ops []physical.Op, commit func() error) error {
			commits++
			if last := ops[len(ops)-1]; last.Key != "core/request/n/1/1" || !strings.Contains(string(last.Value), fmt.Sprintf(`"id":"id-%d"`, n)) {
				t.Errorf("%s: the slot is not part of the commit: %v", name, last)
			}
			return commit()
		})
		must(t, writes[name](req(n)))
		repeat := req(n)
		repeat.Repeat = true
		must(t, writes[name](repeat))
		if commits != 1 {
			t.Errorf("%s: %d commits", name, commits)
		}
	}
}

// unclear makes commits go wrong in every way that a store can: lost, carried out without an answer, or carried out
// late, after whatever came in between.
type unclear struct {
	mu   sync.Mutex
	rng  *rand.Rand
	late []func() error
}

func (u *unclear) commit(_ []physical.Op, commit func() error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.late) > 0 && u.rng.IntN(2) == 0 {
		_ = u.late[0]()
		u.late = u.late[1:]
	}
	switch u.rng.IntN(6) {
	case 0:
		return physical.ErrUnknown
	case 1:
		_ = commit()
		return physical.ErrUnknown
	case 2:
		u.late = append(u.late, commit)
		return physical.ErrUnknown
	}
	return commit()
}

// P6: whatever becomes of single attempts, each request that got an answer made exactly one version, the one that the
// answer names.
func TestExactlyOnce(t *testing.T) {
	for seed := range uint64(30) {
		s, v := newStore(t)
		must(t, s.UpdateMetadata(t.Context(), "p0", MetadataUpdate{MaxVersions: ptr(1000)}, Request{}))
		must(t, s.UpdateMetadata(t.Context(), "p1", MetadataUpdate{MaxVersions: ptr(1000)}, Request{}))
		u := &unclear{rng: rand.New(rand.NewPCG(seed, 7))}
		v.setCommit(u.commit)
		const clients, requests = 4, 20
		answers := make([]map[string]uint64, clients)
		var wg sync.WaitGroup
		for c := range clients {
			answers[c] = map[string]uint64{}
			wg.Go(func() {
				slot := 0
				for i := range requests {
					id := fmt.Sprintf("c%d-%d", c, i)
					req := Request{ID: id, Slot: fmt.Sprintf("n%d/1/%d", c, slot)}
					for {
						m, err := s.Write(t.Context(), fmt.Sprintf("p%d", i%2), Object(fmt.Sprintf(`{"id":%q}`, id)), WriteOptions{Request: req})
						if err == nil {
							answers[c][id] = m.Version
							break
						}
						if !errors.Is(err, physical.ErrUnknown) {
							t.Errorf("%s: %v", id, err)
							break
						}
						req.Repeat = true
						slot = i + 1 // burnt
					}
				}
			})
		}
		wg.Wait()
		v.setCommit(nil)
		for _, commit := range u.late {
			_ = commit()
		}
		made := map[string]int{}
		for _, path := range []string{"p0", "p1"} {
			m, err := s.ReadMetadata(t.Context(), path)
			must(t, err)
			for _, mv := range m.Versions {
				id := strings.Split(read(t, s, path, mv.Version), `"`)[3]
				made[id]++
				var c, i int
				_, err := fmt.Sscanf(id, "c%d-%d", &c, &i)
				must(t, err)
				if answers[c][id] != mv.Version {
					t.Errorf("seed %d: %s was answered %d and is %d", seed, id, answers[c][id], mv.Version)
				}
			}
		}
		if len(made) != clients*requests {
			t.Errorf("seed %d: %d of %d writes are there", seed, len(made), clients*requests)
		}
		for id, n := range made {
			if n != 1 {
				t.Errorf("seed %d: %s was carried out %d times", seed, id, n)
			}
		}
	}
}

// P1, P3: what was acknowledged is read in the next term, and the last one writes nothing any more.
func TestNextTerm(t *testing.T) {
	v := newView(t)
	ctx := t.Context()
	f1 := physical.Fence{Lineage: "l", Term: 1, Nonce: [16]byte{1}}
	f2 := physical.Fence{Lineage: "l", Term: 2, Nonce: [16]byte{2}}
	must(t, v.store.RaiseFence(ctx, physical.Fence{}, f1))
	old := New(&plainView{store: v.store, fence: &f1})
	write(t, old, "a", `{"v":1}`)
	must(t, v.store.RaiseFence(ctx, f1, f2))
	next := New(&plainView{store: v.store, fence: &f2})
	if got := read(t, next, "a", 0); got != `{"v":1}` {
		t.Error(got)
	}
	if _, err := old.Write(ctx, "a", Object(`{"v":2}`), WriteOptions{}); !errors.Is(err, physical.ErrFenced) {
		t.Error(err)
	}
	if err := old.DeleteMetadata(ctx, "a", Request{}); !errors.Is(err, physical.ErrFenced) {
		t.Error(err)
	}
	if m := write(t, next, "a", `{"v":3}`); m.Version != 2 {
		t.Errorf("%+v", m)
	}
}

// The settings for all paths are not remembered once one of their writes may still land.
func TestConfigAfterUnknown(t *testing.T) {
	s, v := newStore(t)
	ctx := t.Context()
	var late func() error
	v.setCommit(func(_ []physical.Op, commit func() error) error {
		late = commit
		return physical.ErrUnknown
	})
	if err := s.UpdateConfig(ctx, ConfigUpdate{CASRequired: ptr(true)}, Request{}); !errors.Is(err, physical.ErrUnknown) {
		t.Fatal(err)
	}
	v.setCommit(nil)
	if c, err := s.Config(ctx); err != nil || c.CASRequired {
		t.Error(c, err)
	}
	must(t, late())
	if c, err := s.Config(ctx); err != nil || !c.CASRequired {
		t.Error(c, err)
	}
}

func TestConcurrentWriters(t *testing.T) {
	s, _ := newStore(t)
	ctx := t.Context()
	must(t, s.UpdateMetadata(ctx, "a", MetadataUpdate{MaxVersions: ptr(1000)}, Request{}))
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 16 {
		wg.Go(func() {
			for range 20 {
				write(t, s, "a", `{}`)
			}
			_, err := s.Write(ctx, "cas", Object(`{}`), WriteOptions{CAS: ptr(0)})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errors.Is(err, ErrCASMismatch) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	m, err := s.ReadMetadata(ctx, "a")
	must(t, err)
	if m.CurrentVersion != 320 || len(m.Versions) != 320 || won != 1 {
		t.Errorf("%d versions, %d won", m.CurrentVersion, won)
	}
}

// A reader sees a version's own data or none, while the path is written, deleted and made again.
func TestReadersSeeWholeVersions(t *testing.T) {
	s, _ := newStore(t)
	ctx := t.Context()
	must(t, s.UpdateConfig(ctx, ConfigUpdate{MaxVersions: ptr(2)}, Request{}))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				secret, err := s.Read(ctx, "a", 0)
				if errors.Is(err, ErrNotFound) || errors.Is(err, ErrDeleted) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				// The writer says which version it makes, in which life of the path.
				var life, version uint64
				if _, err := fmt.Sscanf(string(secret.Data), `{"v":"%d/%d"}`, &life, &version); err != nil || version != secret.Metadata.Version {
					t.Errorf("%s is shown as version %d", secret.Data, secret.Metadata.Version)
				}
			}
		})
	}
	for life := range 300 {
		for version := 1; version <= 4; version++ {
			write(t, s, "a", fmt.Sprintf(`{"v":"%d/%d"}`, life, version))
		}
		must(t, s.Destroy(ctx, "a", []uint64{4}, Request{}))
		must(t, s.DeleteMetadata(ctx, "a", Request{}))
	}
	close(stop)
	wg.Wait()
}

// P12: who waits for another's write waits no longer than its own context, and learns that nothing was written.
func TestWaitIsBounded(t *testing.T) {
	s, v := newStore(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	v.setCommit(func(_ []physical.Op, commit func() error) error {
		close(entered)
		<-leave
		return commit()
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		write(t, s, "a", `{}`)
	}()
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := s.Write(ctx, "a", Object(`{}`), WriteOptions{})
	if !errors.Is(err, physical.ErrUnavailable) || errors.Is(err, physical.ErrUnknown) {
		t.Error(err)
	}
	if got := read(t, s, "a", 0); got != ErrNotFound.Error() {
		t.Error("readers do not wait", got)
	}
	close(leave)
	<-done
}

// A write is one commit, and a read is one read, or two where the data are long.
func TestCosts(t *testing.T) {
	s, v := newStore(t)
	commits := 0
	v.setCommit(func(_ []physical.Op, commit func() error) error {
		commits++
		return commit()
	})
	for range 15 {
		write(t, s, "a", `{}`)
	}
	if commits != 15 {
		t.Errorf("%d commits", commits)
	}
	v.gets = 0
	read(t, s, "a", 0)
	if v.gets != 1 {
		t.Errorf("%d reads", v.gets)
	}
	write(t, s, "long", `{"v":"`+strings.Repeat("x", inlineMost)+`"}`)
	v.gets = 0
	read(t, s, "long", 0)
	if v.gets != 2 {
		t.Errorf("%d reads", v.gets)
	}
}

// remote has s take its store for one that is a round trip away, and guess from the first write on.
func remote(s *Store) *Store {
	s.remote = true
	s.fresh.Store(guessAfter)
	return s
}

// A path that is taken for new without a look is found out by the commit's own condition.
func TestGuess(t *testing.T) {
	s, v := newStore(t)
	ctx := t.Context()
	write(t, s, "old", `{"v":1}`)
	remote(s)
	v.gets = 0
	write(t, s, "new", `{}`)
	if v.gets != 0 {
		t.Errorf("%d reads", v.gets)
	}
	if m := write(t, s, "old", `{"v":2}`); m.Version != 2 || s.fresh.Load() != 0 {
		t.Errorf("%+v, %d", m, s.fresh.Load())
	}
	v.gets = 0
	for i := range 2 * guessAfter {
		write(t, s, fmt.Sprint("new", i), `{}`)
	}
	if v.gets != guessAfter {
		t.Errorf("%d reads", v.gets)
	}
	if _, err := s.Write(ctx, "old", Object(`{}`), WriteOptions{CAS: ptr(0)}); !errors.Is(err, ErrCASMismatch) {
		t.Error(err)
	}
	if m, err := remote(s).Write(ctx, "old", Object(`{}`), WriteOptions{CAS: ptr(2)}); err != nil || m.Version != 3 {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := remote(s).Write(ctx, "none", Object(`{}`), WriteOptions{CAS: ptr(1)}); !errors.Is(err, ErrCASMismatch) {
		t.Error(err)
	}
}

// P6: a write of a path that was taken for new is carried out once, whatever becomes of its attempts.
func TestGuessExactlyOnce(t *testing.T) {
	for seed := range uint64(30) {
		s, v := newStore(t)
		u := &unclear{rng: rand.New(rand.NewPCG(seed, 7))}
		v.setCommit(u.commit)
		for i := range 40 {
			req := Request{ID: fmt.Sprint("id-", i), Slot: fmt.Sprint("n/1/", i)}
			for {
				_, err := remote(s).Write(t.Context(), fmt.Sprint("p", i), Object(`{}`), WriteOptions{Request: req})
				if err == nil {
					break
				}
				if !errors.Is(err, physical.ErrUnknown) {
					t.Fatal(err)
				}
				req.Repeat = true
			}
		}
		v.setCommit(nil)
		for _, commit := range u.late {
			_ = commit()
		}
		for i := range 40 {
			m, err := s.ReadMetadata(t.Context(), fmt.Sprint("p", i))
			if err != nil || m.CurrentVersion != 1 {
				t.Errorf("seed %d: %+v, %v", seed, m, err)
			}
		}
	}
}
