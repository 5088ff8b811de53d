package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/locum-ha/locum/cluster"
	"github.com/locum-ha/locum/physical"
)

// embedded is a storage that runs in the nodes themselves and replicates between them: what a node needs of it besides
// entries and lock.
type embedded interface {
	Caps() physical.Caps
	ID() string // the node's identity, made with the data directory

	Initialized() bool // is in a cluster
	Bootstrap() error  // begins a cluster of one
	Start(physical.Layer) error
	Stop() error // the entries can still be read
	Failed() <-chan struct{}
	Failure() error

	IsLeader() bool
	Yield(ctx context.Context, to string) error
	SetVoteDelay(time.Duration)

	Stats() physical.EngineStats
	Peers() ([]physical.Peer, error)
	Removed() bool // from its cluster
	AddPeer(ctx context.Context, id, addr string) error
	RemovePeer(ctx context.Context, id string) error
	Snapshot(context.Context, io.Writer) error
	Restore(ctx context.Context, r io.Reader, checks ...func(key string, value []byte) error) error
}

// openStorage opens the store that the configuration names, and the one that keeps the HA lock.
func (s *Server) openStorage() error {
	opened, err := s.opts.Open(s.lifetime, s.cfg, physical.Host{
		NodeName: s.cfg.NodeName, ClusterAddr: s.clusterHostPort,
		Logger: s.log.With("part", s.cfg.Storage.Type), Engine: s.metrics.Raft(),
	})
	if err != nil {
		return err
	}
	if err := StoresFit(s.cfg, opened); err != nil {
		return errors.Join(err, closeStores(opened))
	}
	s.entryCaps = opened.Storage.Caps()
	if opened.Lock != nil {
		s.lockCaps = opened.Lock.Caps()
	}
	s.id = s.cfg.NodeName
	if engine, ok := opened.Storage.(embedded); ok {
		s.raft, s.id = engine, engine.ID()
	}
	_, s.gathers = opened.Storage.(physical.Gatherer)
	s.storage = s.metrics.Storage(opened.Storage)
	switch s.ha = opened.Lock != nil; {
	case !s.ha:
		lock, able := opened.Storage.(physical.HABackend)
		s.unshared = able && lock.Caps().HA
		s.lock, err = newSoloLock(s.lifetime, s.storage)
	case any(opened.Lock) == any(opened.Storage):
		s.lock = s.storage.(physical.HABackend) // the wrapper has the powers of what it wraps
	default:
		s.lock = s.metrics.Lock(opened.Lock)
		s.apart = s.lock
	}
	return err
}

// bootstrap makes the store ready for the first entries of a new cluster.
func (s *Server) bootstrap(ctx context.Context, ring cluster.Ring) error {
	if s.raft == nil {
		return nil
	}
	if !s.raft.Initialized() {
		if err := s.raft.Bootstrap(); err != nil {
			return err
		}
	}
	if err := s.startRaft(ring); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, settle, fmt.Errorf("the new raft cluster of one node has no leader after %s", settle))
	defer cancel()
	for !s.raft.IsLeader() {
		if !pauseFor(ctx, 5*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
	return nil
}

// startRaft begins consensus over the cluster port. The caller holds ops.
func (s *Server) startRaft(ring cluster.Ring) error {
	identity, err := cluster.NewPeerIdentity(ring, s.cfg.NodeName, s.id)
	if err != nil {
		return err
	}
	layer, err := cluster.NewRaftLayer(s.port, identity)
	if err != nil {
		return err
	}
	if err := s.raft.Start(layer); err != nil {
		layer.Close()
		return err
	}
	s.raftRuns = true
	s.identity.Store(identity)
	if err := s.caching.attach(identity); err != nil {
		return err
	}
	s.deaf, err = s.hearDeaths(identity)
	return err
}

// stopRaft ends consensus; the store can still be read. The caller holds ops.
func (s *Server) stopRaft() error {
	if s.raft == nil || !s.raftRuns {
		return nil
	}
	s.raftRuns = false
	s.caching.detach()
	if s.deaf != nil {
		s.deaf()
		s.deaf = nil
	}
	return s.raft.Stop()
}

// soloLock is the HA lock of a store that has none, or that no other process can open: this node always gets it. So a
// node alone goes the same way as one in a cluster, with terms and a fence.
type soloLock struct {
	store physical.Backend
	mu    sync.Mutex
	last  physical.Record
	held  bool
}

// soloTTL is long, since nobody else waits for the lock.
const soloTTL = time.Minute

// newSoloLock goes on after the last term that the store has seen.
func newSoloLock(ctx context.Context, store physical.Backend) (*soloLock, error) {
	fence, err := store.Fence(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the fence: %w", err)
	}
	return &soloLock{store: store, last: physical.Record{Term: fence.Term}}, nil
}

// Caps describes the lock, not the store.
func (l *soloLock) Caps() physical.Caps {
	return physical.Caps{Name: l.store.Caps().Name, HA: true, MinTTL: time.Second, DefaultTTL: soloTTL}
}

// Acquire gives the lock. The term stays above the fence's, which is kept in the store.
func (l *soloLock) Acquire(_ context.Context, r physical.Record, ttl time.Duration, above uint64) (physical.Grant, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held {
		return physical.Grant{}, &physical.HeldError{Record: l.last}
	}
	r.Term = max(l.last.Term, above) + 1
	l.last, l.held = r, true
	return physical.Grant{Record: r, TTL: ttl}, nil
}

// Renew extends the grant while it is in force.
func (l *soloLock) Renew(_ context.Context, g physical.Grant) (physical.Grant, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.held || g.Record.Term != l.last.Term {
		return g, physical.ErrLost
	}
	return g, nil
}

// Release gives the lock up.
func (l *soloLock) Release(_ context.Context, g physical.Grant, _ string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held && g.Record.Term == l.last.Term {
		l.held, l.last.Holder = false, ""
	}
	return nil
}

// Holder returns the record.
func (l *soloLock) Holder(context.Context) (physical.Record, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.held {
		return l.last, physical.ErrNoHolder
	}
	return l.last, nil
}

// Close does nothing: the store is closed by who opened it.
func (l *soloLock) Close() error { return nil }

var _ physical.HABackend = (*soloLock)(nil)
