package cache

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locum-ha/locum/internal/boottime"
)

// TestMachineClock: what the machine has slept is added, once, and a clock that is read late, as after a preemption, adds nothing.
func TestMachineClock(t *testing.T) {
	var slept, late atomic.Int64
	c := newMachineClock(func() boottime.Instant {
		return boottime.Now().Add(time.Duration(slept.Load() - late.Load()))
	})
	before := c.now()
	slept.Store(int64(time.Hour))
	c.asked.Store(-clockStep - 1) // as after the steps that a machine takes to sleep
	if passed := time.Duration(c.now() - before); passed < time.Hour-time.Second || passed > time.Hour+time.Minute {
		t.Fatalf("the machine slept for an hour, and %v have passed", passed)
	}
	late.Store(int64(time.Minute))
	for last := c.now(); time.Duration(last-before) < time.Hour+20*time.Millisecond; {
		next := c.now()
		if next < last {
			t.Fatalf("the clock went back by %v", time.Duration(last-next))
		}
		last = next
	}
	if passed := time.Duration(c.now() - before); passed > time.Hour+time.Minute {
		t.Fatalf("%v have passed", passed)
	}
}

// sleep is what a suspended machine looks like to all nodes of this process. Tests that call it are not parallel.
func sleep(d time.Duration) { machine.slept.Add(int64(d)) }

// TestSuspended: a machine that wakes shows nothing that is as old as its sleep was long (P11), and no entry outlives its TTL by that.
func TestSuspended(t *testing.T) {
	ctx := t.Context()
	single := start(t, Config{})
	if _, err := single.Cache("c").Put(ctx, "code", []byte("v"), 10*time.Minute, Quorum); err != nil {
		t.Fatal(err)
	}

	c := newCluster(t, 3, Config{})
	leader := c.leader()
	cut := c.nodes[c.others(leader)[0]]
	if _, err := cut.Cache("c").Put(ctx, "session", []byte("v"), 10*time.Minute, Quorum); err != nil {
		t.Fatal(err)
	}
	if _, err := cut.Cache("c").Get(ctx, "session", OwnWrites); err != nil {
		t.Fatal(err)
	}
	c.nw.isolate(cut.host, c.hosts, true)
	sleep(time.Hour)
	for range 1000 {
		if item, err := cut.Cache("c").Get(ctx, "session", Local); !errors.Is(err, ErrNoQuorum) {
			t.Fatalf("after an hour: %q, %v", item.Value, err)
		}
	}
	for _, read := range []Read{Local, Consistent} {
		if item, err := single.Cache("c").Get(ctx, "code", read); !errors.Is(err, ErrNotFound) {
			t.Fatalf("after an hour, read %v: %q is still there, %v", read, item.Value, err)
		}
	}
	c.nw.isolate(cut.host, c.hosts, false)
	c.await(20*time.Second, Good, c.hosts...)
	for _, h := range c.hosts {
		for _, read := range []Read{Local, Consistent} {
			waitFor(t, 20*time.Second, "an answer", func() bool { // its health may be told as it was before
				item, err := c.nodes[h].Cache("c").Get(ctx, "session", read)
				if err == nil {
					t.Fatalf("%s, after an hour, read %v: %q is still there", h, read, item.Value)
				}
				return errors.Is(err, ErrNotFound)
			})
		}
	}
	waitFor(t, 20*time.Second, "a write", func() bool {
		_, err := cut.Cache("c").Put(ctx, "session", []byte("next"), 10*time.Minute, Quorum)
		return err == nil
	})
	if item, err := cut.Cache("c").Get(ctx, "session", OwnWrites); err != nil || item.TTL > 10*time.Minute || item.TTL < 9*time.Minute {
		t.Fatalf("a new session: %+v, %v", item, err)
	}
}
