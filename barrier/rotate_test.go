package barrier

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
)

func status(t testing.TB, b *Barrier) KeyStatus {
	t.Helper()
	st, err := b.KeyStatus()
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func termOf(t testing.TB, s *spy, key string) uint32 {
	t.Helper()
	return binary.BigEndian.Uint32(s.raw(t, key)[termAt:])
}

func TestRotate(t *testing.T) {
	s := newSpy(t)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	b := newBarrier(t, s, Options{Now: func() time.Time { return now }})
	v := b.View(nil)
	mustPut(t, v, "old", "1")
	now = now.Add(time.Hour)
	if err := b.Rotate(t.Context(), nil, physical.Put("core/slot", []byte("answer"))); err != nil {
		t.Fatal(err)
	}
	if st := status(t, b); st != (KeyStatus{Term: 2, InstallTime: now}) {
		t.Errorf("%+v", st)
	}
	mustPut(t, v, "new", "2")
	mustGet(t, v, "old", "1")
	mustGet(t, v, "new", "2")
	mustGet(t, v, "core/slot", "answer")
	if termOf(t, s, "old") != 1 || termOf(t, s, "new") != 2 {
		t.Error("entries have other terms")
	}
	if status(t, b).Encryptions != 1 {
		t.Errorf("%+v", status(t, b))
	}
	err := b.Rotate(t.Context(), nil, physical.RequireAbsent("core/slot"))
	if !errors.Is(err, physical.ErrConflict) || status(t, b).Term != 2 {
		t.Errorf("an extra op's condition: %v", err)
	}
}

// Standbys follow a rotation: whoever meets an unknown term reads the keyring again, once for all who wait.
func TestStandbyFollows(t *testing.T) {
	s := newSpy(t)
	active := newBarrier(t, s, Options{})
	standby := newBarrier(t, s, Options{})
	for range 3 {
		if err := active.Rotate(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	mustPut(t, active.View(nil), "a", "new")
	s.keyringReads.Store(0)
	const readers = 50
	var wg, reading sync.WaitGroup
	reading.Add(readers)
	s.mu.Lock()
	s.onGet = func(key string) {
		if key == KeyKeyring {
			return
		}
		reading.Done()
		reading.Wait() // all have the entry before any reloads
	}
	s.mu.Unlock()
	v := standby.View(nil)
	for range readers {
		wg.Go(func() {
			if e, err := v.Get(t.Context(), "a"); err != nil || string(e.Value) != "new" {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	// Readers that asked before the first load began share it; one that asked while it ran may need a second.
	if n := s.keyringReads.Load(); n < 1 || n > 2 {
		t.Errorf("the keyring was read %d times", n)
	}
	if status(t, standby).Term != 4 {
		t.Errorf("%+v", status(t, standby))
	}
}

func TestTwoNodesRotate(t *testing.T) {
	s := newSpy(t)
	b1, b2 := newBarrier(t, s, Options{}), newBarrier(t, s, Options{})
	var wg sync.WaitGroup
	for _, b := range []*Barrier{b1, b2} {
		wg.Go(func() {
			for i := range 20 {
				if err := b.Rotate(t.Context(), nil); err != nil && !errors.Is(err, physical.ErrConflict) {
					t.Error(err)
				}
				mustPut(t, b.View(nil), fmt.Sprintf("by %p/%d", b, i), "x")
			}
		})
	}
	wg.Wait()
	for i := range 20 { // each can read all that the other wrote: no key was lost
		mustGet(t, b1.View(nil), fmt.Sprintf("by %p/%d", b2, i), "x")
		mustGet(t, b2.View(nil), fmt.Sprintf("by %p/%d", b1, i), "x")
	}
}

// No key seals more than its safe number of entries, however often nodes take over or restart.
func TestAutomaticRotation(t *testing.T) {
	s := newSpy(t)
	const maxUses, block = 100, 10
	automatic := 0
	o := Options{MaxUses: maxUses, Block: block, Observer: Observer{Rotated: func(_ uint32, auto bool) {
		if auto {
			automatic++
		}
	}}}
	uses := map[uint32]int{}
	writes := 0
	for leadership := range 10 {
		b := newBarrier(t, s, o)
		v := b.View(nil)
		for range 7 * (leadership + 1) {
			before := s.keyringWrites.Load()
			if err := v.Commit(t.Context(), physical.Put("a", nil), physical.Put("b", nil)); err != nil {
				t.Fatal(err)
			}
			if s.keyringWrites.Load() > before+1 {
				t.Error("more than one keyring write for a commit")
			}
			uses[termOf(t, s, "a")] += 2
			writes++
			if st := status(t, b); st.Encryptions > maxUses {
				t.Fatalf("%+v", st)
			}
		}
	}
	for term, n := range uses {
		if n > maxUses {
			t.Errorf("term %d sealed %d entries", term, n)
		}
	}
	if automatic < 2*writes/maxUses || len(uses) != automatic+1 {
		t.Errorf("%d rotations, %d terms in use, %d writes", automatic, len(uses), writes)
	}
	if err := newBarrier(t, s, o).View(nil).Commit(t.Context(), manyPuts(3*block)...); err != nil {
		t.Errorf("a commit of more than a block: %v", err)
	}
}

func manyPuts(n int) (ops []physical.Op) {
	for i := range n {
		ops = append(ops, physical.Put(fmt.Sprintf("k%d", i), nil))
	}
	return ops
}

// What the store has for reserved is never below what was used, also under concurrency and with outcomes unknown.
func TestReservationHolds(t *testing.T) {
	s := newSpy(t)
	b := newBarrier(t, s, Options{Block: 16, MaxUses: 64})
	var calls int
	var mu sync.Mutex
	s.setCommit(func(ops []physical.Op, commit func() error) error {
		mu.Lock()
		defer mu.Unlock()
		if ops[0].Key == KeyKeyring {
			calls++
			switch calls % 4 {
			case 1: // carried out, no answer
				_ = commit()
				return physical.ErrUnknown
			case 2: // lost, no answer
				return physical.ErrUnknown
			}
		}
		return commit()
	})
	v := b.View(nil)
	var wg sync.WaitGroup
	var sealed sync.Map
	for w := range 8 {
		wg.Go(func() {
			for i := range 50 {
				key := fmt.Sprintf("w%d/%d", w, i)
				for {
					err := v.Commit(t.Context(), physical.Put(key, nil))
					if errors.Is(err, physical.ErrUnavailable) && !errors.Is(err, physical.ErrUnknown) {
						continue // certainly not written: safe to repeat
					}
					if err != nil {
						t.Error(err)
					}
					break
				}
				sealed.Store(key, termOf(t, s, key))
			}
		})
	}
	wg.Wait()
	uses := map[uint32]uint64{}
	sealed.Range(func(_, term any) bool { uses[term.(uint32)]++; return true })
	s.setCommit(nil)
	ring := newBarrier(t, s, Options{}).state.Load().ring
	for _, k := range ring.Keys {
		if uses[k.Term] > k.Encryptions || k.Encryptions > 64 {
			t.Errorf("term %d: %d uses, %d reserved", k.Term, uses[k.Term], k.Encryptions)
		}
	}
}

// An unclear outcome of a rotation is told, and repeating it is safe.
func TestRotateUnknown(t *testing.T) {
	s := newSpy(t)
	b := newBarrier(t, s, Options{})
	mustPut(t, b.View(nil), "a", "1")
	s.setCommit(func(_ []physical.Op, commit func() error) error {
		_ = commit()
		return physical.ErrUnknown
	})
	if err := b.Rotate(t.Context(), nil); !errors.Is(err, physical.ErrUnknown) {
		t.Fatal(err)
	}
	s.setCommit(nil)
	mustPut(t, b.View(nil), "a", "2") // under the key that is known to be stored
	if termOf(t, s, "a") != 1 {
		t.Error("sealed with a key that may not be stored")
	}
	if err := b.Rotate(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if st := status(t, b); st.Term != 3 {
		t.Errorf("%+v", st)
	}
	mustGet(t, b.View(nil), "a", "2")
}

// After the contents were replaced by a snapshot's, the same key term may belong to another key.
func TestSnapshotRestored(t *testing.T) {
	s := newSpy(t)
	b1, b2 := newBarrier(t, s, Options{}), newBarrier(t, s, Options{})
	snapshot := s.raw(t, KeyKeyring)
	if err := b1.Rotate(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	mustPut(t, b1.View(nil), "a", "lost")
	mustGet(t, b2.View(nil), "a", "lost")
	s.put(t, KeyKeyring, snapshot)
	if err := b1.ReloadKeyring(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b1.Rotate(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	mustPut(t, b1.View(nil), "a", "new")
	mustGet(t, b2.View(nil), "a", "new")
}

// Sealing waits for no store, and what is under way afterwards does not unseal it.
func TestSealDuringRotation(t *testing.T) {
	s := newSpy(t)
	b := newBarrier(t, s, Options{})
	entered, leave := make(chan struct{}), make(chan struct{})
	s.setCommit(func(_ []physical.Op, commit func() error) error {
		close(entered)
		<-leave
		return commit()
	})
	done := make(chan error, 1)
	go func() { done <- b.Rotate(t.Context(), nil) }()
	<-entered
	b.Seal()
	if !b.Sealed() {
		t.Error("not sealed")
	}
	close(leave)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !b.Sealed() {
		t.Error("unsealed again")
	}
	s.setCommit(nil)
	if err := b.Unseal(t.Context(), testRoot); err != nil {
		t.Fatal(err)
	}
	if status(t, b).Term != 2 {
		t.Error("the keyring was stored wiped or not at all")
	}
	mustPut(t, b.View(nil), "a", "1")
}

func TestConcurrentSealing(t *testing.T) {
	s := newSpy(t)
	b := newBarrier(t, s, Options{Block: 8})
	v := b.View(nil)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			key := fmt.Sprintf("w%d", w)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				value := fmt.Sprint(i)
				if err := v.Commit(t.Context(), physical.Put(key, []byte(value))); err == nil {
					if e, err := v.Get(t.Context(), key); err == nil && string(e.Value) != value {
						t.Errorf("%s, want %s", e.Value, value)
					} else if err != nil && !errors.Is(err, ErrSealed) {
						t.Error(err)
					}
				} else if !errors.Is(err, ErrSealed) {
					t.Error(err)
				}
				_, _ = b.DeriveKey("x")
			}
		})
	}
	for range 100 {
		_ = b.Rotate(t.Context(), nil)
		b.Seal()
		if err := b.Unseal(t.Context(), testRoot); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}
