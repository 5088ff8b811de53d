package cache

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	hraft "github.com/hashicorp/raft"
)

// aheadTest is the leader of term 3 with a lane to a follower, which the test plays.
type aheadTest struct {
	*testing.T
	trans *transport
	way   *lane
	peer  net.Conn
	r     *bufio.Reader
	mu    sync.Mutex
	said  []string // what was found to be committed
}

func newAheadTest(t *testing.T, members ...string) *aheadTest {
	t.Helper()
	log, b := newMemLog(), newBook()
	log.begin(configuration(members...), 0)
	if err := log.StoreLogs([]*hraft.Log{{Index: 1, Term: 2}}); err != nil {
		t.Fatal(err)
	}
	a := &aheadTest{T: t, trans: newTransport("me", "h1", "cluster", &dialer{}, 5*time.Second, b, log, &progress{})}
	a.trans.carry = func(term, index uint64) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.said = append(a.said, fmt.Sprintf("%d of term %d", index, term))
	}
	b.begin(3, func(uint64) {})
	b.members(configuration(members...))
	a.way = a.trans.laneTo("b", joinTarget("b", "h2"))
	t.Cleanup(func() { _ = a.trans.Close() })
	a.connect()
	return a
}

// connect is what dial does, with the test at the other end.
func (a *aheadTest) connect() {
	a.Helper()
	ours, theirs := pair(a.T)
	a.peer, a.r = theirs, bufio.NewReader(theirs)
	if !a.trans.track(ours) {
		a.Fatal("closed")
	}
	c := &wireConn{Conn: ours, r: bufio.NewReader(ours)}
	a.way.mu.Lock()
	a.way.conn = c
	a.way.mu.Unlock()
	a.trans.work.Go(func() { a.way.listen(c) })
}

// store has the leader store entries of a term and send them ahead.
func (a *aheadTest) store(term uint64, types ...hraft.LogType) {
	a.Helper()
	next, _ := a.trans.log.LastIndex()
	var logs []*hraft.Log
	for i, kind := range types {
		e := &hraft.Log{Index: next + 1 + uint64(i), Term: term, Type: kind, Data: []byte("x")}
		if kind == hraft.LogConfiguration {
			e.Data = hraft.EncodeConfiguration(configuration("me", "b", "c", "d"))
		}
		logs = append(logs, e)
	}
	if err := a.trans.log.StoreLogs(logs); err != nil {
		a.Fatal(err)
	}
	a.trans.ahead(term, logs)
}

// got reads what the follower was sent: "term prev/term first-last".
func (a *aheadTest) got() string {
	a.Helper()
	if err := a.peer.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		a.Fatal(err)
	}
	frame, err := readFrame(a.r, nil)
	if err != nil {
		a.Fatal(err)
	}
	m, err := decodeAppend(frame[1:])
	if err != nil || frame[0] != msgAppend {
		a.Fatal(frame[0], err)
	}
	return fmt.Sprintf("%d %d/%d %d-%d", m.Term, m.PrevLogEntry, m.PrevLogTerm, m.Entries[0].Index, m.Entries[len(m.Entries)-1].Index)
}

func (a *aheadTest) expect(want string) {
	a.Helper()
	if got := a.got(); got != want {
		a.Fatalf("sent %s, not %s", got, want)
	}
}

func (a *aheadTest) answer(resp hraft.AppendEntriesResponse) {
	a.Helper()
	if _, err := a.peer.Write(endFrame(appendAppendAnswer(beginFrame(nil, 0), &resp, resp.LastLog))); err != nil {
		a.Fatal(err)
	}
}

// await waits until the lane is so.
func (a *aheadTest) await(what string, ok func(l *lane) bool) {
	a.Helper()
	waitFor(a.T, 10*time.Second, what, func() bool {
		a.way.mu.Lock()
		defer a.way.mu.Unlock()
		return ok(a.way)
	})
}

func (a *aheadTest) committed() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return fmt.Sprint(a.said)
}

// raft sends entries as raft's replication does, and returns up to where it takes them for acknowledged; 0 for not at all.
func (a *aheadTest) raft(term, first, last uint64) uint64 {
	args := &hraft.AppendEntriesRequest{Term: term, PrevLogEntry: first - 1}
	for i := first; i <= last; i++ {
		args.Entries = append(args.Entries, &hraft.Log{Index: i, Term: term})
	}
	var resp hraft.AppendEntriesResponse
	if !a.way.attach(args, &resp) {
		return 0
	}
	if !resp.Success || resp.Term != term {
		a.Errorf("attached, and answered %+v", resp)
	}
	return args.Entries[len(args.Entries)-1].Index
}

func acked(index uint64) func(*lane) bool {
	return func(l *lane) bool { return l.acked == index && len(l.aloft) == 0 }
}

func closed(l *lane) bool { return l.term == 0 && len(l.aloft) == 0 }

// ADR 0027: entries are sent as soon as they are stored, an acknowledgement commits them, and raft finds both.
func TestAhead(t *testing.T) {
	a := newAheadTest(t, "me", "b", "c")
	a.store(3, hraft.LogCommand) // the lane is not open: raft sends it
	a.way.open(3, 2)
	a.store(3, hraft.LogCommand, hraft.LogCommand)
	a.expect("3 2/3 3-4")
	a.store(3, hraft.LogCommand)
	a.expect("3 4/3 5-5") // before the first is answered
	if a.raft(4, 3, 4) != 0 || a.raft(3, 3, 6) != 0 {
		t.Error("raft's message attached to what was not sent")
	}
	done := make(chan uint64)
	go func() { done <- a.raft(3, 3, 4) }()
	a.answer(hraft.AppendEntriesResponse{Term: 3, LastLog: 4, Success: true})
	a.answer(hraft.AppendEntriesResponse{Term: 3, LastLog: 5, Success: true})
	if last := <-done; last != 4 && last != 5 {
		t.Errorf("raft knows of %d", last)
	}
	a.await("acknowledged", acked(5))
	waitFor(t, 10*time.Second, "committed", func() bool { return a.committed() == "[4 of term 3 5 of term 3]" })
	if p := a.trans.book.get("b"); p.match != 5 || p.applied != 5 {
		t.Errorf("the book says %+v", p)
	}
	if last := a.raft(3, 3, 4); last != 5 { // all at once
		t.Errorf("raft knows of %d", last)
	}
	// One that raft itself sent meanwhile is not sent again.
	a.way.open(3, 5)
	a.store(3, hraft.LogCommand)
	a.expect("3 5/3 6-6")
}

// What an acknowledgement of another term says counts for nothing: not of one before, and not a refusal by one that knows a later one.
func TestAheadTerms(t *testing.T) {
	a := newAheadTest(t, "me", "b", "c")
	a.way.open(3, 1)
	a.store(3, hraft.LogCommand)
	a.expect("3 1/2 2-2")
	a.trans.book.begin(4, func(uint64) {}) // it led no more, and leads again
	a.trans.book.members(configuration("me", "b", "c"))
	a.way.open(4, 1)
	a.answer(hraft.AppendEntriesResponse{Term: 3, LastLog: 2, Success: true})
	a.await("answered", func(l *lane) bool { return len(l.aloft) == 0 })
	if got := a.committed(); got != "[]" || a.trans.book.get("b").match != 0 {
		t.Errorf("an acknowledgement of term 3 in term 4 committed %s", got)
	}
	if a.await("open", func(l *lane) bool { return l.term == 4 && l.acked == 1 }); a.raft(3, 2, 2) != 0 {
		t.Error("raft's message of term 3 was answered by term 4")
	}
	a.store(4, hraft.LogCommand) // behind one of term 3 that the follower may not have: raft sends both
	a.await("closed", closed)

	a.way.open(4, 3)
	a.store(4, hraft.LogCommand)
	a.expect("4 3/4 4-4")
	a.answer(hraft.AppendEntriesResponse{Term: 5, LastLog: 3})
	a.await("closed", closed)
	if got := a.committed(); got != "[]" || a.raft(4, 4, 4) != 0 {
		t.Errorf("a refusal committed %s", got)
	}
}

// Where the leader and the follower are no majority, or the voters change, raft counts.
func TestAheadConfiguration(t *testing.T) {
	a := newAheadTest(t, "me", "b", "c")
	a.way.open(3, 1)
	a.store(3, hraft.LogCommand)
	a.expect("3 1/2 2-2")
	a.store(3, hraft.LogConfiguration) // not committed: raft knows of no commit here
	a.answer(hraft.AppendEntriesResponse{Term: 3, LastLog: 2, Success: true})
	a.await("closed", closed)
	a.way.open(3, 3)
	a.store(3, hraft.LogCommand)
	if got := a.committed(); got != "[]" {
		t.Errorf("committed %s while the voters change", got)
	}
	a.await("nothing is sent", acked(3))

	five := newAheadTest(t, "me", "b", "c", "d", "e")
	five.way.open(3, 1)
	five.store(3, hraft.LogCommand)
	five.await("nothing is sent", acked(1))
	five.trans.has("b", 3, 2, 2)
	if got := five.committed(); got != "[]" {
		t.Errorf("two of five committed %s", got)
	}
}

// A follower that is behind, does not read or is gone is left to raft, and nobody waits for it.
func TestAheadLost(t *testing.T) {
	a := newAheadTest(t, "me", "b", "c")
	a.way.open(3, 1)
	a.store(3, hraft.LogCommand)
	a.answer(hraft.AppendEntriesResponse{Term: 3, LastLog: 0, NoRetryBackoff: true})
	a.await("closed", closed)

	a.way.open(3, 2)
	for range 3 * aheadMessages {
		a.store(3, hraft.LogCommand)
	}
	last := uint64(2 + aheadMessages)
	a.await("no more is sent", func(l *lane) bool { return len(l.aloft) == aheadMessages && l.sent == last })
	done := make(chan uint64)
	go func() { done <- a.raft(3, 3, last) }()
	_ = a.peer.Close()
	if got := <-done; got != 0 {
		t.Errorf("a connection that ended acknowledged %d", got)
	}
	a.await("gone", func(l *lane) bool { return l.conn == nil && l.term == 0 })

	a.connect()
	a.way.open(3, last)
	a.store(3, hraft.LogCommand) // with those that came before it
	a.expect(fmt.Sprintf("3 %d/3 %d-%d", last, last+1, 2+3*aheadMessages+1))
	a.way.t.limit = 10 * time.Millisecond
	if a.raft(3, last+1, last+1) != 0 {
		t.Error("what was not answered was acknowledged")
	}
	a.await("dropped", func(l *lane) bool { return l.conn == nil && l.term == 0 })
}

// A snapshot is for a follower that has not what is in it: what it acknowledges afterwards of what it had before counts for nothing.
func TestAheadSnapshot(t *testing.T) {
	a := newAheadTest(t, "me", "b", "c")
	a.way.open(3, 1)
	a.store(3, hraft.LogCommand, hraft.LogCommand)
	a.expect("3 1/2 2-3")
	a.answer(hraft.AppendEntriesResponse{Term: 3, LastLog: 3, Success: true})
	a.await("acknowledged", acked(3))
	var resp hraft.InstallSnapshotResponse
	err := a.trans.InstallSnapshot("b", joinTarget("b", "h2"), &hraft.InstallSnapshotRequest{Term: 3, LastLogIndex: 3}, &resp, nil)
	if err != nil || !resp.Success || resp.Term != 3 {
		t.Errorf("a snapshot of what the follower has: %+v, %v", resp, err)
	}
	waitFor(t, 10*time.Second, "committed", func() bool { return a.committed() == "[3 of term 3]" })
	a.store(3, hraft.LogCommand)
	if a.way.covers(3, 4) {
		t.Error("a snapshot of more is not needed")
	}
	_, _ = a.peer.Write(endFrame(appendAppendAnswer(beginFrame(nil, 0), &hraft.AppendEntriesResponse{Term: 3, LastLog: 4, Success: true}, 4)))
	a.await("gone", func(l *lane) bool { return l.conn == nil && l.term == 0 })
	_ = a.trans.Close() // it waits for who reads
	if got := a.committed(); got != "[3 of term 3]" {
		t.Errorf("committed %s", got)
	}
}

// The log is carried out once and in order, by whoever comes first, and never beyond what is there, or is of another term.
func TestCarry(t *testing.T) {
	log := newMemLog()
	f := newFSM(newEvents(), log)
	f.failed = func(err error) { t.Error(err) }
	var ran []uint64
	f.carried = func(_, _, index uint64, _ []response) { ran = append(ran, index) }
	put := func(i, term uint64) *hraft.Log {
		r := request{ops: []Op{{Kind: OpPut, Cache: "c", Key: fmt.Sprint(i)}}}
		data := append(make([]byte, 0, 64), entryFormat, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)
		return &hraft.Log{Index: i, Term: term, Data: appendRequest(data, &r)}
	}
	conf := &hraft.Log{Index: 3, Term: 1, Type: hraft.LogConfiguration, Data: hraft.EncodeConfiguration(configuration("a", "b"))}
	logs := []*hraft.Log{put(1, 1), put(2, 1), conf, {Index: 4, Term: 2, Type: hraft.LogNoop}, put(5, 2), put(6, 2)}
	if err := log.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
	f.Apply(logs[0])
	f.carry(1, 5) // its term is another: this is not the entry that is meant
	f.carry(2, 7) // not here
	if !slices.Equal(ran, []uint64{1}) {
		t.Fatalf("carried out: %v", ran)
	}
	f.carry(2, 5)
	f.carry(2, 5)
	f.Apply(logs[1])
	f.StoreConfiguration(3, configuration("a"))
	f.Apply(logs[4])
	f.Apply(logs[5])
	f.carry(2, 6)
	if !slices.Equal(ran, []uint64{1, 2, 5, 6}) || f.index != 6 || f.configAt != 3 || len(f.config.Servers) != 2 {
		t.Fatalf("carried out: %v, up to %d, configuration %+v at %d", ran, f.index, f.config, f.configAt)
	}
}

// Writes go on, each of them done once, while the voters change and lanes close and open: nothing acknowledged is lost, nothing done twice.
func TestAheadWhileVotersChange(t *testing.T) {
	c := newCluster(t, 3, Config{ElectionTimeout: time.Second, QuorumLossTimeout: 20 * time.Second})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	leader := c.leader()
	in := c.nodes[leader].Cache("c")
	counts := make([]int64, 4)
	for i := range counts {
		wg.Go(func() {
			for key := fmt.Sprint(i); ctx.Err() == nil; {
				n, err := in.Increment(context.WithoutCancel(ctx), key, 1, NoExpiry)
				switch {
				case errors.Is(err, ErrUnknown): // a busy machine cost the leader its leadership
					n, err = in.Increment(context.WithoutCancel(ctx), key, 0, NoExpiry)
					if err == nil && n != counts[i] && n != counts[i]+1 {
						t.Errorf("counted %d after %d and one of unknown outcome", n, counts[i])
					}
				case err == nil && n != counts[i]+1:
					t.Errorf("counted %d after %d", n, counts[i])
				}
				if err == nil {
					counts[i] = n
				}
			}
		})
	}
	for _, host := range c.others(leader) {
		c.crash(host)
		c.start(host, c.hosts)
		c.await(60*time.Second, Good, c.all()...)
	}
	cancel()
	wg.Wait()
	for i, n := range counts {
		for _, host := range c.all() {
			item, err := c.nodes[host].Cache("c").Get(t.Context(), fmt.Sprint(i), Consistent)
			if err != nil || string(item.Value) != fmt.Sprint(n) || n == 0 {
				t.Errorf("%s has %q of counter %d, not %d: %v", host, item.Value, i, n, err)
			}
		}
	}
}
