package raft

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/locum-ha/locum/physical"
)

// "Cancelled contexts honoured": whoever wants the lock while a restore holds the turn waits for no longer than its context.
func TestTurnEndsWithContext(t *testing.T) {
	c := newCluster(t, 1, calm)
	l := c.leader()
	g, err := l.Acquire(t.Context(), physical.Record{Holder: l.ID()}, time.Second, 0)
	must(t, err)
	var snap bytes.Buffer
	must(t, l.Snapshot(t.Context(), &snap))
	must(t, l.lockTurn.lock(t.Context()))
	for what, do := range map[string]func(ctx ctxT) error{
		"release": func(ctx ctxT) error { return l.Release(ctx, g, "") },
		"yield":   func(ctx ctxT) error { return l.Yield(ctx, "") },
		"restore": func(ctx ctxT) error { return l.Restore(ctx, bytes.NewReader(snap.Bytes())) },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		done := make(chan error, 1)
		go func() { done <- do(ctx) }()
		select {
		case err := <-done:
			if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, physical.ErrUnavailable) {
				t.Errorf("%s: %v", what, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s outlasts its context", what)
			l.lockTurn.unlock()
			<-done
			must(t, l.lockTurn.lock(t.Context()))
		}
		cancel()
	}
	l.lockTurn.unlock()
	must(t, l.Release(t.Context(), g, ""))
	must(t, l.lockTurn.lock(t.Context()))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := l.Acquire(ctx, physical.Record{Holder: l.ID()}, time.Second, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("acquire: %v", err)
	}
	l.lockTurn.unlock()
}

// P12: what a process that died during a snapshot, a restore or a recovery left behind goes when the directory is opened again.
func TestLeftBehind(t *testing.T) {
	c := newCluster(t, 1, nil)
	put(t, c.leader().Store, "a", "1")
	c.stop(0)
	dir := filepath.Join(c.nodes[0].path, "raft")
	left := []string{"snapshot-123", "restore-456", "recover.db"}
	for _, name := range left {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
	}
	c.open(0, false)
	for _, name := range left {
		if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c.leader()
	wantValue(t, c.nodes[0].Store, "a", "1")
}

// A snapshot brings the entries back on every node; terms and fence never go down.
func TestSnapshotRestore(t *testing.T) {
	c := newCluster(t, 3, calm)
	l := c.leader()
	for i := range 300 {
		put(t, l.Store, fmt.Sprintf("a/%d", i), "old")
	}
	var snap bytes.Buffer
	must(t, l.Snapshot(t.Context(), &snap))

	g, err := l.Acquire(t.Context(), physical.Record{Holder: l.ID()}, time.Second, 41)
	must(t, err)
	fence := physical.Fence{Lineage: "x", Term: g.Term(), Nonce: [16]byte{1}}
	must(t, l.RaiseFence(t.Context(), physical.Fence{}, fence))
	must(t, l.Commit(t.Context(), &fence, physical.Put("a/1", []byte("new")), physical.Put("b", []byte("new"))))

	for name, broken := range map[string][]byte{
		"cut short":      snap.Bytes()[:snap.Len()-1],
		"a flipped bit":  append(append([]byte{}, snap.Bytes()[:snap.Len()/2]...), append([]byte{snap.Bytes()[snap.Len()/2] ^ 1}, snap.Bytes()[snap.Len()/2+1:]...)...),
		"something else": []byte("hello"),
		"newer format":   append([]byte("locumsnp\x02"), snap.Bytes()[9:]...),
	} {
		if err := l.Restore(t.Context(), bytes.NewReader(broken)); !errors.Is(err, ErrSnapshot) {
			t.Errorf("%s: got %v, want ErrSnapshot", name, err)
		}
	}
	for _, n := range c.nodes {
		wantValue(t, n.Store, "b", "new")
	}

	must(t, l.Restore(t.Context(), bytes.NewReader(snap.Bytes())))
	for _, n := range c.nodes {
		eventually(t, 10*time.Second, func(ctx ctxT) error {
			if _, err := n.Get(ctx, "b"); !errors.Is(err, physical.ErrNotFound) {
				return fmt.Errorf("an entry from after the snapshot: %v", err)
			}
			return nil
		})
		wantValue(t, n.Store, "a/1", "old")
		if _, err := n.Get(t.Context(), "b"); !errors.Is(err, physical.ErrNotFound) {
			t.Errorf("an entry from after the snapshot: %v", err)
		}
		if f, _ := n.Fence(t.Context()); f != fence {
			t.Errorf("the fence is %v, want it to stay %v", f, fence)
		}
	}
	if _, err := l.Renew(t.Context(), g); err != nil {
		t.Errorf("the lock did not outlive the restore: %v", err)
	}
	must(t, l.Commit(t.Context(), &fence, physical.Put("c", []byte("after"))))
	for _, n := range c.nodes {
		wantValue(t, n.Store, "c", "after")
	}

	// Into another cluster: its terms go on above the snapshot's.
	var second bytes.Buffer
	must(t, l.Snapshot(t.Context(), &second))
	other := newCluster(t, 1, calm)
	o := other.leader()
	must(t, o.Restore(t.Context(), bytes.NewReader(second.Bytes())))
	wantValue(t, o.Store, "c", "after")
	og, err := o.Acquire(t.Context(), physical.Record{Holder: o.ID()}, time.Second, 0)
	must(t, err)
	if og.Term() <= g.Term() {
		t.Errorf("term %d after a restore of term %d", og.Term(), g.Term())
	}
	other.stop(0)
	other.open(0, false)
	wantValue(t, other.leader().Store, "c", "after")
}

// When a majority is lost for good, one node can be made the whole cluster; the term never goes down.
func TestRecover(t *testing.T) {
	c := newCluster(t, 3, calm)
	put(t, c.leader().Store, "a", "1")
	for _, n := range c.nodes {
		wantValue(t, n.Store, "a", "1")
	}
	last := c.nodes[2]
	before := last.Stats().RaftTerm
	if err := Recover(last.path, []Peer{{ID: last.ID(), Addr: last.addr}}); err == nil {
		t.Error("recover took a directory that is in use")
	}
	id := last.ID()
	c.stop(2)
	// The last term is one that the node that is left has never heard of: it is not given again.
	var g physical.Grant
	eventually(t, 20*time.Second, func(ctx ctxT) (err error) {
		l := c.leader()
		g, err = l.Acquire(ctx, physical.Record{Holder: l.ID()}, time.Second, 10)
		return err
	})
	for i := range 2 {
		c.stop(i)
	}
	if err := Recover(last.path, []Peer{{ID: "another", Addr: last.addr}}); err == nil {
		t.Error("recover made a cluster without the node of the directory")
	}
	must(t, Recover(last.path, []Peer{{ID: id, Addr: last.addr}}))
	must(t, Recover(last.path, []Peer{{ID: id, Addr: last.addr}})) // who is not sure that it went through says it again
	c.open(2, false)
	n := c.leader()
	if n != last {
		t.Fatal("another leads")
	}
	wantValue(t, n.Store, "a", "1")
	if now := n.Stats().RaftTerm; now <= before {
		t.Errorf("raft term %d after %d", now, before)
	}
	eventually(t, 20*time.Second, func(ctx ctxT) error {
		again, err := n.Acquire(ctx, physical.Record{Holder: n.ID()}, time.Second, 0)
		if err == nil && again.Term() <= g.Term() {
			t.Errorf("term %d after %d", again.Term(), g.Term())
		}
		return err
	})
	put(t, n.Store, "a", "2")

	// The others come back empty and join anew.
	for i := range 2 {
		must(t, removeAll(c.nodes[i].path))
		c.open(i, false)
		c.eventually(5*time.Second, func(ctx ctxT) error { return c.leader().AddPeer(ctx, c.nodes[i].ID(), c.nodes[i].addr) })
	}
	c.voters(3)
	for _, n := range c.nodes {
		wantValue(t, n.Store, "a", "2")
	}
}
