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
