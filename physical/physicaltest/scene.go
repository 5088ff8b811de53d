package physicaltest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
)

// check is one group of promises put to the test.
type check struct {
	name string
	run  func(*scene)
}

// tb is what checks need of a *testing.T. The package's own tests put a recorder in its place.
type tb interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Failed() bool
}

// checkTime bounds one check, so that a store that hangs fails instead.
const checkTime = 3 * time.Minute

// pollEvery is how often a condition is looked at that nobody can tell us about.
const pollEvery = 10 * time.Millisecond

func runAll(t *testing.T, h Harness, checks []check) {
	t.Helper()
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			noGoroutineLeft(t)
			play(t, h(t), c)
		})
	}
}

// play runs one check on a fresh store and closes all handles.
func play(t tb, store Store, c check) {
	t.Helper()
	store.ensureDefaults()
	ctx, cancel := context.WithTimeoutCause(context.Background(), checkTime, errors.New("the check took too long"))
	defer cancel()
	s := &scene{tb: t, ctx: ctx, store: store, handles: make(map[int]Handle)}
	defer s.closeAll()
	s.openAll()
	c.run(s)
}

// scene is a fresh store with its open handles.
type scene struct {
	tb
	ctx     context.Context
	store   Store
	quickly bool // see quick

	mu      sync.Mutex
	handles map[int]Handle // by node
}

// handle returns node n's handle, opened if it is not yet.
func (s *scene) handle(n int) Handle {
	s.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.handles[n]; h != nil {
		return h
	}
	h, err := s.store.Open(n)
	if err != nil {
		s.Fatalf("open node %d: %v", n, err)
	}
	s.handles[n] = h
	return h
}

func (s *scene) openAll() {
	s.Helper()
	for n := range s.store.Nodes {
		s.handle(n)
	}
}

func (s *scene) closeAll() {
	s.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, h := range s.handles {
		if err := h.Close(); err != nil {
			s.Errorf("close node %d: %v", n, err)
		}
	}
	clear(s.handles)
}

// closeNode closes node n, which opens again when it is next asked for.
func (s *scene) closeNode(n int) {
	s.Helper()
	s.must(s.handle(n).Close(), "close node %d", n)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.handles, n)
}

// restart closes all nodes, restarts the store and opens the same nodes again.
func (s *scene) restart() {
	s.Helper()
	var nodes []int
	for n := range s.handles {
		nodes = append(nodes, n)
	}
	s.closeAll()
	if s.store.Restart != nil {
		if err := s.store.Restart(); err != nil {
			s.Fatalf("restart: %v", err)
		}
	}
	for _, n := range nodes {
		s.handle(n)
	}
}

// several returns how many nodes a check gets that would like to have want.
func (s *scene) several(want int) int {
	if s.store.Nodes > 0 {
		return min(want, s.store.Nodes)
	}
	return want
}

func (s *scene) caps() physical.Caps { return s.handle(0).Caps() }

// backend returns node n as a Backend.
func (s *scene) backend(n int) physical.Backend {
	s.Helper()
	b, ok := s.handle(n).(physical.Backend)
	if !ok {
		s.Fatalf("a handle of type %T is not a physical.Backend", s.handle(n))
	}
	return b
}

// writerNode returns the number of a node that may write.
func (s *scene) writerNode() int {
	s.Helper()
	if s.store.Writer == nil {
		return 0
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.store.Settle)
	defer cancel()
	n, err := s.store.Writer(ctx)
	if err != nil {
		s.Fatalf("no node may write: %v", err)
	}
	return n
}

func (s *scene) writer() physical.Backend {
	s.Helper()
	return s.backend(s.writerNode())
}

// writers returns up to want handles that can all write; the same one more than once where only one can.
func (s *scene) writers(want int) []physical.Backend {
	s.Helper()
	if s.store.Writer != nil {
		return []physical.Backend{s.writer()}
	}
	var all []physical.Backend
	for n := range s.several(want) {
		all = append(all, s.backend(n))
	}
	return all
}

// parallel runs f(0) … f(n-1), each in a goroutine of its own, and fails with the first error. Then the
// context that it gave them ends.
func (s *scene) parallel(n int, f func(ctx context.Context, i int) error) {
	s.Helper()
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if err := f(ctx, i); err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	if err := context.Cause(ctx); err != nil {
		s.Fatalf("%v", err)
	}
}

// must fails the check at once if err is not nil.
func (s *scene) must(err error, format string, args ...any) {
	s.Helper()
	if err != nil {
		s.Fatalf("%s: %v", fmt.Sprintf(format, args...), err)
	}
}

// wantErr fails the check if err is not of the kind want.
func (s *scene) wantErr(err, want error, format string, args ...any) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("%s: got error %v, want %v", fmt.Sprintf(format, args...), err, want)
	}
}

// eventually tries until ok returns nil, for at most limit.
func (s *scene) eventually(limit time.Duration, ok func(ctx context.Context) error) {
	s.Helper()
	if err := eventually(s.ctx, limit, ok); err != nil {
		s.Fatalf("not within %v: %v", limit, err)
	}
}

func eventually(ctx context.Context, limit time.Duration, ok func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		err := ok(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return err
		}
	}
}

// pause waits for d, or until the check's time is over.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
