package raft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	hraft "github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"github.com/locum-ha/locum/internal/enginelog"
	"github.com/locum-ha/locum/physical"
)

// Stats is what there is to know of a node's share in raft.
type Stats = physical.EngineStats

// Stats returns a picture of this node. It answers from memory.
func (s *Store) Stats() Stats {
	head := s.state.header()
	out := Stats{ID: s.id, Address: head.addrs[s.id], State: "stopped", AppliedIndex: head.index, LastIndex: lastOf(s.log)}
	run := s.running()
	if run == nil {
		return out
	}
	out.State = map[hraft.RaftState]string{
		hraft.Leader: "leader", hraft.Follower: "follower", hraft.Candidate: "candidate",
	}[run.raft.State()]
	if out.State == "" {
		out.State = "stopped"
	}
	out.LeaderID = s.LeaderID()
	out.RaftTerm, out.LastIndex = run.raft.CurrentTerm(), run.raft.LastIndex()
	out.CommitIndex = run.raft.CommitIndex()
	out.AppliedIndex = max(out.AppliedIndex, min(run.raft.AppliedIndex(), out.CommitIndex))
	number := func(key string, stats map[string]string) uint64 {
		n, _ := strconv.ParseUint(stats[key], 10, 64)
		return n
	}
	stats := run.raft.Stats()
	out.SnapshotIndex, out.Pending = number("last_snapshot_index", stats), number("fsm_pending", stats)
	if out.State != "leader" {
		if last := run.raft.LastContact(); !last.IsZero() {
			out.LastContact = time.Since(last)
		}
	}
	for _, server := range run.raft.GetConfiguration().Configuration().Servers {
		out.Members++
		if string(server.ID) == s.id {
			out.Voter = server.Suffrage == hraft.Voter
		}
	}
	return out
}

func lastOf(log *logStore) uint64 {
	last, _ := log.LastIndex()
	return last
}

// Snapshot writes this node's copy of the whole state to w, in a format with version and checksum. On the
// node that holds the lock it is current. The entries are as encrypted as they are in the store.
//
// It is made in a file first: who reads w, however slowly, keeps nothing of the store waiting (P12).
func (s *Store) Snapshot(ctx context.Context, w io.Writer) error {
	if err := s.readable(ctx); err != nil {
		return err
	}
	spool, err := os.CreateTemp(s.dir.raft(), snapshotSpool)
	if err != nil {
		return err
	}
	defer func() {
		_ = spool.Close()
		_ = os.Remove(spool.Name())
	}()
	if err := s.snapshotTo(&contextWriter{ctx: ctx, w: spool}); err != nil {
		return err
	}
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err = io.Copy(&contextWriter{ctx: ctx, w: w}, spool)
	return err
}

func (s *Store) snapshotTo(w io.Writer) error {
	snap, err := s.fsm.Snapshot()
	if err != nil {
		return err
	}
	defer snap.Release()
	return writeSnapshot(w, snap.(*stateSnapshot).tx)
}

type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c *contextWriter) Write(b []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.w.Write(b)
}

// restoreGap is how far the index of a restored state lies beyond the log's end. The engine puts it at the
// end or at the index asked for, whichever is higher, and the state has to name the index itself: so it
// is one that the log cannot reach meanwhile.
const restoreGap = 1024

// Restore replaces the state of the whole cluster by a snapshot that Snapshot wrote, of this cluster or of
// another. Term and fence are never lowered: of the present ones and the snapshot's, the higher stay. Only
// the leader can do it. A snapshot that is damaged or of a newer format is ErrSnapshot, and nothing is
// changed. Each check is shown every entry beforehand, and at the end the key "": an error of it refuses the snapshot.
func (s *Store) Restore(ctx context.Context, r io.Reader, checks ...func(key string, value []byte) error) error {
	run, _, err := s.leading()
	if err != nil {
		return err
	}
	spool, err := os.CreateTemp(s.dir.raft(), restoreSpool)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer func() { _ = os.Remove(spool.Name()); _ = spool.Close() }()
	if _, err := io.Copy(&contextWriter{ctx: ctx, w: spool}, r); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if err := checkSnapshot(spool, checks); err != nil {
		return err
	}
	if err := s.lockTurn.lock(ctx); err != nil {
		return err
	}
	defer s.lockTurn.unlock()
	resume := run.commits.pause() // nothing is on its way while the state is exchanged
	defer resume()
	return s.install(ctx, run, spool)
}

// checkSnapshot reads a snapshot to its end and goes back to its beginning.
func checkSnapshot(f *os.File, checks []func(key string, value []byte) error) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	see := func(key, value []byte) error {
		for _, check := range checks {
			if err := check(string(key), value); err != nil {
				return err
			}
		}
		return nil
	}
	err := readSnapshot(f, func(header) error { return nil }, see)
	if err == nil {
		err = see(nil, nil)
	}
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}

// install puts a checked snapshot through raft.
func (s *Store) install(ctx context.Context, run *running, spool *os.File) error {
	if err := run.raft.Barrier(s.timing.rpc).Error(); err != nil {
		return run.commits.translate(err)
	}
	merged, err := os.CreateTemp(s.dir.raft(), restoreSpool)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer func() { _ = os.Remove(merged.Name()); _ = merged.Close() }()
	now := s.state.header()
	index := run.raft.LastIndex() + restoreGap
	var out *snapshotWriter
	err = readSnapshot(spool,
		func(h header) error {
			h.index, h.term = index+1, run.raft.CurrentTerm()
			if h.fence.Term <= now.fence.Term {
				h.fence = now.fence
			}
			floor := max(h.lock.Term, h.lock.floor, now.lock.floor)
			h.lock = now.lock // who holds the lock is the cluster's present, not the snapshot's
			h.lock.floor = floor
			h.addrs = now.addrs
			out = newSnapshotWriter(merged, h)
			return out.fail
		},
		func(key, value []byte) error { return out.entry(key, value) })
	if err == nil {
		err = out.finish(merged)
	}
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	info, err := merged.Stat()
	if err == nil {
		_, err = merged.Seek(0, io.SeekStart)
	}
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	meta := &hraft.SnapshotMeta{Version: hraft.SnapshotVersionMax, Index: index, Size: info.Size()}
	done := make(chan error, 1)
	run.work.Go(func() { done <- run.raft.Restore(meta, merged, 0) })
	select {
	case err = <-done:
	case <-ctx.Done():
		err = <-done // the file must outlive it; raft gives up when leadership is lost
	}
	if err != nil {
		return run.commits.translate(err)
	}
	s.logger.Info("snapshot restored", "index", index+1)
	return nil
}

// Recover rewrites the cluster's configuration in a data directory whose node is stopped: for when a
// majority of the voters is lost for good. Peers are those that form the cluster from then on, all as
// voters; the node of this directory must be among them. Terms go on above those that the lost nodes may have
// given (recoverGap). All entries in its log count as committed, so it must be the node with the longest log; every other
// node is emptied and joins anew.
func Recover(path string, peers []Peer) error {
	dir := dataDir{path: path}
	if _, err := os.Stat(dir.log()); err != nil {
		return fmt.Errorf("recover: no store in %s: %w", path, err)
	}
	id, err := dir.prepare()
	if err == nil && id == "" {
		err = &DamagedError{Path: dir.file("node-id"), What: "missing"}
	}
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	var cluster hraft.Configuration
	member, addrs := false, map[string]string{}
	for _, p := range peers {
		member = member || p.ID == id
		cluster.Servers = append(cluster.Servers, hraft.Server{ID: hraft.ServerID(p.ID), Address: nominal(p.ID)})
		addrs[p.ID] = p.Addr
	}
	if !member {
		return fmt.Errorf("recover: this directory is of node %s, which is not among the peers", id)
	}
	lock, err := lockDir(dir.lock())
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	log, err := openLogStore(dir.log(), false)
	if err != nil {
		return errors.Join(fmt.Errorf("recover: %w", err), lock.Close())
	}
	return errors.Join(recoverLog(dir, id, log, cluster, addrs), log.Close(), lock.Close())
}

func recoverLog(dir dataDir, id string, log *logStore, cluster hraft.Configuration, addrs map[string]string) error {
	s := &Store{id: id, timing: timingFor(1), engineLog: enginelog.New(Config{}.ensureDefaults().Logger)}
	snaps, err := hraft.NewFileSnapshotStoreWithLogger(dir.raft(), 2, s.engineLog)
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	// The engine plays snapshot and log into a state of its own; the node builds its state from the
	// result when it is next opened.
	scratch := filepath.Join(dir.raft(), recoverScratch)
	_ = os.Remove(scratch)
	state, err := openState(scratch)
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	defer func() { _ = state.close(); _ = os.Remove(scratch) }()
	var failed error
	m := &recovery{machine: &machine{state: state, fail: func(err error) { failed = err }}, addrs: addrs}
	err = hraft.RecoverCluster(s.engineConfig(), m, log, log, snaps, offline{}, cluster)
	if err = errors.Join(failed, err); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	// The node's own state has the same index as the new snapshot, and would be kept, without the addresses and the floor. It goes
	// last: until the snapshot is there, it may be the best copy.
	if err := os.Remove(dir.state()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("recover: %w", err)
	}
	return nil
}

// recoverGap is how many terms a recovery passes over: the lost nodes may have given terms in log entries that this one has never seen,
// and a term is never given twice. It is far more than the leaderships that a log can lack, and far less than what would use numbers up.
const recoverGap = 1 << 20

// recovery is a machine whose snapshot has other addresses, and a floor above all terms that were given.
type recovery struct {
	*machine
	addrs map[string]string
}

func (r *recovery) Snapshot() (hraft.FSMSnapshot, error) {
	err := r.state.update(func(_ *bbolt.Tx, h header) (header, error) {
		h.addrs = r.addrs
		h.lock.floor = max(h.lock.Term, h.lock.floor, h.fence.Term) + recoverGap
		return h, nil
	})
	if err != nil {
		return nil, err
	}
	return r.machine.Snapshot()
}

// offline is a transport that reaches nobody: the library encodes addresses with one.
type offline struct{ hraft.Transport }

func (offline) EncodePeer(_ hraft.ServerID, addr hraft.ServerAddress) []byte { return []byte(addr) }
