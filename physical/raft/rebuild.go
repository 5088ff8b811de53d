package raft

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	hraft "github.com/hashicorp/raft"
)

// loadState opens the state of a data directory. Where the file cannot be trusted, or is behind the
// newest snapshot, it is built again from snapshot and log, as far as the log is known to be committed.
func loadState(dir dataDir, log *logStore, snaps hraft.SnapshotStore, logger *slog.Logger) (*state, error) {
	base, meta, err := newestSnapshot(snaps)
	if err != nil {
		return nil, err
	}
	boot := bootID()
	trusted := dir.trusted(boot)
	if err := dir.markOpen(boot); err != nil {
		return nil, err
	}
	info, missing := os.Stat(dir.state())
	if trusted && missing == nil && info.Size() > 0 {
		s, err := openState(dir.state())
		switch {
		case err == nil && s.header().index >= base.index:
			if err := replay(s, log, base.index); err != nil {
				return nil, errors.Join(err, s.close())
			}
			return s, nil
		case err == nil:
			if err := s.close(); err != nil {
				return nil, err
			}
		case !isDamaged(err):
			return nil, err
		}
	}
	if missing == nil {
		logger.Info("building the state again from snapshot and log", "snapshot_index", base.index)
	}
	return rebuildState(dir, log, snaps, meta)
}

func isDamaged(err error) bool {
	var damaged *DamagedError
	return errors.As(err, &damaged)
}

// newestSnapshot returns the newest snapshot that can be read, and its header. Both are zero when there
// is none.
func newestSnapshot(snaps hraft.SnapshotStore) (header, *hraft.SnapshotMeta, error) {
	list, err := snaps.List()
	if err != nil {
		return header{}, nil, fmt.Errorf("list snapshots: %w", err)
	}
	if len(list) == 0 {
		return header{}, nil, nil
	}
	// The engine takes its configuration from the newest one whether it can be read or not, so an older
	// one is no substitute.
	meta, r, err := snaps.Open(list[0].ID)
	if err != nil {
		return header{}, nil, &DamagedError{Path: "snapshot " + list[0].ID, What: "cannot be read", Cause: err}
	}
	defer func() { _ = r.Close() }()
	var h header
	errStop := errors.New("header read")
	err = readSnapshot(r, func(found header) error { h = found; return errStop }, nil)
	if !errors.Is(err, errStop) {
		return header{}, nil, &DamagedError{Path: "snapshot " + list[0].ID, What: "cannot be read", Cause: err}
	}
	return h, meta, nil
}

// rebuildBatch is how many log entries go into one transaction while the state is built again.
const rebuildBatch = 256

func rebuildState(dir dataDir, log *logStore, snaps hraft.SnapshotStore, meta *hraft.SnapshotMeta) (*state, error) {
	fresh := dir.state() + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	from := uint64(0)
	if meta != nil {
		_, r, err := snaps.Open(meta.ID)
		if err != nil {
			return nil, fmt.Errorf("open snapshot: %w", err)
		}
		err = loadSnapshot(fresh, r)
		_ = r.Close()
		if err != nil {
			return nil, fmt.Errorf("load snapshot %s: %w", meta.ID, err)
		}
		from = meta.Index
	}
	s, err := openState(fresh)
	if err != nil {
		return nil, err
	}
	if err := replay(s, log, from); err != nil {
		_ = s.close()
		return nil, err
	}
	if err := s.close(); err != nil {
		return nil, err
	}
	if err := os.Rename(fresh, dir.state()); err != nil {
		return nil, err
	}
	return openState(dir.state())
}

// replay applies the committed part of the log above from.
func replay(s *state, log *logStore, from uint64) error {
	commit := log.commitIndex()
	var failed error
	m := &machine{state: s, fail: func(err error) { failed = err }}
	var batch []*hraft.Log
	for index := max(from, s.header().index) + 1; index <= commit; index++ {
		var entry hraft.Log
		if err := log.GetLog(index, &entry); err != nil {
			if errors.Is(err, hraft.ErrLogNotFound) {
				return &DamagedError{Path: log.dir, What: fmt.Sprintf("log entry %d is missing", index)}
			}
			return err
		}
		if entry.Type == hraft.LogCommand {
			batch = append(batch, &entry)
		}
		if len(batch) == rebuildBatch || index == commit && len(batch) > 0 {
			m.ApplyBatch(batch)
			if failed != nil {
				return failed
			}
			batch = nil
		}
	}
	return nil
}
