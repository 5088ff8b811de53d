package cache

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	hraft "github.com/hashicorp/raft"

	"github.com/locum-ha/locum/internal/enginelog"
)

// member is one incarnation of this node in one cluster: raft with its log, the state, and the ways to the
// others. It ends when the node empties itself.
type member struct {
	node    *Node
	cfg     *Config
	id      string                   // this incarnation
	cluster string                   // the identity of the founder
	agreed  atomic.Pointer[[]string] // the list of hosts by which a majority is counted: the log's
	seated  atomic.Uint64            // the state's version when this node's own list became known
	ctx     context.Context
	cancel  context.CancelCauseFunc

	log   *memLog
	fsm   *fsm
	snaps *snapshots
	book  *book
	trans *transport
	raft  *hraft.Raft
	over  *overlays
	fresh atomic.Int64 // the data may be shown until then, see now

	batchID atomic.Uint64
	lead    atomic.Pointer[lead]
	leader  leaderWatch
	lastOwn atomic.Uint64 // index of the last write acknowledged here
	lostOwn atomic.Uint64 // a value of lastOwn that the log did not reach: it was lost with a leader
	heard   atomic.Bool   // a leader has sent something
	openAt  atomic.Int64  // when an open leader was heard last, see now

	markCommit uint64 // how far the log was committed at markAt or later, as the leader said; with fsm.mu
	markAt     int64
	sentAt     atomic.Int64  // when the state was last sent, see now
	opened     atomic.Bool   // the cluster had a majority of the hosts at some time
	hosts      atomic.Uint64 // that are connected, a bit for each place in the list, as the leader says

	suspects chan string // a leader whose connection ended

	link    atomic.Pointer[leaderLink]
	linking chan struct{} // held by who makes a new one

	quiet     chan struct{} // closed when raft has ended, which answers all requests
	writersMu sync.Mutex
	writers   map[string]*writeServer // by identity

	spawnMu sync.Mutex
	closed  bool // no work begins any more
	work    sync.WaitGroup
}

// leaderWatch is who leads, as far as this member knows.
type leaderWatch struct {
	mu      sync.Mutex
	id      string
	host    string
	changed chan struct{}
}

func (w *leaderWatch) get() (id, host string, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.id, w.host, w.changed
}

func (w *leaderWatch) set(id, host string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.id == id && w.host == host {
		return
	}
	w.id, w.host = id, host
	w.wake()
}

// wake tells those who wait: the caller holds mu.
func (w *leaderWatch) wake() {
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *leaderWatch) poke() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wake()
}

// newMember starts raft. With found it makes a new cluster of this node alone; the others join it.
func (n *Node) newMember(id, cluster string, found bool, d *dialer) (*member, error) {
	m := &member{
		node: n, cfg: &n.cfg, id: id, cluster: cluster,
		log: newMemLog(), book: newBook(), over: newOverlays(), writers: map[string]*writeServer{}, quiet: make(chan struct{}),
		suspects: make(chan string, 1), linking: make(chan struct{}, 1),
	}
	m.ctx, m.cancel = context.WithCancelCause(context.Background())
	m.leader.changed = make(chan struct{})
	m.fsm = newFSM(n.events, m.log)
	m.agreed.Store(n.hosts.Load())
	m.fsm.over, m.fsm.st.over = m.over, m.over
	m.fsm.agreed = func(hosts []string) { m.agreed.Store(&hosts) }
	m.fsm.st.agreed = m.fsm.agreed
	m.fsm.replaced = m.replaced
	m.fsm.failed = func(err error) {
		n.cfg.Logger.Error("an entry of the cache's log cannot be understood; do all nodes run the same version?", "error", err)
		m.cancel(err)
	}
	m.fsm.carried = func(term, id, index uint64, out []response) {
		if l := m.lead.Load(); l != nil && l.term == term { // batches are counted by each member for itself
			l.arrived(id, index, out)
		}
	}
	m.snaps = &snapshots{fsm: m.fsm, events: n.events, sent: m.stateSent, taken: m.stateTaken, arrived: m.stateArrived}
	m.log.stored = func(logs []*hraft.Log) {
		l := m.lead.Load()
		if l == nil || m.raft.State() != hraft.Leader || m.raft.CurrentTerm() != l.term {
			m.trans.arrivals.stored(logs)
			return
		}
		m.trans.ahead(l.term, logs)
		l.early.stored(logs)
	}
	m.trans = newTransport(id, n.cfg.Self, cluster, d, max(2*n.cfg.ElectionTimeout, time.Second), m.book, m.log, &m.fsm.progress)
	m.trans.pulsed, m.trans.ended, m.trans.gone = m.pulsed, m.suspect, m.gone
	m.trans.carry = m.fsm.carry
	if found {
		m.fsm.st.clock.Store(time.Now().UnixMilli())
	}
	c := m.raftConfig()
	if found {
		err := hraft.BootstrapCluster(c, m.log, m.log, m.snaps, m.trans, hraft.Configuration{Servers: []hraft.Server{
			{ID: hraft.ServerID(id), Address: m.trans.LocalAddr()},
		}})
		if err != nil {
			return nil, fmt.Errorf("cache: founding: %w", err)
		}
	}
	engine, err := hraft.NewRaft(c, m.fsm, m.log, m.log, m.snaps, m.trans)
	if err != nil {
		return nil, fmt.Errorf("cache: starting raft: %w", err)
	}
	m.raft = engine
	m.trans.engine.Store(engine)
	m.work.Go(m.follow)
	m.work.Go(m.trim)
	m.work.Go(m.directs)
	m.work.Go(m.succeed)
	if found {
		_ = m.trans.stand() // alone, it is elected at once; else by its timer
	}
	return m, nil
}

func (m *member) raftConfig() *hraft.Config {
	c := hraft.DefaultConfig()
	c.LocalID = hraft.ServerID(m.id)
	c.HeartbeatTimeout, c.ElectionTimeout = m.cfg.ElectionTimeout, m.cfg.ElectionTimeout
	c.LeaderLeaseTimeout = m.cfg.ElectionTimeout
	c.CommitTimeout = 50 * time.Millisecond
	c.MaxAppendEntries = 512
	c.SnapshotInterval = 24 * time.Hour // member.trim decides
	c.SnapshotThreshold = math.MaxUint64
	c.TrailingLogs = 1024
	c.NoLegacyTelemetry = true
	c.NoSnapshotRestoreOnStart = true
	c.ShutdownOnRemove = false
	c.Logger = enginelog.New(m.cfg.Logger)
	return c
}

// background runs f beside everything else, unless the member is closed.
func (m *member) background(f func()) bool {
	m.spawnMu.Lock()
	defer m.spawnMu.Unlock()
	if m.closed {
		return false
	}
	m.work.Go(f)
	return true
}

// close ends the member and waits for everything it started.
func (m *member) close() {
	m.cancel(errStopping)
	m.spawnMu.Lock()
	m.closed = true
	m.spawnMu.Unlock()
	if l := m.lead.Load(); l != nil {
		l.stop()
	}
	closing := m.raft.Shutdown()
	_ = m.trans.Close() // raft waits for what it is sending: a peer that is frozen, or behind a cut, answers nothing for long
	_ = closing.Error() // it returns none
	close(m.quiet)
	m.writersMu.Lock()
	var writers []*writeServer
	for _, s := range m.writers {
		writers = append(writers, s)
	}
	m.writersMu.Unlock()
	for _, s := range writers {
		_ = s.conn.SetReadDeadline(time.Now()) // it says goodbye
		select {
		case <-s.said:
		case <-time.After(time.Second):
		}
		_ = s.conn.Close()
	}
	if l := m.link.Load(); l != nil { // and no other will be read
		l.fail(errStopping)
	}
	m.leader.poke()
	m.work.Wait()
}

// successor is the voter that has most of the log, and of those the one that was heard last. Raft's own choice goes by what it knows, which
// may be some milliseconds old (see ahead.go): it would wait for a peer that is silent.
func (m *member) successor() (next hraft.Server) {
	var best peerState
	for _, s := range m.config().Servers {
		if string(s.ID) == m.id || s.Suffrage != hraft.Voter {
			continue
		}
		if p := m.book.get(string(s.ID)); next.ID == "" || p.match > best.match || p.match == best.match && p.heard > best.heard {
			next, best = s, p
		}
	}
	return next
}

// handOver lets another node lead, if this one does.
func (m *member) handOver(ctx context.Context) {
	next := m.successor()
	if next.ID == "" || m.raft.State() != hraft.Leader {
		return
	}
	defer m.trans.hurry()()
	done := make(chan error, 1)
	if !m.background(func() { done <- m.raft.LeadershipTransferToServer(next.ID, next.Address).Error() }) {
		return
	}
	select {
	case err := <-done:
		if err != nil {
			m.cfg.Logger.Info("the cache's leadership could not be handed over", "error", err)
		}
	case <-ctx.Done():
	}
}

// follow keeps up with who leads, and leads when it is this node.
func (m *member) follow() {
	changes := m.raft.LeaderCh()
	ticker := time.NewTicker(m.cfg.ElectionTimeout / 20)
	defer ticker.Stop()
	var l *lead
	var led string // who leads
	var ledAt int64
	stop := func() {
		if l != nil {
			l.end()
			l = nil
		}
	}
	defer stop()
	for {
		leads, term := m.raft.State() == hraft.Leader, m.raft.CurrentTerm()
		if l != nil && (!leads || l.term != term) {
			stop()
		}
		if l == nil && leads {
			l = m.begin(term)
		}
		addr, id := m.raft.LeaderWithID()
		m.leader.set(string(id), hostOf(addr))
		if string(id) != led {
			led, ledAt = string(id), now()
		} else if now()-ledAt > int64(m.cfg.ElectionTimeout) { // until then it may answer what it took
			m.forsake(led)
		}
		if l == nil {
			m.candidacy()
		}
		select {
		case <-m.ctx.Done():
			return
		case <-changes:
		case <-ticker.C:
		}
	}
}

// candidacy makes raft look at its heartbeat timer as soon as the leader is overdue: left to itself it looks
// up to two timeouts later. A shorter timeout makes it look; the difference is a nanosecond.
func (m *member) candidacy() {
	if m.raft.State() != hraft.Follower || m.raft.LastContact().IsZero() {
		return
	}
	if time.Since(m.raft.LastContact()) < m.cfg.ElectionTimeout+m.turn() {
		return
	}
	c := m.raft.ReloadableConfig()
	if c.HeartbeatTimeout == m.cfg.ElectionTimeout {
		c.HeartbeatTimeout--
	} else {
		c.HeartbeatTimeout = m.cfg.ElectionTimeout
	}
	_ = m.raft.ReloadConfig(c)
}

// turn is how long this node lets others go first, so that votes are not split: by its place in the list.
func (m *member) turn() time.Duration {
	for i, h := range m.hostList() {
		if h == m.cfg.Self {
			return time.Duration(i) * m.cfg.ElectionTimeout / 16
		}
	}
	return 0
}

// pulsed takes the leader's pulse in.
func (m *member) pulsed(from string, p pulse) (ok bool, applied uint64) {
	applied = m.fsm.progress.at.Load()
	if m.raft.CurrentTerm() != p.term {
		return false, applied
	}
	m.heard.Store(true)
	if p.commit > applied && p.commit > m.raft.CommitIndex() {
		m.commit(from, p)
		applied = m.fsm.progress.at.Load()
	}
	if !p.open || p.echo == 0 || now()-p.echo > int64(m.cfg.QuorumLossTimeout)/2 {
		return true, applied // or it is late: what it says may be over
	}
	m.hosts.Store(p.hosts)
	m.openAt.Store(now())
	m.opened.Store(true)
	m.fsm.mu.Lock()
	switch patience := int64(m.cfg.QuorumLossTimeout); {
	case applied >= p.commit:
		m.fresh.Store(p.echo + patience)
		m.markCommit, m.markAt = p.commit, p.echo
	case applied >= m.markCommit: // the data are at least those of when the leader said that
		m.fresh.Store(max(m.fresh.Load(), m.markAt+patience))
		m.markCommit, m.markAt = p.commit, p.echo
	}
	m.fsm.st.ahead.Store(p.clock - now()/int64(time.Millisecond))
	m.fsm.mu.Unlock()
	if m.node.current.Load() == nil && applied >= p.commit && m.votes() {
		m.serve()
	}
	return true, applied
}

// commit tells raft how far the log is committed, with a message that the leader could have sent: it would
// say so itself with its next entries, but a writer is waiting.
func (m *member) commit(from string, p pulse) {
	_, host, _ := m.leader.get()
	c := &inbound{transport: m.trans, replies: make(chan hraft.RPCResponse, 1)}
	_, err := c.ask(&hraft.AppendEntriesRequest{
		RPCHeader:    hraft.RPCHeader{ProtocolVersion: hraft.ProtocolVersionMax, ID: []byte(from), Addr: []byte(joinTarget(from, host))},
		Term:         p.term,
		PrevLogEntry: p.commit, PrevLogTerm: p.commitTerm, LeaderCommitIndex: p.commit,
	}, nil)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(m.ctx, m.cfg.ElectionTimeout/2)
	defer cancel()
	_ = m.fsm.progress.wait(ctx, p.commit) // the answer says how far it came
}

// hostList is the list of hosts by which a majority is counted now.
func (m *member) hostList() []string { return *m.agreed.Load() }

func (m *member) quorum() int { return len(m.hostList())/2 + 1 }

// relist notes that this node's own list became known now: at its start, or when it changed.
func (m *member) relist() {
	m.fsm.mu.Lock()
	defer m.fsm.mu.Unlock()
	m.seated.Store(m.fsm.st.rev.Load())
}

// votes reports whether this node is a voter.
func (m *member) votes() bool {
	config, _ := m.log.latest()
	for _, s := range config.Servers {
		if string(s.ID) == m.id {
			return s.Suffrage == hraft.Voter
		}
	}
	return false
}

// serve shows the data.
func (m *member) serve() {
	m.fsm.mu.Lock()
	defer m.fsm.mu.Unlock()
	if m.seated.Load() == 0 {
		m.seated.Store(m.fsm.st.rev.Load())
	}
	if m.ctx.Err() == nil {
		m.node.current.Store(&replica{st: m.fsm.st, over: m.over, fresh: &m.fresh})
	}
}

// replaced: the state was replaced as a whole.
func (m *member) replaced(st *state) {
	m.fsm.mu.Lock()
	if old := m.node.current.Load(); old != nil && m.ctx.Err() == nil {
		m.node.retire(old.st)
		st.ahead.Store(max(st.ahead.Load(), old.st.ahead.Load())) // the new one has it from when it was sent
		m.node.current.Store(&replica{st: st, over: m.over, fresh: &m.fresh})
	}
	m.fsm.mu.Unlock()
	m.node.events.missed()
}

func (m *member) stateSent(c *capture) {
	m.sentAt.Store(now())
	m.node.transfersOut.Add(1)
	m.cfg.Logger.Info("sending the cache's state to a node that needs it", "entries", c.total)
}

// stateTaken: the state that was sent has been read to its end.
func (m *member) stateTaken(c *capture, bytes int64, took time.Duration) {
	if tell := m.cfg.Observer.Transfer; tell != nil {
		tell(false, int64(c.total), bytes, took)
	}
}

func (m *member) stateArrived(p *parcel) {
	took := time.Since(p.began)
	m.node.transfersIn.Add(1)
	m.node.transferTime.Store(int64(took))
	m.cfg.Logger.Info("received the cache's state", "entries", p.entries, "bytes", p.bytes, "took", took)
	if tell := m.cfg.Observer.Transfer; tell != nil {
		tell(true, int64(p.entries), p.bytes, took)
	}
}

// What is kept of the log serves nodes that were away shortly, and those that receive the state while writes go on.
const (
	logLimit    = 128 << 20   // bytes at which the log is cut
	logKept     = 64 << 20    // and what is kept of it then
	logCalm     = 64 << 10    // bytes above which it is cut anyway, down to what the others can still need:
	logTransfer = time.Minute // those to whom the state was sent need all that came since, those who were away less
)

// followed reports whether this node leads, and all others have the log up to an index: nobody waits for what came before.
func (m *member) followed(index uint64) bool {
	if m.lead.Load() == nil {
		return false
	}
	for _, s := range m.config().Servers {
		if id := string(s.ID); id != m.id && m.book.get(id).match < index {
			return false
		}
	}
	return true
}

// trim cuts the log when it has become long, or old. A snapshot costs nothing here.
func (m *member) trim() {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	var before, lately uint64 // how long the log was some time ago: who was away for longer has emptied itself
	noted := now()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-ticker.C:
		}
		last := m.log.last()
		if now()-noted >= int64(m.cfg.QuorumLossTimeout) {
			before, lately, noted = lately, last, now()
		}
		entries, bytes := m.log.usage()
		m.node.logEntries.Store(entries)
		m.node.logBytes.Store(bytes)
		sent := m.sentAt.Load()
		calm := sent == 0 || now()-sent > int64(logTransfer) || m.followed(before)
		needed := max(last-before, m.log.keepable(logCalm/2), 1)
		old := calm && bytes >= logCalm && needed < uint64(entries)
		if bytes < logLimit && !old {
			continue
		}
		keep := m.log.keepable(logKept)
		if old {
			keep = min(keep, needed)
		}
		c := m.raft.ReloadableConfig()
		c.TrailingLogs = max(keep, 1)
		_ = m.raft.ReloadConfig(c) // fails only for values that are out of range
		if err := m.raft.Snapshot().Error(); err != nil && !errors.Is(err, hraft.ErrNothingNewToSnapshot) {
			m.cfg.Logger.Debug("the cache's log was not cut", "error", err)
		}
	}
}
