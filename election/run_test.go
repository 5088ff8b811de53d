package election

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
)

// testNode is an Election with callbacks that note what they are called for.
type testNode struct {
	*Election
	mu    sync.Mutex
	calls []string
	lead  *Leadership

	activate func(ctx context.Context, l *Leadership) error
	drain    func(ctx context.Context, l *Leadership) error
	down     func(l *Leadership, cause error)

	cancel context.CancelFunc
	ended  chan error
}

func (n *testNode) note(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls = append(n.calls, fmt.Sprintf(format, args...))
}

func (n *testNode) noted() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.calls)
}

type lockAndFence interface {
	physical.HABackend
	Fencer
}

func newNode(t *testing.T, id string, store lockAndFence, change func(*Config)) *testNode {
	t.Helper()
	n := &testNode{ended: make(chan error, 1)}
	cfg := Config{ID: id, Candidate: true, Lock: store, Store: store, Clock: bubbleClock()}
	cfg.Activate = func(ctx context.Context, l *Leadership) error {
		n.note("activate %d", l.Term)
		n.mu.Lock()
		n.lead = l
		n.mu.Unlock()
		if n.activate != nil {
			return n.activate(ctx, l)
		}
		return nil
	}
	cfg.Drain = func(ctx context.Context, l *Leadership) error {
		n.note("drain %d valid=%t", l.Term, l.Lease.Valid())
		if n.drain != nil {
			return n.drain(ctx, l)
		}
		return nil
	}
	cfg.Deactivate = func(l *Leadership, cause error) {
		if l.Lease.Valid() || l.Lease.Context().Err() == nil {
			t.Errorf("%s: Deactivate while the lease is valid", id)
		}
		n.note("deactivate %d: %v", l.Term, cause)
		if n.down != nil {
			n.down(l, cause)
		}
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if n.Election, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *testNode) start(t *testing.T) *testNode {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	n.cancel = cancel
	go func() { n.ended <- n.Run(ctx) }()
	return n
}

// stop ends Run as planned and waits for it.
func (n *testNode) stop(t *testing.T) {
	t.Helper()
	n.cancel()
	if err := <-n.ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if r := n.State().Role; r != Stopped {
		t.Errorf("role after Run is %s", r)
	}
}

// await waits until the node's state is as wanted, at most for a minute on the bubble's clock.
func (n *testNode) await(t *testing.T, what string, want func(State) bool) {
	t.Helper()
	limit := time.After(time.Minute)
	for {
		changed := n.Changed()
		if want(n.State()) {
			return
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("never: %s; state is %+v", what, n.State())
		}
	}
}

func (n *testNode) awaitRole(t *testing.T, r Role) {
	t.Helper()
	n.await(t, r.String(), func(s State) bool { return s.Role == r })
}

func wantCalls(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// A node alone activates, and at its end gives the lock up in order: drain, deactivate, release.
func TestAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(time.Second)
		n := newNode(t, "a", watchedStore{store}, nil).start(t)
		n.awaitRole(t, Active)
		if s := n.State(); s.Term != 1 || s.Holder.Holder != "a" {
			t.Errorf("state %+v", s)
		}
		time.Sleep(10 * time.Second)
		if !n.lead.Lease.Valid() {
			t.Error("the lease is not renewed")
		}
		n.stop(t)
		wantCalls(t, n.noted(), "activate 1", "drain 1 valid=true", "deactivate 1: node is stopping")
		wantCalls(t, store.history(), "acquired 1 a", "raised 1", "released 1 next=")
		if cause := context.Cause(n.lead.Lease.Context()); !errors.Is(cause, ErrShutdown) {
			t.Errorf("the lease's context ended by %v", cause)
		}
	})
}

// A planned switchover costs the store's latencies only, here none; the successor named takes over. And back.
func TestStepDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(time.Second)
		a := newNode(t, "a", watchedStore{store}, nil).start(t)
		a.awaitRole(t, Active)
		b := newNode(t, "b", watchedStore{store}, nil).start(t)
		c := newNode(t, "c", watchedStore{store}, nil).start(t)
		synctest.Wait()
		time.Sleep(3 * time.Second)
		before := time.Now()
		if err := a.StepDown(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
		c.awaitRole(t, Active)
		if gap := time.Since(before); gap > time.Millisecond {
			t.Errorf("the switch took %s", gap)
		}
		if err := a.StepDown(t.Context(), ""); !errors.Is(err, ErrNotActive) {
			t.Errorf("StepDown of a standby: %v", err)
		}
		b.await(t, "b sees c", func(s State) bool { return s.Role == Standby && s.Holder.Holder == "c" && s.Term == 2 })
		for _, n := range []*testNode{a, b, c} {
			n.stop(t)
		}
	})
}

// If nobody takes over, the old node activates again, under a new term, after the grace time.
func TestStepDownAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(time.Second)
		a := newNode(t, "a", store, nil).start(t)
		a.awaitRole(t, Active)
		before := time.Now()
		if err := a.StepDown(t.Context(), "nobody"); err != nil {
			t.Fatal(err)
		}
		a.awaitRole(t, Active)
		if gap := time.Since(before); gap < 2*time.Second || gap > 2200*time.Millisecond {
			t.Errorf("active again after %s, want the grace time of 2 s", gap)
		}
		a.stop(t)
		wantCalls(t, store.history(), "acquired 1 a", "raised 1", "released 1 next=nobody", "acquired 2 a", "raised 2", "released 2 next=")
	})
}

// A store that hangs blocks nothing (P10), and costs the leadership by the deadline (P2, P4): 900 ms after the last renewal.
func TestHangingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(time.Second)
		var mu sync.Mutex
		hang := false
		store.hook = func(ctx context.Context, _ string) error {
			mu.Lock()
			h := hang
			mu.Unlock()
			if !h {
				return nil
			}
			<-ctx.Done()
			return physical.ErrUnknown
		}
		n := newNode(t, "a", store, nil).start(t)
		n.awaitRole(t, Active)
		lead := n.lead
		time.Sleep(5 * time.Second)
		mu.Lock()
		hang = true
		mu.Unlock()
		last := lead.Lease.Deadline()
		<-lead.Lease.Context().Done()
		if now := n.clock(); now.Sub(last) > 0 || !errors.Is(context.Cause(lead.Lease.Context()), ErrExpired) {
			t.Errorf("ended %s after the deadline by %v", now.Sub(last), context.Cause(lead.Lease.Context()))
		}
		n.await(t, "deactivated", func(s State) bool { return s.LossTerm == 1 && !s.Active() })
		mu.Lock()
		hang = false
		mu.Unlock()
		n.awaitRole(t, Active)
		if n.State().Term != 2 {
			t.Errorf("term %d", n.State().Term)
		}
		n.stop(t)
		wantCalls(t, n.noted(), "activate 1", "deactivate 1: lease expired", "activate 2", "drain 2 valid=true", "deactivate 2: node is stopping")
	})
}

// A node that cannot activate lets go, backs off, and another takes over; it does not flap.
func TestCannotActivate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(time.Second)
		a := newNode(t, "a", watchedStore{store}, nil)
		a.activate = func(context.Context, *Leadership) error { return errors.New("port in use") }
		a.start(t)
		time.Sleep(time.Minute)
		if tries := len(a.noted()) / 2; tries < 3 || tries > 9 {
			t.Errorf("%d attempts in a minute", tries)
		}
		b := newNode(t, "b", watchedStore{store}, nil).start(t)
		b.awaitRole(t, Active)
		if s := a.State(); s.LastLoss == nil || !strings.Contains(s.LastLoss.Error(), "port in use") {
			t.Errorf("state %+v", s)
		}
		b.stop(t)
		a.stop(t)
	})
}

// A store whose calls ignore their contexts blocks neither the loop nor State (P10), and does not get ever more calls (P12).
func TestDeafStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(time.Second)
		var mu sync.Mutex
		deaf, waiting, most := false, 0, 0
		free := make(chan struct{})
		store.hook = func(context.Context, string) error {
			mu.Lock()
			d := deaf
			if d {
				waiting++
				most = max(most, waiting)
			}
			mu.Unlock()
			if d {
				<-free
			}
			return nil
		}
		n := newNode(t, "a", store, nil).start(t)
		n.awaitRole(t, Active)
		mu.Lock()
		deaf = true
		mu.Unlock()
		n.await(t, "loses", func(s State) bool { return s.LossTerm == 1 })
		time.Sleep(10 * time.Minute)
		if n.State().Active() {
			t.Error("active without a store")
		}
		mu.Lock()
		if deaf = false; most > 4*maxHanging {
			t.Errorf("%d calls hang", most)
		}
		mu.Unlock()
		close(free)
		n.awaitRole(t, Active)
		n.stop(t)
	})
}

// What ends a leadership from within: Abort ends the lease before it returns, and the lock is released after Deactivate.
func TestAbort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(time.Second)
		n := newNode(t, "a", store, nil).start(t)
		n.awaitRole(t, Active)
		died := errors.New("application died")
		n.lead.Abort(died)
		if n.lead.Lease.Valid() || !errors.Is(context.Cause(n.lead.Lease.Context()), died) {
			t.Error("the lease goes on")
		}
		n.lead.Abort(errors.New("again"))
		n.awaitRole(t, BackingOff)
		n.awaitRole(t, Active)
		if s := n.State(); !errors.Is(s.LastLoss, died) || s.LossTerm != 1 || s.Term != 2 {
			t.Errorf("state %+v", s)
		}
		n.stop(t)
		n.lead.Abort(died) // after the end: nothing
		wantCalls(t, n.noted(), "activate 1", "deactivate 1: application died", "activate 2", "drain 2 valid=true", "deactivate 2: node is stopping")
		wantCalls(t, store.history()[:3], "acquired 1 a", "raised 1", "released 1 next=")
	})
}

// Drain has its limit, the lock is renewed meanwhile, and SkipDrain ends it sooner.
func TestDrainLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(time.Second)
		n := newNode(t, "a", store, func(c *Config) { c.DrainTimeout = 7 * time.Second })
		n.drain = func(ctx context.Context, l *Leadership) error {
			<-ctx.Done()
			n.note("drained by %v, valid=%t", context.Cause(ctx), l.Lease.Valid())
			return context.Cause(ctx)
		}
		n.start(t)
		n.awaitRole(t, Active)
		before := time.Now()
		if err := n.StepDown(t.Context(), ""); err != nil {
			t.Error(err)
		}
		if took := time.Since(before); took != 7*time.Second {
			t.Errorf("it took %s", took)
		}
		n.awaitRole(t, Active)
		go func() {
			n.awaitRole(t, Draining)
			n.SkipDrain()
		}()
		before = time.Now()
		n.stop(t)
		if took := time.Since(before); took > time.Millisecond {
			t.Errorf("skipped, it took %s", took)
		}
		wantCalls(t, n.noted(), "activate 1", "drain 1 valid=true", "drained by drain limit reached, valid=true", "deactivate 1: stepped down",
			"activate 2", "drain 2 valid=true", "drained by drain skipped, valid=true", "deactivate 2: node is stopping")
	})
}

// The context of a request to step down ends: the caller is let go, the step-down goes on.
func TestStepDownImpatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(time.Second)
		n := newNode(t, "a", store, nil)
		if err := n.StepDown(t.Context(), ""); !errors.Is(err, ErrNotActive) {
			t.Errorf("before Run: %v", err)
		}
		n.drain = func(context.Context, *Leadership) error { time.Sleep(5 * time.Second); return nil }
		n.start(t)
		n.awaitRole(t, Active)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := n.StepDown(ctx, ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("impatient: %v", err)
		}
		n.await(t, "released", func(s State) bool { return s.Role == Standby })
		n.stop(t)
		if err := n.StepDown(t.Context(), ""); !errors.Is(err, ErrStopped) {
			t.Errorf("after Run: %v", err)
		}
	})
}

// Paused, nobody takes over by himself; a step-down that names a node works all the same. And nobody who is no candidate ever leads.
func TestPauseAndCandidates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(time.Second)
		a := newNode(t, "a", watchedStore{store}, nil).start(t)
		a.awaitRole(t, Active)
		b := newNode(t, "b", watchedStore{store}, nil)
		b.Pause()
		if s := b.State(); !s.Paused || !s.Candidate {
			t.Errorf("state before Run: %+v", s)
		}
		b.start(t)
		c := newNode(t, "c", watchedStore{store}, func(c *Config) { c.Candidate = false }).start(t)
		synctest.Wait()
		a.stop(t)
		time.Sleep(time.Minute)
		for _, n := range []*testNode{b, c} {
			if s := n.State(); s.Role != Standby || s.Holder.Holder != "" {
				t.Errorf("state %+v", s)
			}
		}
		c.SetCandidate(true)
		c.awaitRole(t, Active)
		if err := c.StepDown(t.Context(), "b"); err != nil {
			t.Error(err)
		}
		b.awaitRole(t, Active)
		b.Resume()
		b.await(t, "resumed", func(s State) bool { return !s.Paused })
		b.stop(t)
		c.stop(t)
	})
}

// The active node dies without a word: the next takes over when the lock has run out, not later than a look after that.
func TestCrash(t *testing.T) {
	for _, watch := range []bool{true, false} {
		t.Run(fmt.Sprintf("watch=%t", watch), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newFakeStore(time.Second)
				var lock lockAndFence = store
				if watch {
					lock = watchedStore{store}
				}
				if _, err := store.Acquire(t.Context(), physical.Record{Holder: "dead"}, time.Second, 0); err != nil {
					t.Fatal(err)
				}
				before := time.Now()
				n := newNode(t, "a", lock, nil).start(t)
				n.awaitRole(t, Active)
				gap := time.Since(before)
				if limit := time.Second + 101*time.Millisecond; gap < time.Second || gap > limit {
					t.Errorf("took over after %s", gap)
				}
				n.stop(t)
			})
		})
	}
}

// A lock store that forgot costs a full TTL of waiting, during which its old holder may believe in its lease (P2).
func TestForgetfulStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(time.Second)
		store.fence = physical.Fence{Lineage: "old", Term: 41, Nonce: [16]byte{1}}
		before := time.Now()
		n := newNode(t, "a", watchedStore{store}, nil).start(t)
		n.awaitRole(t, Active)
		if gap := time.Since(before); gap < time.Second || gap > 1100*time.Millisecond {
			t.Errorf("active after %s", gap)
		}
		if l := n.lead; l.Term != 42 || l.Fence.Lineage != "old" {
			t.Errorf("term %d, fence %s", l.Term, l.Fence)
		}
		n.stop(t)
	})
}

// What the observer is told of a leadership.
func TestObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(time.Second)
		var seen []string
		var guarded []time.Duration
		note := func(format string, args ...any) { seen = append(seen, fmt.Sprintf(format, args...)) }
		clock := bubbleClock()
		n := newNode(t, "a", store, func(c *Config) {
			c.Observer = Observer{
				Renewed:       func(latency time.Duration, err error) { note("renewed %s %v", latency, err) },
				Fenced:        func(term uint64) { note("fenced %d", term) },
				Activated:     func(term uint64, took time.Duration) { note("activated %d after %s", term, took) },
				Ended:         func(term uint64, planned bool, cause error) { note("ended %d planned=%t %v", term, planned, cause) },
				Lost:          func(cause error) { note("lost %v", cause) },
				LeaderlessFor: func(d time.Duration) { note("leaderless for %s", d) },
				Guard: func(g physical.Grant, deadline boottime.Instant) {
					if deadline == 0 {
						note("guard %d ends", g.Term())
					} else {
						guarded = append(guarded, deadline.Sub(clock()))
					}
				},
			}
		})
		n.activate = func(context.Context, *Leadership) error { time.Sleep(100 * time.Millisecond); return nil }
		n.start(t)
		n.awaitRole(t, Active)
		time.Sleep(300 * time.Millisecond)
		n.stop(t)
		wantCalls(t, seen, "fenced 1", "activated 1 after 100ms", "leaderless for 100ms", "renewed 0s <nil>",
			"ended 1 planned=true node is stopping", "guard 1 ends")
		if !slices.Equal(guarded, []time.Duration{900 * time.Millisecond, 900 * time.Millisecond}) {
			t.Errorf("guarded until %v", guarded)
		}
	})
}
