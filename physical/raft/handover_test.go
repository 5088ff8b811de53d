package raft

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
)

func contextFor(t testing.TB, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

// acquire takes the lock on whichever node leads.
func (c *cluster) acquire() (*node, physical.Grant) {
	c.t.Helper()
	var n *node
	var g physical.Grant
	c.eventually(10*time.Second, func(ctx ctxT) error {
		n = c.leader()
		var err error
		g, err = n.Acquire(ctx, physical.Record{Holder: n.ID(), Name: n.cfg.Name}, time.Second, 0)
		return err
	})
	return n, g
}

// A released lock goes to the node that was named, in milliseconds (P5), and terms rise. A busy machine
// may need more than one attempt.
func TestReleaseToSuccessor(t *testing.T) {
	c := newCluster(t, 3, nil)
	last, best, reached := uint64(0), time.Hour, 0
	for round := range 8 {
		n, g := c.acquire()
		if g.Term() <= last {
			t.Fatalf("term %d after %d", g.Term(), last)
		}
		last = g.Term()
		next := c.nodes[0]
		for _, other := range c.nodes {
			if other != n && (round%2 == 0 || next == n) {
				next = other
			}
		}
		start := time.Now()
		must(t, n.Release(t.Context(), g, next.ID()))
		ctx, cancel := contextFor(t, testPace*time.Second)
		for ctx.Err() == nil {
			ng, err := next.Acquire(ctx, physical.Record{Holder: next.ID()}, time.Second, 0)
			if err == nil {
				best = min(best, time.Since(start))
				reached++
				last = ng.Term()
				must(t, next.Release(t.Context(), ng, ""))
				break
			}
			_, _ = next.Watch(ctx, physical.Record{Term: g.Term(), Next: next.ID()})
		}
		cancel()
	}
	t.Logf("the successor had it %d of 8 times, at best after %v", reached, best)
	if reached < 4 || best > testPace*100*time.Millisecond {
		t.Error("the successor is not reached, or late")
	}
}

// A watcher on another node learns of a release, and the one that comes to lead that it should try.
func TestWatchLeadsToAcquire(t *testing.T) {
	c := newCluster(t, 3, nil)
	n, g := c.acquire()
	type won struct {
		n   *node
		g   physical.Grant
		err error
	}
	winners := make(chan won, 3)
	ctx, cancel := contextFor(t, 20*time.Second)
	defer cancel()
	for _, other := range c.nodes {
		if other == n {
			continue
		}
		go func() {
			seen := g.Record
			for {
				r, err := other.Watch(ctx, seen)
				if err != nil {
					winners <- won{err: err}
					return
				}
				seen = r
				if r.Holder != "" {
					continue
				}
				if ng, err := other.Acquire(ctx, physical.Record{Holder: other.ID()}, time.Second, 0); err == nil {
					winners <- won{n: other, g: ng}
					return
				}
			}
		}()
	}
	must(t, n.Release(t.Context(), g, ""))
	w := <-winners
	must(t, w.err)
	if w.g.Term() <= g.Term() {
		t.Errorf("term %d after %d", w.g.Term(), g.Term())
	}
	cancel()
	<-winners
}

// A handover that its target does not answer: whoever leads next gets the lock, and never does the old
// leader hold it again in the term that it wanted to hand over.
func TestHandoverToSilentNode(t *testing.T) {
	c := newCluster(t, 3, nil)
	n, g := c.acquire()
	target := c.nodes[0]
	if target == n {
		target = c.nodes[1]
	}
	raftTerm := n.Stats().RaftTerm
	heal := c.net.cut(target.ID(), n.ID()) // hears, and is not heard
	must(t, n.Release(t.Context(), g, target.ID()))
	n2, g2 := c.acquire()
	heal()
	if g2.Term() <= g.Term() {
		t.Errorf("term %d after %d", g2.Term(), g.Term())
	}
	if n2 == n && n.running().trans.handed(raftTerm) && grantRaftTerm(g2) == raftTerm {
		t.Error("the lock is held again in a raft term that was handed over")
	}
	c.wantHealthy(3, "after")
}

// A leader that holds no lock may yield; one that holds it may not.
func TestYield(t *testing.T) {
	c := newCluster(t, 3, nil)
	n, g := c.acquire()
	if err := n.Yield(t.Context(), ""); !errors.Is(err, physical.ErrHeld) {
		t.Errorf("yield while the lock is held: %v", err)
	}
	must(t, n.Release(t.Context(), g, ""))
	for range 3 {
		l := c.leader()
		c.eventually(10*time.Second, func(ctx ctxT) error {
			if err := l.Yield(ctx, ""); err != nil {
				return err
			}
			if l.IsLeader() {
				return errors.New("it still leads")
			}
			return nil
		})
	}
}

// A lock whose holder hangs, so that it is neither renewed nor released, goes to another node although
// raft's leader is well.
func TestHangingHolder(t *testing.T) {
	c := newCluster(t, 3, nil)
	n, g := c.acquire()
	c.eventually(20*time.Second, func(ctx ctxT) error {
		for _, other := range c.nodes {
			if other == n {
				continue
			}
			if g2, err := other.Acquire(ctx, physical.Record{Holder: other.ID()}, time.Second, 0); err == nil {
				if g2.Term() <= g.Term() {
					t.Errorf("term %d after %d", g2.Term(), g.Term())
				}
				return nil
			}
		}
		return errors.New("nobody else gets it")
	})
	if _, err := n.Renew(t.Context(), g); !errors.Is(err, physical.ErrLost) {
		t.Errorf("renewal afterwards: %v", err)
	}
}

// The guardian of a node that crashed releases at the others: nobody waits for a time-out (P7).
func TestReleaseForTheDead(t *testing.T) {
	c := newCluster(t, 3, nil)
	best := time.Hour
	for range 4 {
		n, g := c.acquire()
		for _, other := range c.nodes {
			eventually(t, 5*time.Second, func(ctx ctxT) error {
				r, err := other.Holder(ctx)
				if err == nil && r != g.Record {
					return fmt.Errorf("holder %+v", r)
				}
				return err
			})
		}
		dead := slices.Index(c.nodes, n)
		c.stop(dead)
		start := time.Now()
		for _, other := range c.nodes {
			if other.Store != nil {
				must(t, other.Release(t.Context(), g, ""))
			}
		}
		_, g2 := c.acquire()
		best = min(best, time.Since(start))
		if g2.Term() <= g.Term() {
			t.Errorf("term %d after %d", g2.Term(), g.Term())
		}
		c.open(dead, false)
		c.wantHealthy(3, "again")
	}
	t.Logf("acquired %v after the release, at best", best)
	if best > testPace*300*time.Millisecond {
		t.Error("the promise to the dead leader was waited for")
	}
}

// A node stops at once, also while its peers answer nothing (P12).
func TestStopWhileCutOff(t *testing.T) {
	c := newCluster(t, 3, nil)
	for _, i := range []int{c.leaderIndex(), (c.leaderIndex() + 1) % 3} {
		heal := c.net.isolate(c.nodes[i].ID(), c.ids()...)
		start := time.Now()
		c.stop(i)
		if took := time.Since(start); took > testPace*1500*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		heal()
		c.open(i, false)
		c.wantHealthy(3, "x")
	}
}

// A node with a delay asks for votes later, so that others lead.
func TestVoteDelay(t *testing.T) {
	c := newCluster(t, 3, nil)
	for range 3 {
		l := c.leaderIndex()
		shy, eager := c.nodes[(l+1)%3], c.nodes[(l+2)%3]
		shy.SetVoteDelay(testPace * 600 * time.Millisecond)
		eager.SetVoteDelay(0)
		c.stop(l)
		if got := c.leader(); got != eager {
			t.Error("the node with the delay leads")
		}
		c.open(l, false)
		c.wantHealthy(3, "x")
		shy.SetVoteDelay(0)
	}
	// Alone among the living it leads all the same.
	l := c.leaderIndex()
	for i, n := range c.nodes {
		if i != l {
			n.SetVoteDelay(testPace * 600 * time.Millisecond)
		}
	}
	c.stop(l)
	c.leader()
}

// A power loss: the state is built again from snapshot and log before raft runs, so that a sealed node
// reads its keyring.
func TestPowerLoss(t *testing.T) {
	for _, withSnapshot := range []bool{false, true} {
		t.Run(fmt.Sprint("snapshot=", withSnapshot), func(t *testing.T) {
			c := newCluster(t, 1, nil)
			l := c.leader()
			put(t, l.Store, "core/keyring", "sealed")
			for i := range 300 {
				put(t, l.Store, fmt.Sprint("a/", i), "1")
				if i == 150 && withSnapshot {
					must(t, l.running().raft.Snapshot().Error())
				}
			}
			path := c.nodes[0].path
			crashed := filepath.Join(t.TempDir(), "copy") // as a crash leaves it: nothing closed
			must(t, os.CopyFS(crashed, os.DirFS(path)))
			mark := filepath.Join(crashed, "raft", "state.mark")
			raw, err := os.ReadFile(mark)
			must(t, err)
			if !strings.HasPrefix(string(raw), "open ") {
				t.Fatalf("mark %q while open", raw)
			}
			must(t, os.WriteFile(mark, []byte("open another-boot\n"), 0o600))
			state := filepath.Join(crashed, "raft", "state.db")
			must(t, os.WriteFile(state, []byte("what a power loss left"), 0o600))
			s, err := Open(Config{Path: crashed, Advertise: "127.0.0.1:1"})
			must(t, err)
			for key, want := range map[string]string{"core/keyring": "sealed", "a/0": "1", "a/150": "1", "a/250": "1"} {
				e, err := s.Get(t.Context(), key)
				if err != nil || string(e.Value) != want {
					t.Errorf("%s: %v, %v", key, e, err)
				}
			}
			if err := s.Commit(t.Context(), nil, physical.Put("a", nil)); !errors.Is(err, physical.ErrUnavailable) {
				t.Errorf("a write while raft does not run: %v", err)
			}
			must(t, s.Close())
			raw, err = os.ReadFile(mark)
			must(t, err)
			if strings.TrimSpace(string(raw)) != markClean {
				t.Errorf("mark %q after Close", raw)
			}
		})
	}
}

// A state file that is damaged although the mark says otherwise is built again too.
func TestDamagedState(t *testing.T) {
	c := newCluster(t, 1, nil)
	put(t, c.leader().Store, "a", "1")
	c.stop(0)
	state := filepath.Join(c.nodes[0].path, "raft", "state.db")
	whole, err := os.ReadFile(state)
	must(t, err)
	for name, content := range map[string][]byte{"halved": whole[:len(whole)/2], "junk": []byte("junk"), "empty": {}, "zeros": make([]byte, len(whole))} {
		must(t, os.WriteFile(state, content, 0o600))
		s, err := Open(Config{Path: c.nodes[0].path})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if e, err := s.Get(t.Context(), "a"); err != nil || string(e.Value) != "1" {
			t.Errorf("%s: %v, %v", name, e, err)
		}
		must(t, s.Close())
	}
}

// A second process cannot open the directory.
func TestInUse(t *testing.T) {
	c := newCluster(t, 1, nil)
	_, err := Open(Config{Path: c.nodes[0].path})
	if !errors.Is(err, errInUse) || !strings.Contains(err.Error(), c.nodes[0].path) {
		t.Errorf("got %v", err)
	}
	if hinted := (interface{ Hint() string })(nil); !errors.As(err, &hinted) || hinted.Hint() == "" {
		t.Errorf("%v comes without a hint", err)
	}
}

// A restart without a power loss builds nothing again, and neither does one with a snapshot.
func TestRestartTrustsState(t *testing.T) {
	c := newCluster(t, 1, nil)
	l := c.leader()
	for i := range 200 {
		put(t, l.Store, fmt.Sprint("a/", i), "1")
	}
	must(t, l.running().raft.Snapshot().Error())
	put(t, l.Store, "b", "2")
	c.stop(0)
	before, err := os.Stat(filepath.Join(c.nodes[0].path, "raft", "state.db"))
	must(t, err)
	s, err := Open(Config{Path: c.nodes[0].path})
	must(t, err)
	after, err := os.Stat(filepath.Join(c.nodes[0].path, "raft", "state.db"))
	must(t, err)
	if !os.SameFile(before, after) {
		t.Error("the state was built again")
	}
	must(t, s.Close())
}

// Snapshots come by bytes, the log behind them is cut, and a node that was away for long gets one.
func TestSnapshotsAndCatchUp(t *testing.T) {
	taken := make(chan error, 100)
	c := newCluster(t, 3, func(cfg *Config) {
		calm(cfg)
		cfg.SnapshotBytes = 256 << 10
		cfg.Observer.Snapshot = func(_ time.Duration, err error) { taken <- err }
	})
	l := c.leaderIndex()
	away := (l + 1) % 3
	c.stop(away)
	value := strings.Repeat("v", 4096)
	for i := 0; ; i++ {
		put(t, c.nodes[l].Store, fmt.Sprint("a/", i%500), value)
		select {
		case err := <-taken:
			must(t, err)
		default:
			continue
		}
		if first, _ := c.nodes[l].log.FirstIndex(); first > c.nodes[away].lastBefore(t)+1 {
			break
		}
	}
	put(t, c.nodes[l].Store, "last", "1")
	c.open(away, false)
	wantValue(t, c.nodes[away].Store, "last", "1")
	wantValue(t, c.nodes[away].Store, "a/1", value)
	c.wantHealthy(3, "after")
	for i := range c.nodes { // and all of it survives a restart
		c.stop(i)
	}
	for i := range c.nodes {
		c.open(i, false)
	}
	c.wantHealthy(3, "again")
	wantValue(t, c.nodes[away].Store, "a/1", value)
}

// lastBefore reads how far the log of a node that is stopped reaches.
func (n *node) lastBefore(t testing.TB) uint64 {
	t.Helper()
	log, err := openLogStore(filepath.Join(n.path, "raft", "log"), false)
	must(t, err)
	defer func() { must(t, log.Close()) }()
	last, _ := log.LastIndex()
	return last
}

// A leader whose log cannot be written steps down, another leads, and nothing is lost; when there is room
// again it is a member like any other.
func TestFullDiskOfTheLeader(t *testing.T) {
	c := newCluster(t, 3, calm)
	l := c.leader()
	put(t, l.Store, "a", "1")
	full := errors.New("no space left on device")
	l.log.writing.Lock()
	l.log.wal.zeroed = func(string, int64) (*os.File, error) { return nil, full }
	l.log.writing.Unlock()
	value := []byte(strings.Repeat("v", 100000))
	var err error
	acked := 0
	for err == nil {
		if err = l.Commit(t.Context(), nil, physical.Put(fmt.Sprint("v/", acked), value)); err == nil {
			acked++
		}
	}
	if !errors.Is(err, physical.ErrUnknown) && !errors.Is(err, physical.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	var other *node
	c.eventually(10*time.Second, func(ctx ctxT) error {
		other = c.leader()
		if other == l {
			return errors.New("the node with the full disk leads")
		}
		return other.Commit(ctx, nil, physical.Put("b", []byte("2")))
	})
	for i := range acked {
		wantValue(t, other.Store, fmt.Sprint("v/", i), string(value))
	}
	l.log.writing.Lock()
	l.log.wal.zeroed = zeroFile
	l.log.writing.Unlock()
	c.wantHealthy(3, "room again")
	wantValue(t, l.Store, "b", "2")
}

// Renewals count from before they were sent, and a node that is cut off has no lock when another gets it.
func TestIsolatedHolderLosesTheLock(t *testing.T) {
	c := newCluster(t, 3, nil)
	n, g := c.acquire()
	_, err := n.Renew(t.Context(), g)
	must(t, err)
	heal := c.net.isolate(n.ID(), c.ids()...)
	defer heal()
	cut := time.Now()
	ctx, cancel := contextFor(t, 50*time.Millisecond)
	if _, err := n.Renew(ctx, g); err == nil || errors.Is(err, physical.ErrLost) {
		t.Errorf("a renewal that nobody answers: %v", err)
	}
	cancel()
	c.eventually(5*time.Second, func(ctx ctxT) error {
		for _, other := range c.nodes {
			if other == n {
				continue
			}
			if _, err := other.Acquire(ctx, physical.Record{Holder: other.ID()}, time.Second, 0); err == nil {
				return nil
			}
		}
		return errors.New("nobody got the lock")
	})
	if took := time.Since(cut); took < g.TTL-100*time.Millisecond {
		t.Errorf("another had it after %v", took)
	}
	if _, err := n.Renew(t.Context(), g); !errors.Is(err, physical.ErrLost) {
		t.Errorf("renewal afterwards: %v", err)
	}
}
