package grouped_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locum-ha/locum/internal/grouped"
	"github.com/locum-ha/locum/physical"
)

// Commits that wait go together, but not those with another fence or a key in common; each gets its own result; a caller that
// goes while its commit waits has not written, and one whose commit was sent does not know.
func TestGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		life, end := context.WithCancel(t.Context())
		calls, proceed := make(chan []string, 10), make(chan struct{})
		c := grouped.New(life, grouped.Limits{Flights: 1, Commits: 4, Ops: 100, Bytes: 1000}, func(ctx context.Context, f physical.Fence, commits [][]physical.Op) []error {
			call := []string{f.Lineage}
			results := make([]error, len(commits))
			for i, ops := range commits {
				call = append(call, ops[0].Key)
				if ops[0].Key == "bad" {
					results[i] = physical.ErrConflict
				}
			}
			calls <- call
			select {
			case <-proceed:
			case <-ctx.Done():
				for i := range results {
					results[i] = physical.ErrUnknown
				}
			}
			return results
		})
		results := map[string]chan error{}
		commit := func(ctx context.Context, lineage, key string) {
			done := make(chan error, 1)
			results[key] = done
			go func() { done <- c.Commit(ctx, physical.Fence{Lineage: lineage}, []physical.Op{physical.Put(key, nil)}) }()
			synctest.Wait()
		}
		gone, leave := context.WithCancel(t.Context())
		commit(t.Context(), "l", "first")
		commit(t.Context(), "l", "a")
		commit(t.Context(), "l", "bad")
		commit(gone, "l", "taken back")
		commit(t.Context(), "m", "other fence")
		commit(t.Context(), "m", "a")
		leave()
		if err := <-results["taken back"]; !errors.Is(err, context.Canceled) || errors.Is(err, physical.ErrUnknown) {
			t.Errorf("a commit that was not sent: %v", err)
		}
		for _, want := range []string{"[l first]", "[l a bad]", "[m other fence a]"} {
			if got := fmt.Sprint(<-calls); got != want {
				t.Errorf("a call with %s, want %s", got, want)
			}
			proceed <- struct{}{}
			synctest.Wait()
		}
		for key, want := range map[string]error{"first": nil, "bad": physical.ErrConflict, "other fence": nil} {
			if err := <-results[key]; !errors.Is(err, want) {
				t.Errorf("%s: got %v, want %v", key, err, want)
			}
		}
		sent, cancel := context.WithCancel(t.Context())
		commit(sent, "l", "sent")
		<-calls
		cancel()
		if err := <-results["sent"]; !errors.Is(err, physical.ErrUnknown) {
			t.Errorf("a commit that was sent: %v", err)
		}
		end()
		c.Wait()
		if err := c.Commit(t.Context(), physical.Fence{}, nil); !errors.Is(err, physical.ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// A flight beside another begins when as many commits wait as that one carries, or when they have waited long enough; and what waits is
// bounded (P12).
func TestFlightsAreWorthwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		life, end := context.WithCancel(t.Context())
		sizes, land := make(chan int, 10), make(chan struct{})
		c := grouped.New(life, grouped.Limits{Flights: 2, Commits: 10, Bytes: 1 << 30}, func(_ context.Context, _ physical.Fence, commits [][]physical.Op) []error {
			sizes <- len(commits)
			<-land
			return make([]error, len(commits))
		})
		var all sync.WaitGroup
		commit := func(n int) {
			for range n {
				all.Go(func() {
					if err := c.Commit(t.Context(), physical.Fence{}, []physical.Op{physical.Put(rand.Text(), nil)}); err != nil {
						t.Error(err)
					}
				})
				synctest.Wait()
			}
		}
		begun := func(want ...int) {
			t.Helper()
			synctest.Wait()
			for _, n := range want {
				if got := <-sizes; got != n {
					t.Errorf("a flight with %d commits, want %d", got, n)
				}
			}
			if len(sizes) > 0 {
				t.Errorf("one more flight, with %d commits", <-sizes)
			}
		}
		commit(1)
		begun(1)
		commit(1)
		begun(1)
		commit(3)
		land <- struct{}{}
		begun(3) // as many as wait, beside one
		commit(2)
		land <- struct{}{} // the one of one: two wait, and three are in flight
		begun()
		commit(1)
		begun(3)
		land <- struct{}{}
		begun()
		commit(2)
		begun()
		time.Sleep(5 * time.Millisecond)
		begun(2) // in the end
		big := []physical.Op{physical.Put("big", make([]byte, 40<<20))}
		all.Go(func() { _ = c.Commit(t.Context(), physical.Fence{}, big) })
		synctest.Wait()
		if err := c.Commit(t.Context(), physical.Fence{}, big); !errors.Is(err, physical.ErrUnavailable) || errors.Is(err, physical.ErrUnknown) {
			t.Errorf("where 40 MiB wait already: %v", err)
		}
		close(land)
		all.Wait()
		end()
		c.Wait()
	})
}
