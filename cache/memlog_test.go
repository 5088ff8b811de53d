package cache

import (
	"testing"

	hraft "github.com/hashicorp/raft"
)

func configuration(ids ...string) hraft.Configuration {
	var c hraft.Configuration
	for _, id := range ids {
		c.Servers = append(c.Servers, hraft.Server{ID: hraft.ServerID(id), Address: joinTarget(id, id+":1")})
	}
	return c
}

// TestMemLog: the log knows the configuration that it ends with, whatever is appended, cut off, or replaced by
// a state: the early commit (ADR 0019) stands on that.
func TestMemLog(t *testing.T) {
	l := newMemLog()
	command := func(i uint64) *hraft.Log { return &hraft.Log{Index: i, Term: 1, Data: []byte("x")} }
	members := func(i uint64, ids ...string) *hraft.Log {
		return &hraft.Log{Index: i, Term: 1, Type: hraft.LogConfiguration, Data: hraft.EncodeConfiguration(configuration(ids...))}
	}
	check := func(servers int, at, seen, first, last uint64) {
		t.Helper()
		c, index := l.latest()
		f, _ := l.FirstIndex()
		e, _ := l.LastIndex()
		if len(c.Servers) != servers || index != at || l.last() != seen || f != first || e != last {
			t.Fatalf("%d servers at %d, seen up to %d, entries %d to %d; want %d at %d, %d, %d to %d", len(c.Servers), index, l.last(), f, e, servers, at, seen, first, last)
		}
	}
	if err := l.StoreLogs([]*hraft.Log{members(1, "a"), command(2), members(3, "a", "b"), command(4), {Index: 5, Term: 1, Type: hraft.LogNoop}}); err != nil {
		t.Fatal(err)
	}
	check(2, 3, 4, 1, 5)
	if err := l.DeleteRange(3, 5); err != nil { // another leader's log is another from there
		t.Fatal(err)
	}
	check(1, 1, 2, 1, 2)
	if err := l.StoreLogs([]*hraft.Log{members(3, "a", "b", "c"), command(4)}); err != nil {
		t.Fatal(err)
	}
	if err := l.DeleteRange(1, 3); err != nil { // compacted
		t.Fatal(err)
	}
	check(3, 3, 4, 4, 4)
	if err := l.StoreLog(command(9)); err == nil {
		t.Fatal("a gap was taken")
	}
	l.begin(configuration("a", "b", "c", "d", "e"), 8) // a state takes the place of the log
	if err := l.DeleteRange(4, 4); err != nil {
		t.Fatal(err)
	}
	if err := l.StoreLog(command(11)); err != nil {
		t.Fatal(err)
	}
	check(5, 8, 11, 11, 11)
	if _, bytes := l.usage(); bytes != logCost+1 || l.keepable(bytes) != 1 || l.keepable(bytes-1) != 0 {
		t.Fatalf("%d bytes", bytes)
	}
}

// TestCommitEarly: an entry is committed by a follower alone only where it and the leader are a majority.
func TestCommitEarly(t *testing.T) {
	for _, c := range []struct {
		name    string
		members []string
		at      uint64 // where the configuration stands
		entry   hraft.Log
		early   bool
	}{
		{"three voters", []string{"me", "leader", "c"}, 1, hraft.Log{Index: 9, Term: 3}, true},
		{"two voters", []string{"me", "leader"}, 1, hraft.Log{Index: 9, Term: 3}, true},
		{"five voters", []string{"me", "leader", "c", "d", "e"}, 1, hraft.Log{Index: 9, Term: 3}, false},
		{"without a vote", []string{"leader", "b", "c"}, 1, hraft.Log{Index: 9, Term: 3}, false},
		{"an entry of an earlier term", []string{"me", "leader", "c"}, 1, hraft.Log{Index: 9, Term: 2}, false},
		{"a change of the voters", []string{"me", "leader", "c"}, 1, hraft.Log{Index: 9, Term: 3, Type: hraft.LogConfiguration}, false},
		{"a change that is not committed", []string{"me", "leader", "c"}, 7, hraft.Log{Index: 9, Term: 3}, false},
		{"a change that the leader may not have", []string{"me", "leader", "c"}, 5, hraft.Log{Index: 9, Term: 3}, false},
	} {
		l := newMemLog()
		l.begin(configuration(c.members...), c.at)
		in := &inbound{transport: &transport{self: "me", log: l}, peer: hello{from: "leader"}}
		m := &hraft.AppendEntriesRequest{Term: 3, PrevLogEntry: 4, LeaderCommitIndex: 5}
		for i := m.PrevLogEntry + 1; i < c.entry.Index; i++ {
			m.Entries = append(m.Entries, &hraft.Log{Index: i, Term: 3})
		}
		m.Entries = append(m.Entries, &c.entry)
		if in.early(m) != c.early {
			t.Errorf("%s: early %v", c.name, !c.early)
		}
	}
}
