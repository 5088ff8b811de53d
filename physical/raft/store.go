package raft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	hraft "github.com/hashicorp/raft"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/internal/enginelog"
	"github.com/locum-ha/locum/physical"
)

// errNotRunning: the node does not take part (yet, or any more).
var errNotRunning = fmt.Errorf("%w: raft is not running on this node", physical.ErrUnavailable)

// Store is a node's share of the replicated store. All methods may be called concurrently.
type Store struct {
	cfg       Config
	timing    timing
	logger    *slog.Logger
	engineLog *enginelog.Log
	dir       dataDir
	id        string

	lock  *os.File
	log   *logStore
	snaps *hraft.FileSnapshotStore
	state *state
	fsm   *machine
	peers *peerBook

	failure   failure
	changed   notifier     // lock record, fence, leadership
	worth     atomic.Bool  // leadership was gained and no Acquire has been tried since
	voteDelay atomic.Int64 // nanoseconds

	lockTurn turn // one Acquire, Release, Yield or Restore at a time
	lease    lease

	turning sync.Mutex // one Start or Stop at a time

	mu     sync.Mutex // guards what follows
	run    *running   // nil while stopped
	closed bool
}

// running is what exists between Start and Stop.
type running struct {
	raft    *hraft.Raft
	trans   *transport
	gate    *gate
	commits *batcher
	stop    context.CancelFunc
	done    context.Context
	work    sync.WaitGroup

	settled  atomic.Uint64    // the raft term that this node leads and in which it has applied all before
	heldOver boottime.Instant // a lock from before the start may be held until then
}

// Open opens the store's files, or makes them, and checks them. No raft runs before Start: until then Get,
// List and Fence answer from this node's copy, and nothing can be written.
//
// A damaged file is a *DamagedError; a directory that another process uses is an error that says so.
func Open(cfg Config) (*Store, error) {
	cfg = cfg.ensureDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Store{
		failure: failure{ch: make(chan struct{})}, lockTurn: make(turn, 1),
		cfg: cfg, timing: timingFor(cfg.Performance), logger: cfg.Logger,
		engineLog: enginelog.New(cfg.Logger), dir: dataDir{path: cfg.Path},
	}
	s.voteDelay.Store(int64(cfg.VoteDelay))
	var err error
	if s.id, err = s.dir.prepare(); err != nil {
		return nil, err
	}
	if s.lock, err = lockDir(s.dir.lock()); err != nil {
		return nil, err
	}
	s.dir.sweep(s.logger)
	if s.log, err = openLogStore(s.dir.log(), s.id == ""); err != nil {
		return nil, errors.Join(err, s.lock.Close())
	}
	if s.id == "" {
		s.id, err = s.dir.claim()
	}
	if err == nil {
		err = s.openState()
	}
	if err != nil {
		return nil, errors.Join(err, s.log.Close(), s.lock.Close())
	}
	s.log.onStore, s.log.onBroken = cfg.Observer.Stored, s.failure.set
	s.peers = newPeerBook(s.local())
	return s, nil
}

func (s *Store) openState() error {
	var err error
	s.snaps, err = hraft.NewFileSnapshotStoreWithLogger(s.dir.raft(), 2, s.engineLog)
	if err != nil {
		return fmt.Errorf("open snapshots: %w", err)
	}
	if s.state, err = loadState(s.dir, s.log, s.snaps, s.logger); err != nil {
		return err
	}
	s.fsm = &machine{state: s.state, logger: s.logger, fail: s.stateFailed, changed: s.stateChanged}
	return nil
}

// stateChanged is told of every change to the lock, the fence or the addresses.
func (s *Store) stateChanged(h header) {
	s.peers.agree(h.addrs)
	s.changed.wake()
}

func (s *Store) local() identity { return identity{id: s.id, addr: s.cfg.Advertise} }

func (s *Store) refused(what string) {
	if s.cfg.Observer.Refused != nil {
		s.cfg.Observer.Refused(what)
	}
}

// stateFailed is called when a committed entry cannot be written to the state. Raft goes on: the entry is
// in the log, and this node's answers would miss it, so the node stops taking part.
func (s *Store) stateFailed(err error) {
	s.logger.Error("state cannot be written: this node stops taking part", "error", err)
	s.failure.set(err)
	if run := s.running(); run != nil {
		run.stop()
		go func() { _ = s.Stop() }()
	}
}

// ID returns this node's identity, a UUID made with its data directory.
func (s *Store) ID() string { return s.id }

// Initialized reports whether this node belongs to a cluster: a raft configuration is in its log.
func (s *Store) Initialized() bool {
	has, err := hraft.HasExistingState(s.log, s.log, s.snaps)
	return err == nil && has
}

// Bootstrap makes this node the only voter of a new cluster. It must be called before Start, and fails on
// a node that belongs to a cluster already.
func (s *Store) Bootstrap() error {
	if s.running() != nil {
		return errors.New("bootstrap: raft is running already")
	}
	if s.cfg.Advertise == "" {
		return errors.New("bootstrap: no address to advertise")
	}
	cluster := hraft.Configuration{Servers: []hraft.Server{{
		ID: hraft.ServerID(s.id), Address: nominal(s.id),
	}}}
	err := hraft.BootstrapCluster(s.engineConfig(), s.log, s.log, s.snaps, nil, cluster)
	if errors.Is(err, hraft.ErrCantBootstrap) {
		return errors.New("bootstrap: this node belongs to a cluster already")
	}
	return err
}

// nominal is what stands for an address in raft's configuration. Addresses change, and raft's replication
// reads the one that it has without a lock; so they are kept in the state, where a change is an entry like
// any other, and raft knows nodes by identity alone.
func nominal(id string) hraft.ServerAddress { return hraft.ServerAddress("node/" + id) }

func (s *Store) engineConfig() *hraft.Config {
	c := hraft.DefaultConfig()
	c.LocalID = hraft.ServerID(s.id)
	c.Logger = s.engineLog
	c.HeartbeatTimeout = s.timing.heartbeat
	c.ElectionTimeout = s.timing.heartbeat
	c.LeaderLeaseTimeout = s.timing.leaderLease
	c.CommitTimeout = s.timing.commit
	c.MaxAppendEntries = maxAppend
	c.BatchApplyCh = true
	c.ShutdownOnRemove = false // the keeper notices and says so
	c.TrailingLogs = trailingMin
	c.SnapshotInterval = 24 * time.Hour // the keeper decides, by bytes
	c.SnapshotThreshold = 1 << 62
	c.NoSnapshotRestoreOnStart = true // loadState has seen to it
	c.NoLegacyTelemetry = true
	return c
}

// maxAppend is how many log entries go into one message. Each may carry many commits.
const maxAppend = 32

// Start takes part in the cluster over layer, which the store closes when it stops. It returns at once;
// whether and when somebody leads is for Watch and Peers to tell.
func (s *Store) Start(layer Layer) error {
	s.turning.Lock()
	defer s.turning.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return physical.ErrClosed
	case s.run != nil:
		return errors.New("start: raft is running already")
	case s.cfg.Advertise == "":
		return errors.New("start: no address to advertise")
	}
	s.fsm.hurry.Store(false)
	members := s.storedMembers()
	s.peers.agree(s.state.header().addrs)
	// A node alone has nobody to promise anything to, and a node without a cluster has promised nothing.
	alone := len(members.Servers) == 1 && string(members.Servers[0].ID) == s.id
	g := newGate(boottime.Now, s.timing.heartbeat, s.Initialized() && !alone)
	run := &running{gate: g}
	if alone && s.Initialized() {
		run.heldOver = boottime.Now().Add(s.timing.heartbeat)
	}
	run.done, run.stop = context.WithCancel(context.Background())
	run.trans = newTransport(s, layer, g)
	run.trans.voteDelay.Store(s.voteDelay.Load())

	engine, err := hraft.NewRaft(s.engineConfig(), s.fsm, s.log, s.log, s.snaps, run.trans)
	if err != nil {
		run.stop()
		return errors.Join(fmt.Errorf("start raft: %w", err), run.trans.Close())
	}
	run.raft = engine
	run.trans.engineTerm, run.trans.engineLeader = engine.CurrentTerm, func() hraft.ServerAddress {
		addr, _ := engine.LeaderWithID()
		return addr
	}
	run.trans.isMember = func(id string) bool {
		servers := engine.GetConfiguration().Configuration().Servers
		return len(servers) == 0 || slices.ContainsFunc(servers, func(m hraft.Server) bool { return string(m.ID) == id })
	}
	commitHint := engine.CommitIndex
	s.log.commitHint.Store(&commitHint)
	run.commits = newBatcher(engine, s.cfg.Observer, s.notLeader)
	s.run = run
	s.watchEngine(run)
	close(run.trans.ready)
	run.work.Go(func() { s.candidacy(run) })
	run.work.Go(func() { s.settle(run) })
	run.work.Go(func() { s.keep(run) })
	return nil
}

// storedMembers returns the newest configuration in log and snapshots, before raft runs.
func (s *Store) storedMembers() hraft.Configuration {
	var c hraft.Configuration
	from := uint64(0)
	if list, err := s.snaps.List(); err == nil && len(list) > 0 {
		c, from = list[0].Configuration, list[0].Index
	}
	first, _ := s.log.FirstIndex()
	last, _ := s.log.LastIndex()
	for index := max(from+1, first); index <= last && index > 0; index++ {
		var entry hraft.Log
		if err := s.log.GetLog(index, &entry); err == nil && entry.Type == hraft.LogConfiguration {
			c = hraft.DecodeConfiguration(entry.Data)
		}
	}
	return c
}

// watchEngine wakes everybody who waits when the engine's role or leader changes.
func (s *Store) watchEngine(run *running) {
	leading := false
	var mu sync.Mutex
	observe := func(o *hraft.Observation) bool {
		switch data := o.Data.(type) {
		case hraft.RaftState:
			mu.Lock()
			was := leading
			leading = data == hraft.Leader
			mu.Unlock()
			if was != (data == hraft.Leader) {
				s.leadershipChanged(run, data == hraft.Leader)
			}
			s.changed.wake()
		case hraft.LeaderObservation:
			s.changed.wake()
		}
		return false // nothing is sent to a channel: the call itself is the news
	}
	run.raft.RegisterObserver(hraft.NewObserver(nil, false, observe))
	if run.raft.State() == hraft.Leader {
		mu.Lock()
		was := leading
		leading = true
		mu.Unlock()
		if !was {
			s.leadershipChanged(run, true)
			s.changed.wake()
		}
	}
}

// settle waits, whenever this node comes to lead, until it has applied everything from before: only then
// does it know whose the lock is, and only then is an Acquire worth trying.
func (s *Store) settle(run *running) {
	for {
		changed := s.changed.wait()
		if term, leads := run.leads(); leads && run.settled.Load() != term {
			if err := run.raft.Barrier(s.timing.rpc).Error(); err == nil {
				run.settled.Store(term)
				s.worth.Store(true)
				s.changed.wake()
			} else if !s.pause(run, s.timing.stagger) {
				return
			}
			continue
		}
		select {
		case <-changed:
		case <-run.done.Done():
			return
		}
	}
}

// pause waits for d; false if the node stops meanwhile.
func (s *Store) pause(run *running, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-run.done.Done():
		return false
	}
}

func (s *Store) leadershipChanged(run *running, leading bool) {
	if !leading {
		s.worth.Store(false)
	}
	if leading {
		s.logger.Info("leads raft", "raft_term", run.raft.CurrentTerm())
	} else {
		s.logger.Info("leads raft no longer", "raft_term", run.raft.CurrentTerm())
	}
	if s.cfg.Observer.Leading != nil {
		s.cfg.Observer.Leading(leading)
	}
}

func (s *Store) running() *running {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.run
}

// engine returns what runs, or the error that says that nothing does.
func (s *Store) engine() (*running, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, physical.ErrClosed
	case s.run == nil:
		return nil, errNotRunning
	}
	return s.run, nil
}

// Stop leaves the cluster's traffic, without leaving the cluster. The files stay open: reads go on from
// the local copy, and Start may be called again with a new layer.
func (s *Store) Stop() error {
	s.turning.Lock()
	defer s.turning.Unlock()
	s.mu.Lock()
	run := s.run
	s.run = nil
	s.mu.Unlock()
	if run == nil {
		return nil
	}
	s.fsm.hurry.Store(true)
	run.stop()
	run.work.Wait()
	// Commits first: they end by themselves, applied or given up, while raft still answers.
	run.commits.close()
	if !s.log.broken.Load() {
		if err := s.log.saveMarks(); err != nil {
			s.logger.Warn("the log's end was not written down", "error", err)
		}
	}
	down := run.raft.Shutdown()
	err := run.trans.Close() // else raft waits for answers of nodes that give none
	err = errors.Join(err, down.Error())
	s.log.commitHint.Store(nil)
	s.worth.Store(false)
	s.lease.end()
	s.changed.wake()
	return err
}

// Close stops and lets go of the files. A lock that is held runs out.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.mu.Unlock()
	err := s.Stop()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return err
	}
	s.closed = true
	s.mu.Unlock()
	s.changed.wake()
	if syncErr := s.state.sync(); syncErr == nil {
		if closeErr := s.state.close(); closeErr == nil {
			err = errors.Join(err, s.dir.markClosed())
		} else {
			err = errors.Join(err, closeErr)
		}
	} else {
		err = errors.Join(err, syncErr, s.state.close())
	}
	return errors.Join(err, s.log.Close(), s.lock.Close())
}

// SetVoteDelay changes Config.VoteDelay while the store runs.
func (s *Store) SetVoteDelay(d time.Duration) {
	s.voteDelay.Store(int64(max(d, 0)))
	if run := s.running(); run != nil {
		run.trans.voteDelay.Store(int64(max(d, 0)))
	}
}

// IsLeader reports whether this node leads raft, as far as it knows.
func (s *Store) IsLeader() bool {
	run := s.running()
	return run != nil && run.raft.State() == hraft.Leader
}

// LeaderID returns the identity of the node that leads raft, "" if this node knows of none.
func (s *Store) LeaderID() string {
	run := s.running()
	if run == nil {
		return ""
	}
	_, id := run.raft.LeaderWithID()
	return string(id)
}

// notLeader is the error of what only the leader can do. It was certainly not done.
func (s *Store) notLeader() error {
	if id := s.LeaderID(); id != "" && id != s.id {
		return fmt.Errorf("%w: node %s leads raft", physical.ErrUnavailable, id)
	}
	return fmt.Errorf("%w: nobody is known to lead raft", physical.ErrUnavailable)
}
