package physicaltest

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical/memory"
)

// recorder takes the place of a *testing.T in a check that is expected to fail.
type recorder struct {
	mu      sync.Mutex
	failed  bool
	skipped bool
	log     []string
}

func (r *recorder) Helper() {}

func (r *recorder) note(failed, skipped bool, format string, args []any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = r.failed || failed
	r.skipped = r.skipped || skipped
	r.log = append(r.log, fmt.Sprintf(format, args...))
}

func (r *recorder) Logf(format string, args ...any)   { r.note(false, false, format, args) }
func (r *recorder) Errorf(format string, args ...any) { r.note(true, false, format, args) }
func (r *recorder) Fatalf(format string, args ...any) {
	r.note(true, false, format, args)
	runtime.Goexit()
}

func (r *recorder) Skipf(format string, args ...any) {
	r.note(false, true, format, args)
	runtime.Goexit()
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// playRecorded runs the check of that name on a store and returns what it said.
func playRecorded(t *testing.T, store Store, checks []check, name string) *recorder {
	t.Helper()
	r := &recorder{}
	i := slices.IndexFunc(checks, func(c check) bool { return c.name == name })
	if i < 0 {
		t.Errorf("there is no check %q", name)
		return r
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		play(r, store, checks[i])
	}()
	<-done
	return r
}

// mutant is a store that breaks one promise, and the checks that must notice.
type mutant struct {
	name   string
	checks []string
	// wrap breaks one handle of the store. n is the node's number.
	wrap func(h *memory.Handle, shared *sharedState, n int) Handle
	// store breaks what is not a handle's.
	store func(s *Store, m *memory.Store)
	// options make the memory store itself another one.
	options []memory.Option
}

// sharedState is what the handles of one broken store share.
type sharedState struct {
	mu     sync.Mutex
	values map[string]any
}

// shared returns the value of that name, made at first use.
func shared[T any](s *sharedState, name string, initial T) *T {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.values[name]; !ok {
		s.values[name] = &initial
	}
	return s.values[name].(*T)
}

// expectCaught plays each of the mutant's checks and expects it to fail, not to hang and not to be skipped.
// They mostly wait, so many are played at once.
func expectCaught(t *testing.T, mutants []mutant, checks []check) {
	t.Helper()
	type game struct {
		name   string
		played chan *recorder
	}
	var games []game
	slots := make(chan struct{}, 16)
	for _, m := range mutants {
		for _, name := range m.checks {
			g := game{name: m.name + "/" + name, played: make(chan *recorder, 1)}
			games = append(games, g)
			go func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				r := playRecorded(t, m.make(), checks, name)
				for again := 0; again < 2 && !r.Failed(); again++ { // what is a race to lose can be won on a busy machine
					r = playRecorded(t, m.make(), checks, name)
				}
				g.played <- r
			}()
		}
	}
	for _, g := range games {
		t.Run(g.name, func(t *testing.T) { noticed(t, <-g.played) })
	}
}

func noticed(t *testing.T, r *recorder) {
	t.Helper()
	switch {
	case r.skipped:
		t.Errorf("the check was skipped: %s", strings.Join(r.log, "\n"))
	case !r.Failed():
		t.Errorf("the check did not notice: %s", strings.Join(r.log, "\n"))
	default:
		t.Logf("noticed: %s", r.log[len(r.log)-1])
	}
}

func (m mutant) make() Store {
	inner := memory.NewStore(m.options...)
	state := &sharedState{values: make(map[string]any)}
	store := Store{
		Open: func(n int) (Handle, error) {
			if m.wrap == nil {
				return inner.Open(), nil
			}
			return m.wrap(inner.Open(), state, n), nil
		},
		Late:   400 * time.Millisecond,
		Settle: 500 * time.Millisecond,
	}
	if m.store != nil {
		m.store(&store, inner)
	}
	return store
}

// The harness of the mutants itself: with nothing broken, the checks pass.
func TestNoMutant(t *testing.T) {
	for _, c := range []struct {
		checks []check
		name   string
	}{{backendChecks, "AllOrNothing"}, {backendChecks, "FenceRace"}, {lockChecks, "RunsOut"}, {lockChecks, "NoOverlap"}} {
		if r := playRecorded(t, mutant{}.make(), c.checks, c.name); r.Failed() || r.skipped {
			t.Errorf("%s: %s", c.name, strings.Join(r.log, "\n"))
		}
	}
}

// A goroutine that outlives its test is found, and one that ends is not.
func TestGoroutineLeftIsFound(t *testing.T) {
	before := goroutines()
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		<-end
	}()
	if left := newcomers(before); len(left) != 1 || !strings.Contains(left[0], "TestGoroutineLeftIsFound") {
		t.Errorf("found %q, want the goroutine of this test", left)
	}
	close(end)
	<-ended
	if err := eventually(t.Context(), time.Second, func(context.Context) error {
		if left := newcomers(before); len(left) > 0 {
			return fmt.Errorf("still there: %s", left[0])
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
