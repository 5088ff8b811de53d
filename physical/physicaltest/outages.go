package physicaltest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
)

// Outages checks a store that keeps entries and lock while its real server fails under it, rounds times over: it is
// restarted with commits under way and a lock held, answers get lost, and the network swallows everything for longer than
// a TTL. The harness must have Restart, which is called here with handles open, Isolate and CutAnswers.
func Outages(t *testing.T, h Harness, rounds int) {
	t.Helper()
	runAll(t, h, []check{
		{"FrozenWriter", func(s *scene) { s.repeat(rounds, checkFrozenWriter) }},
		{"RestartUnderLoad", func(s *scene) { s.repeat(rounds, checkRestartUnderLoad) }},
		{"CutUnderLoad", func(s *scene) { s.repeat(rounds, checkCutUnderLoad) }},
	})
}

func (s *scene) repeat(rounds int, run func(s *scene)) {
	s.Helper()
	if s.store.Restart == nil || s.store.Isolate == nil || s.store.CutAnswers == nil {
		s.Fatalf("the harness must have Restart, Isolate and CutAnswers")
	}
	s.quick()
	for range rounds {
		run(s)
		if s.Failed() {
			return
		}
	}
}

// raiseAbove raises the fence from whatever it is.
func (s *scene) raiseAbove(b physical.Backend, nonce byte) physical.Fence {
	s.Helper()
	var to physical.Fence
	s.eventually(s.store.Settle, func(ctx context.Context) error {
		now, err := b.Fence(ctx)
		if err != nil {
			return err
		}
		to = fence("outage", now.Term+1, nonce)
		return b.RaiseFence(ctx, now, to)
	})
	return to
}

// checkFrozenWriter: P1 for a node that is frozen between deciding to write and the write's arrival. Its commits are on
// their way for longer than its TTL; another node takes the lock and raises the fence; then the commits arrive, and
// the store itself refuses them. They were sent before the fence was raised, and nobody could call them back.
func checkFrozenWriter(s *scene) {
	h := s.takeOver(s.nodes(2), 0)
	old, next := s.backend(h.node), 1-h.node
	before := s.raiseAbove(old, 1)
	s.must(old.Commit(s.ctx, &before, physical.Put("decided", []byte("by the old one")), physical.Delete("late/0"), physical.Delete("late/1"), physical.Delete("late/2")), "commit")
	heal := s.store.Isolate(h.node)
	healed := sync.OnceFunc(heal)
	defer healed()
	const writes = 3
	late := make(chan error, writes)
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	for i := range writes {
		go func() {
			late <- old.Commit(ctx, &before, physical.Put("decided", []byte("too late")), physical.Put(fmt.Sprintf("late/%d", i), nil))
		}()
	}
	taken, _ := s.wantTakenOver(h)
	after := s.raiseAbove(s.backend(next), 2)
	s.must(s.backend(next).Commit(s.ctx, &after, physical.Put("decided", []byte("by the new one"))), "commit of the new one")
	healed()
	give := time.AfterFunc(s.store.Settle, cancel)
	defer give.Stop()
	for range writes {
		if err := <-late; err == nil {
			s.Errorf("a commit of the term before returned nil after the fence was raised")
		}
	}
	s.eventually(s.store.Settle, func(ctx context.Context) error {
		if err := old.Commit(ctx, &before, physical.Put("decided", []byte("much too late"))); !errors.Is(err, physical.ErrFenced) {
			return fmt.Errorf("a commit of the term before, when the network is back: %w", err)
		}
		return nil
	})
	s.wantValue(s.backend(next), "decided", "by the new one")
	s.wantList(s.backend(next), "late/", "", 0)
	s.eventually(s.store.Settle, func(ctx context.Context) error { return taken.lock.Release(ctx, taken.grant, "") })
}

// load is writers who note what became of each commit.
type load struct {
	mu       sync.Mutex
	outcomes []error
	ok       int // of the outcomes since mark
}

func (l *load) note(i int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outcomes[i] = err
	if err == nil {
		l.ok++
	}
}

func (l *load) next() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outcomes = append(l.outcomes, physical.ErrUnknown)
	return len(l.outcomes) - 1
}

// mark starts the count of commits anew, and count reads it.
func (l *load) mark() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ok = 0
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ok
}

// writeUnder commits at every backend until stop is closed. Two entries go with each commit, so that one applied in part shows.
func (s *scene) writeUnder(ctx context.Context, l *load, now physical.Fence, nodes []physical.Backend, stop <-chan struct{}) error {
	var all sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for _, b := range nodes {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				i := l.next()
				attempt, cancel := context.WithTimeout(ctx, time.Second)
				err := b.Commit(attempt, &now, physical.Put(fmt.Sprintf("%d/one/%d", now.Term, i), nil), physical.Put(fmt.Sprintf("%d/two/%d", now.Term, i), nil))
				cancel()
				l.note(i, err)
				if err != nil && !mayRetry(err) {
					mu.Lock()
					failed = errors.Join(failed, fmt.Errorf("commit during an outage: %w", err))
					mu.Unlock()
					return
				}
				if err != nil {
					pause(ctx, pollEvery)
				}
			}
		})
	}
	all.Wait()
	return failed
}

// underLoad does something to the store while three writers write, waits until they write again, and checks what they
// were told: nothing acknowledged is lost (P3), and nothing refused is there.
func (s *scene) underLoad(disturb func(ctx context.Context) error) {
	s.Helper()
	nodes := []physical.Backend{s.backend(0), s.backend(1), s.backend(2)}
	now := s.raiseAbove(nodes[0], 3)
	l := &load{}
	stop := make(chan struct{})
	s.parallel(2, func(ctx context.Context, i int) error {
		if i == 0 {
			return s.writeUnder(ctx, l, now, nodes, stop)
		}
		defer close(stop)
		written := func(context.Context) error {
			if n := l.count(); n < 3*len(nodes) {
				return fmt.Errorf("%d commits succeeded", n)
			}
			return nil
		}
		if err := eventually(ctx, s.store.Settle, written); err != nil {
			return fmt.Errorf("before the disturbance: %w", err)
		}
		if err := disturb(ctx); err != nil {
			return err
		}
		l.mark()
		if err := eventually(ctx, s.store.Settle, written); err != nil {
			return fmt.Errorf("after the disturbance: %w", err)
		}
		return nil
	})
	s.wantOutcomesIn(nodes[rand.IntN(len(nodes))], now.Term, l.outcomes)
}

// wantOutcomesIn is wantOutcomes for many commits: it lists what is there.
func (s *scene) wantOutcomesIn(b physical.Backend, term uint64, outcomes []error) {
	s.Helper()
	one, err := b.List(s.ctx, fmt.Sprintf("%d/one/", term), "", 0)
	s.must(err, "list")
	two, err := b.List(s.ctx, fmt.Sprintf("%d/two/", term), "", 0)
	s.must(err, "list")
	if !slices.Equal(one, two) {
		s.Errorf("commits were applied in part: %d of the one entry and %d of the other", len(one), len(two))
	}
	var unknown int
	for i, outcome := range outcomes {
		there := slices.Contains(one, fmt.Sprint(i))
		switch {
		case outcome == nil && !there:
			s.Errorf("commit %d was acknowledged and is lost", i)
		case outcome != nil && !errors.Is(outcome, physical.ErrUnknown) && there:
			s.Errorf("commit %d was applied, and returned %v, which says that it was not", i, outcome)
		case errors.Is(outcome, physical.ErrUnknown):
			unknown++
		}
	}
	s.Logf("%d commits, %d of them with unknown outcome", len(outcomes), unknown)
}

// checkRestartUnderLoad: the store restarts mid-lease. The holder keeps the lock or loses it no sooner than its TTL; terms
// go on; no acknowledged commit is lost; all handles serve again.
func checkRestartUnderLoad(s *scene) {
	h := s.takeOver(s.nodes(), 0)
	s.underLoad(func(ctx context.Context) error {
		if err := s.store.Restart(); err != nil {
			return fmt.Errorf("restart: %w", err)
		}
		return nil
	})
	next := s.takeOver(s.nodes(), 0)
	s.wantNotBefore(h, next)
	if next.grant.Term() <= h.grant.Term() {
		s.Errorf("after a restart term %d follows on term %d", next.grant.Term(), h.grant.Term())
	}
	s.release(next, "")
}

// checkCutUnderLoad: answers are lost over and over.
func checkCutUnderLoad(s *scene) {
	s.underLoad(func(ctx context.Context) error {
		for range 8 {
			n := rand.IntN(3)
			heal := s.store.CutAnswers(n)
			pause(ctx, rand.N(60*time.Millisecond))
			heal()
			pause(ctx, rand.N(40*time.Millisecond))
		}
		return nil
	})
}
