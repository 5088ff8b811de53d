package cache

import (
	"bufio"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	hraft "github.com/hashicorp/raft"
)

// lane is the leader's way to one follower for entries that are sent as soon as the leader's own log has them, before raft's replication
// wakes for them. Raft, when it comes to send the same, finds them sent or acknowledged already (see attach).
type lane struct {
	t    *transport
	id   string
	addr hraft.ServerAddress

	mu    sync.Mutex
	conn  *wireConn // nil until it is dialled
	armed time.Time // when the limit of a write was set last
	dials bool
	tried time.Time
	term  uint64 // whose entries go ahead; 0 for none: raft's own messages bring the follower up first
	sent  uint64 // the follower has the log up to acked, and was sent what follows up to sent
	acked uint64
	aloft []sentAhead // on conn and not answered, in order
	bytes int
	want  uint64        // tell news when acked has come so far; 0 for never
	news  chan struct{} // has room for one: see want; or the lane has closed
}

// sentAhead is a message that has not been answered.
type sentAhead struct {
	term, last uint64
	bytes      int
}

// What may be on its way to a follower that does not answer is far less than a socket takes without blocking: raft's main loop writes it.
const (
	aheadMessages = 32
	aheadBytes    = 32 << 10
	aheadLag      = 32 // entries that raft may be behind with what is acknowledged
)

// laneTo returns the way to a follower.
func (t *transport) laneTo(id string, addr hraft.ServerAddress) *lane {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.lanes.Load()
	var kept []*lane
	config, _ := t.log.latest()
	for _, l := range all.list() {
		if l.id == id {
			return l
		}
		if slices.ContainsFunc(config.Servers, func(s hraft.Server) bool { return string(s.ID) == l.id }) {
			kept = append(kept, l) // the others are no more
		}
	}
	l := &lane{t: t, id: id, addr: addr, news: make(chan struct{}, 1)}
	t.lanes.Store(&lanes{append(kept, l)})
	return l
}

// lanes are those to all followers. The list is not changed.
type lanes struct{ all []*lane }

func (l *lanes) list() []*lane {
	if l == nil {
		return nil
	}
	return l.all
}

// commit is how far raft says that the log is committed.
func (t *transport) commit() uint64 {
	if r := t.engine.Load(); r != nil {
		return r.CommitIndex()
	}
	return 0
}

// ahead sends what the leader of a term has just stored to the followers that are up to then.
//
// It is called on raft's main loop, in which alone terms change and entries are stored: so this node leads that term, and what it sends is
// what raft would send, a little later. Messages for the same entries may come twice and in any order.
func (t *transport) ahead(term uint64, logs []*hraft.Log) {
	all := t.lanes.Load().list()
	for _, e := range logs {
		if e.Type != hraft.LogCommand || e.Term != term {
			for _, l := range all {
				l.close()
			}
			return
		}
	}
	commit := t.commit()
	for _, l := range all {
		if t.majority(l.id, commit) {
			l.send(term, commit, logs[len(logs)-1].Index)
		}
	}
}

// majority reports whether this node and another are one, of the voters that there are since commit at the latest.
func (t *transport) majority(other string, commit uint64) bool {
	config, at := t.log.latest()
	if at > commit {
		return false
	}
	voters, here, there := 0, false, false
	for _, s := range config.Servers {
		if s.Suffrage != hraft.Voter {
			continue
		}
		voters++
		here = here || string(s.ID) == t.self
		there = there || string(s.ID) == other
	}
	return voters <= 3 && here && there
}

// send sends the entries up to last, if the follower is up to those before.
func (l *lane) send(term, commit, last uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term != term || l.conn == nil || l.sent >= last || len(l.aloft) >= aheadMessages {
		return
	}
	m := hraft.AppendEntriesRequest{Term: term, PrevLogEntry: l.sent, LeaderCommitIndex: commit}
	size, ok := l.t.log.since(l.sent, last, &m)
	if !ok || size > aheadBytes {
		l.closeLocked()
		return
	}
	if l.bytes+size > aheadBytes {
		return
	}
	c := l.conn
	c.out = appendAppend(c.out, &m)
	limit := l.t.limit
	now := time.Now()
	var err error
	if now.Sub(l.armed) > limit/2 { // not with each write: it costs
		err = c.SetWriteDeadline(now.Add(limit + limit/2))
		l.armed = now
	}
	if err == nil {
		_, err = c.Write(c.out)
	}
	if err != nil {
		l.dropLocked(c)
		return
	}
	l.sent = last
	l.bytes += size
	l.aloft = append(l.aloft, sentAhead{term, last, size})
}

// open: raft itself has brought the follower up to match.
func (l *lane) open(term, match uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		if !l.dials && time.Since(l.tried) > l.t.limit/4 {
			l.dials, l.tried = true, time.Now()
			if !l.t.background(l.dial) {
				l.dials = false
			}
		}
		return
	}
	if l.term != term {
		l.term, l.sent, l.acked = term, match, match
	}
	l.sent, l.acked = max(l.sent, match), max(l.acked, match)
}

// close leaves the follower to raft, until that has brought it up again.
func (l *lane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closeLocked()
}

func (l *lane) closeLocked() {
	l.term = 0
	l.tell()
}

func (l *lane) tell() {
	select {
	case l.news <- struct{}{}:
	default:
	}
}

// dropLocked ends the connection.
func (l *lane) dropLocked(c *wireConn) {
	if c != nil && l.conn == c {
		l.conn, l.aloft, l.bytes = nil, nil, 0
		_ = c.SetDeadline(time.Unix(1, 0)) // who reads it closes it, which may take a while
		l.closeLocked()
	}
}

func (l *lane) dial() {
	t := l.t
	ctx, cancel := context.WithTimeoutCause(t.stop, t.limit, errors.New("dial timed out"))
	defer cancel()
	raw, err := t.dialer.dial(ctx, hostOf(l.addr), hello{purpose: forRaft, cluster: t.cluster, from: t.self, to: l.id, host: t.host})
	if err == nil && !t.track(raw) {
		_ = raw.Close()
		err = errStopping
	}
	l.mu.Lock()
	l.dials = false
	if err != nil {
		l.mu.Unlock()
		return
	}
	c := &wireConn{Conn: raw, r: bufio.NewReaderSize(raw, 16<<10)}
	l.conn, l.aloft, l.bytes, l.armed = c, nil, 0, time.Time{}
	l.mu.Unlock()
	l.listen(c)
}

// listen takes acknowledgements in until the connection ends.
func (l *lane) listen(c *wireConn) {
	for l.answer(c) == nil {
	}
	l.mu.Lock()
	l.dropLocked(c)
	l.mu.Unlock()
	l.t.drop(c.Conn)
}

// answer takes one acknowledgement in.
func (l *lane) answer(c *wireConn) error {
	var err error
	if c.in, err = readFrame(c.r, c.in); err != nil {
		return err
	}
	if c.in[0] != 0 {
		return &refusalError{msg: string(c.in[1:])}
	}
	var resp hraft.AppendEntriesResponse
	applied, err := decodeAppendAnswer(c.in[1:], &resp)
	if err != nil {
		return err
	}
	l.mu.Lock()
	if l.conn != c || len(l.aloft) == 0 {
		l.mu.Unlock()
		return errStopping
	}
	m := l.aloft[0]
	l.aloft = l.aloft[1:]
	if len(l.aloft) == 0 {
		l.aloft = nil
	}
	l.bytes -= m.bytes
	counts := l.term == m.term && resp.Success && resp.Term == m.term
	switch {
	case counts:
		l.acked = max(l.acked, m.last)
		if l.want != 0 && l.acked >= l.want {
			l.tell()
		}
	case l.term == m.term: // it is behind, or there is a later term: raft finds out
		l.closeLocked()
	}
	l.mu.Unlock()
	if counts {
		l.t.has(l.id, m.term, m.last, applied)
	}
	return nil
}

// has: a follower has said that it has the log up to match, and has applied it up to applied.
func (t *transport) has(id string, term, match, applied uint64) {
	t.book.appended(id, term, match, applied)
	if t.majority(id, t.commit()) {
		t.carry(term, match)
	}
}

// attach answers raft's message from what was sent ahead, if that has its entries too. Raft need not know at once: it is left asleep for a
// moment, and then told of all that was acknowledged meanwhile.
func (l *lane) attach(args *hraft.AppendEntriesRequest, resp *hraft.AppendEntriesResponse) bool {
	last := args.Entries[len(args.Entries)-1].Index
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term != args.Term || l.sent < last {
		return false
	}
	if !l.await(args.Term, last, l.t.limit, false) {
		if l.term == args.Term && l.acked < last { // it does not answer
			l.dropLocked(l.conn)
		}
		return false
	}
	if l.t.book.rest(l.id, l.t.self, l.acked) { // the other one is enough: this one is left to raft
		l.closeLocked()
	} else {
		l.await(args.Term, last+aheadLag, lag, true)
	}
	acked := max(l.acked, last)
	if acked > last {
		e := *args.Entries[len(args.Entries)-1]
		e.Index = acked // raft looks at nothing else of them
		args.Entries = []*hraft.Log{&e}
	}
	resp.Term, resp.LastLog, resp.Success = args.Term, acked, true
	return true
}

// await waits until the follower has acknowledged index, for so long at most, and, if it is not needed, until somebody is in a hurry. The
// caller holds mu.
func (l *lane) await(term, index uint64, limit time.Duration, idle bool) bool {
	if l.term != term || l.acked >= index {
		return l.term == term
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select { // what is of earlier
	case <-l.news:
	default:
	}
	for over := false; !over && l.term == term && l.acked < index && !(idle && l.t.hurries.Load() > 0); {
		l.want = index
		l.mu.Unlock()
		select {
		case <-l.news:
		case <-timer.C:
			over = true
		case <-l.t.stop.Done():
			over = true
		}
		l.mu.Lock()
		l.want = 0
	}
	return l.term == term && l.acked >= index
}

// covers reports whether the follower has the log up to index already. Else the lane is closed, and what it acknowledges from now on
// counts for nothing: the snapshot that it is sent takes the place of all that it has.
func (l *lane) covers(term, index uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term == term && l.acked >= index {
		return true
	}
	l.dropLocked(l.conn)
	l.closeLocked()
	return false
}

// hurry has raft told at once of what is acknowledged, until the function that it returns is called.
func (t *transport) hurry() (done func()) {
	t.hurries.Add(1)
	for _, l := range t.lanes.Load().list() {
		l.tell()
	}
	return func() { t.hurries.Add(-1) }
}

// early is a message whose entries are committed as soon as this node has them. Raft's main loop, which stores them, has them applied and
// acknowledges them itself.
type early struct {
	c    *inbound
	last *hraft.Log
	term uint64
	done bool // it was
	err  error
}

// arrivals are the messages that raft is about to store.
type arrivals struct {
	mu    sync.Mutex
	there []*early
	some  atomic.Int32
}

func (a *arrivals) add(e *early) {
	a.mu.Lock()
	a.there = append(a.there, e)
	a.some.Store(int32(len(a.there)))
	a.mu.Unlock()
}

func (a *arrivals) remove(e *early) {
	a.mu.Lock()
	for i, o := range a.there {
		if o == e {
			a.there = append(a.there[:i], a.there[i+1:]...)
			break
		}
	}
	a.some.Store(int32(len(a.there)))
	a.mu.Unlock()
}

// stored is told of entries on raft's main loop, by a follower.
func (a *arrivals) stored(logs []*hraft.Log) {
	if a.some.Load() == 0 {
		return
	}
	last := logs[len(logs)-1]
	var e *early
	a.mu.Lock()
	for _, o := range a.there {
		if o.last == last {
			e = o
		}
	}
	a.mu.Unlock()
	if e != nil {
		e.acknowledge()
	}
}

func (e *early) acknowledge() {
	c := e.c
	c.carry(e.term, e.last.Index)
	resp := hraft.AppendEntriesResponse{Term: e.term, LastLog: e.last.Index, Success: true}
	c.out = endFrame(appendAppendAnswer(beginFrame(c.out, 0), &resp, c.applied.at.Load()))
	if e.err = c.arm(); e.err == nil {
		_, e.err = c.Write(c.out)
	}
	e.done = true
}
