package server

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
	"github.com/locum-ha/locum/physical/memory"
	"github.com/locum-ha/locum/physical/physicaltest"
)

// counted counts the reads that reach the store, and can hold them and commits up.
type counted struct {
	physical.Backend
	mu     sync.Mutex
	gets   int
	held   chan struct{} // a Get that has read waits for it, if it is not nil
	commit func(error) error
}

func (c *counted) Get(ctx context.Context, key string) (*physical.Entry, error) {
	e, err := c.Backend.Get(ctx, key)
	c.mu.Lock()
	c.gets++
	held := c.held
	c.mu.Unlock()
	if held != nil {
		<-held
	}
	return e, err
}

func (c *counted) Commit(ctx context.Context, fence *physical.Fence, ops ...physical.Op) error {
	err := c.Backend.Commit(ctx, fence, ops...)
	if c.commit != nil {
		err = c.commit(err)
	}
	return err
}

// The store's contract holds with the cache before it, switched on all the time as during a term: every promise of
// physical.Backend that one node's way to a store has to keep.
func TestEntryCacheConformance(t *testing.T) {
	physicaltest.Backend(t, func(testing.TB) physicaltest.Store {
		store := memory.NewStore()
		return physicaltest.Store{Nodes: 1, Open: func(int) (physicaltest.Handle, error) {
			c := newEntryCache(store.Open())
			c.begin()
			return c, nil
		}}
	})
}

func cacheOver(t *testing.T) (*entryCache, *counted) {
	t.Helper()
	store := &counted{Backend: memory.NewStore().Open()}
	c := newEntryCache(store)
	c.begin()
	return c, store
}

func wantRead(t *testing.T, c *entryCache, key, want string) {
	t.Helper()
	e, err := c.Get(t.Context(), key)
	if err != nil || string(e.Value) != want {
		t.Errorf("%s holds %+v, %v, want %q", key, e, err, want)
	}
}

// What was written or read in this term is not asked for again; between terms everything is.
func TestEntryCacheAnswers(t *testing.T) {
	c, store := cacheOver(t)
	if err := c.Commit(t.Context(), nil, physical.Put("a", []byte("1"))); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		wantRead(t, c, "a", "1")
	}
	if store.gets != 0 {
		t.Errorf("%d reads of what was written here reached the store", store.gets)
	}
	c.end()
	for range 3 {
		wantRead(t, c, "a", "1")
	}
	if store.gets != 3 {
		t.Errorf("%d of 3 reads on a standby reached the store", store.gets)
	}
	c.begin()
	for range 3 {
		wantRead(t, c, "a", "1")
	}
	if store.gets != 4 {
		t.Errorf("%d reads reached the store, want one more in the new term", store.gets)
	}
	if err := c.Commit(t.Context(), nil, physical.Delete("a")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), "a"); !errors.Is(err, physical.ErrNotFound) {
		t.Errorf("a deleted entry: %v", err)
	}
}

// A read that a write has overtaken is not kept.
func TestEntryCacheOvertaken(t *testing.T) {
	c, store := cacheOver(t)
	if err := store.Backend.Commit(t.Context(), nil, physical.Put("a", []byte("old"))); err != nil {
		t.Fatal(err)
	}
	store.held = make(chan struct{})
	read := make(chan string, 1)
	go func() {
		e, err := c.Get(context.Background(), "a")
		if err != nil {
			read <- err.Error()
			return
		}
		read <- string(e.Value)
	}()
	deadline := time.After(10 * time.Second)
	for begun := false; !begun; {
		store.mu.Lock()
		begun = store.gets == 1
		store.mu.Unlock()
		select {
		case <-deadline:
			t.Fatal("the read never began")
		default:
		}
	}
	if err := c.Commit(t.Context(), nil, physical.Put("a", []byte("new"))); err != nil {
		t.Fatal(err)
	}
	close(store.held)
	if got := <-read; got != "old" {
		t.Errorf("the read that began before gave %q", got)
	}
	wantRead(t, c, "a", "new")
}

// A write whose outcome is unknown may come at any time: its keys are asked for from then on. One that was fenced ends it all.
func TestEntryCacheUnknown(t *testing.T) {
	c, store := cacheOver(t)
	if err := c.Commit(t.Context(), nil, physical.Put("a", []byte("1")), physical.Put("b", []byte("1"))); err != nil {
		t.Fatal(err)
	}
	store.commit = func(error) error { return physical.ErrUnknown }
	if err := c.Commit(t.Context(), nil, physical.Put("a", []byte("2"))); !errors.Is(err, physical.ErrUnknown) {
		t.Fatal(err)
	}
	for i := range 3 {
		value := fmt.Sprint("late ", i)
		if err := store.Backend.Commit(t.Context(), nil, physical.Put("a", []byte(value))); err != nil {
			t.Fatal(err)
		}
		wantRead(t, c, "a", value)
	}
	store.commit = func(error) error { return physical.ErrFenced }
	if err := c.Commit(t.Context(), nil, physical.Put("c", nil)); !errors.Is(err, physical.ErrFenced) {
		t.Fatal(err)
	}
	if err := store.Backend.Commit(t.Context(), nil, physical.Put("b", []byte("the next leader's"))); err != nil {
		t.Fatal(err)
	}
	wantRead(t, c, "b", "the next leader's")
}

// P12: it stays within its bytes, and what it answers stays right, however much is written and read at once.
func TestEntryCacheBounded(t *testing.T) {
	c, _ := cacheOver(t)
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(w)))
			for i := range 150 {
				key := fmt.Sprintf("k/%d/%d", w, random.IntN(40))
				value := make([]byte, 1<<20)
				value[0] = byte(i)
				if err := c.Commit(context.Background(), nil, physical.Put(key, value)); err != nil {
					t.Error(err)
				}
				if e, err := c.Get(context.Background(), key); err != nil || e.Value[0] != byte(i) {
					t.Errorf("%s: %v", key, err)
				}
			}
		})
	}
	all.Wait()
	if c.bytes > cacheBytes || c.bytes <= 0 {
		t.Errorf("it holds %d bytes", c.bytes)
	}
}
