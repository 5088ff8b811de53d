package raft

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// The data directory:
//
//	format            the format of the directory: "1"
//	node-id           the identity that was made with it
//	raft/lock         taken by the process that has the directory
//	raft/log/         the log, in segments: synced
//	raft/vote         the term and the vote: synced
//	raft/state.db     the state: a cache of the log
//	raft/state.mark   whether the state can be trusted
//	raft/snapshots/   snapshots, newest and one before
const dirFormat = "1"

type dataDir struct{ path string }

func (d dataDir) file(name string) string { return filepath.Join(d.path, name) }
func (d dataDir) raft() string            { return d.file("raft") }
func (d dataDir) lock() string            { return filepath.Join(d.raft(), "lock") }
func (d dataDir) log() string             { return filepath.Join(d.raft(), "log") }
func (d dataDir) state() string           { return filepath.Join(d.raft(), "state.db") }
func (d dataDir) mark() string            { return filepath.Join(d.raft(), "state.mark") }

// prepare makes the directory, or checks one that is there, and returns the identity that lives in it, ""
// if it has none yet.
func (d dataDir) prepare() (id string, err error) {
	if err := os.MkdirAll(d.raft(), 0o700); err != nil {
		return "", fmt.Errorf("make the data directory: %w", err)
	}
	format, err := os.ReadFile(d.file("format"))
	switch {
	case errors.Is(err, os.ErrNotExist):
		if err := writeDurably(d.file("format"), dirFormat+"\n"); err != nil {
			return "", err
		}
	case err != nil:
		return "", fmt.Errorf("read the data directory's format: %w", err)
	case strings.TrimSpace(string(format)) != dirFormat:
		return "", fmt.Errorf("%s has format %q, this version knows %s: start the version of Locum that it was last used with, or a newer one",
			d.path, strings.TrimSpace(string(format)), dirFormat)
	}
	raw, err := os.ReadFile(d.file("node-id"))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("read the node's identity: %w", err)
	}
	if id = strings.TrimSpace(string(raw)); len(id) != 36 {
		return "", &DamagedError{Path: d.file("node-id"), What: "not an identity"}
	}
	return id, nil
}

// claim gives the directory an identity. It comes last when a directory is made: from then on log and vote
// must be there.
func (d dataDir) claim() (id string, err error) {
	id = newID()
	return id, writeDurably(d.file("node-id"), id+"\n")
}

// Files that an operation makes for itself, each as large as the whole state.
const (
	snapshotSpool  = "snapshot-*"
	restoreSpool   = "restore-*"
	recoverScratch = "recover.db"
)

// sweep removes what a process that died in the middle of such an operation has left behind. The directory is this process's.
func (d dataDir) sweep(log *slog.Logger) {
	for _, pattern := range []string{snapshotSpool, restoreSpool, recoverScratch} {
		left, err := filepath.Glob(filepath.Join(d.raft(), pattern))
		for _, path := range left {
			err = errors.Join(err, os.Remove(path))
		}
		if err != nil {
			log.Warn("files that were left behind are not removed: they only take room", "error", err)
		}
	}
}

// newID makes a random UUID (RFC 9562, version 4).
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// writeDurably replaces a small file in one step, also in the face of a power loss.
func writeDurably(path, content string) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

const markClean = "clean"

// bootID names this run of the kernel: what was written and not synced in the same run is still there,
// whatever became of the process. "" where it cannot be told.
func bootID() string {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

// trusted reports whether the state file is as it was last written: it was closed and synced, or the
// kernel has been up since.
func (d dataDir) trusted(boot string) bool {
	raw, err := os.ReadFile(d.mark())
	if err != nil {
		return false
	}
	mark := strings.TrimSpace(string(raw))
	return mark == markClean || boot != "" && mark == "open "+boot
}

// markOpen says that the state file is being written without syncs from here on.
func (d dataDir) markOpen(boot string) error { return writeDurably(d.mark(), "open "+boot+"\n") }

// markClosed says that the state file is whole on disk.
func (d dataDir) markClosed() error { return writeDurably(d.mark(), markClean+"\n") }
