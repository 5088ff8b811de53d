package raft

import (
	"errors"
	"sync/atomic"
	"time"

	hraft "github.com/hashicorp/raft"

	"github.com/locum-ha/locum/internal/boottime"
)

// keeper is the state of the housekeeping loop.
type keeper struct {
	store *Store
	run   *running

	snapshotAt      int64     // bytes written to the log when the last snapshot was taken
	snapshotEntries int64     // and entries
	snapshotTry     time.Time // when one was last tried
	commitSaved     uint64    // the commit index that was last written down
	commitSeen      uint64    // the commit index at the last look
	silentRounds    int
	snapshotting    atomic.Bool

	silence     map[string]boottime.Instant // since when a member has been silent in silenceTerm
	silenceTerm uint64
}

// trailingMin and trailingMax bound how many entries stay in the log behind a snapshot, so that a node
// that was away for a moment needs no snapshot.
const (
	trailingMin = 128
	trailingMax = 10240
)

// storage takes a snapshot when enough log has gathered, and saves the commit index when nothing has
// been written for some rounds.
func (k *keeper) storage() {
	s, engine := k.store, k.run.raft
	written := s.log.bytes.Load()
	if k.due(written) && time.Since(k.snapshotTry) > 10*s.timing.tick && k.snapshotting.CompareAndSwap(false, true) {
		k.snapshotTry = time.Now()
		k.trail(written - k.snapshotAt)
		k.snapshotAt, k.snapshotEntries = written, int64(s.log.entries.Load())
		k.run.work.Go(k.snapshot)
	}
	commit := engine.CommitIndex()
	if commit != k.commitSeen {
		k.commitSeen, k.silentRounds = commit, 0
		return
	}
	if k.silentRounds++; k.silentRounds >= 5 && commit != k.commitSaved {
		if err := s.log.saveMarks(); err != nil {
			s.logger.Warn("the log's end was not written down", "error", err)
		}
		k.commitSaved = commit
	}
}

// snapshotMaxEntries is how many entries may gather whatever their size: each takes memory.
const snapshotMaxEntries = 64 << 10

func (k *keeper) due(written int64) bool {
	return written-k.snapshotAt >= k.store.cfg.SnapshotBytes ||
		int64(k.store.log.entries.Load())-k.snapshotEntries >= snapshotMaxEntries
}

// snapshot takes one and cuts the log behind it. If it fails, the next is taken when as much has gathered
// again.
func (k *keeper) snapshot() {
	defer k.snapshotting.Store(false)
	s := k.store
	start := time.Now()
	err := k.run.raft.Snapshot().Error()
	if err != nil && !errors.Is(err, hraft.ErrNothingNewToSnapshot) && k.run.done.Err() == nil {
		s.logger.Warn("snapshot failed", "error", err)
	}
	if s.cfg.Observer.Snapshot != nil {
		s.cfg.Observer.Snapshot(time.Since(start), err)
	}
}

// trail chooses how many entries stay in the log: about a quarter of the bytes that a snapshot replaces.
func (k *keeper) trail(gathered int64) {
	entries := int64(k.store.log.entries.Load()) - k.snapshotEntries
	mean := max(gathered/max(entries, 1), 1)
	c := k.run.raft.ReloadableConfig()
	c.TrailingLogs = uint64(min(max(k.store.cfg.SnapshotBytes/4/mean, trailingMin), trailingMax))
	if err := k.run.raft.ReloadConfig(c); err != nil {
		k.store.logger.Warn("log length could not be set", "error", err)
	}
}
