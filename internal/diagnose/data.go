package diagnose

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// dataDir is what is known of the data directory.
type dataDir struct {
	path   string
	there  bool
	usable bool   // a file can be made in it
	id     string // the node's identity; "" if none was made yet
	joined bool   // the node has taken part in a cluster
	pid    int    // of the process that has it; -1 if one has it, and which is not known; 0 for none
}

// dirFormat is the format of raft's directory that this version knows.
const dirFormat = "1"

func (r *run) dataPath() string {
	switch r.cfg.Storage.Type {
	case "raft":
		return r.cfg.Storage.Raft.Path
	case "file":
		return r.cfg.Storage.File.Path
	}
	return ""
}

// dataDirectory looks at its permissions, at who owns what in it, and at who uses it.
func (r *run) dataDirectory() {
	r.dir.path = r.dataPath()
	if r.dir.path == "" {
		r.ok("storage %q keeps nothing in files", r.cfg.Storage.Type)
		return
	}
	info, err := os.Stat(r.dir.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.missing()
		return
	case err != nil:
		r.fault("let Locum's user read and search every directory on the way to it", "%s", err)
		return
	case !info.IsDir():
		r.fault("write the path of a directory", "%s is a file", r.dir.path)
		return
	}
	r.dir.there = true
	before := len(r.findings)
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		r.warn("chmod 700 it", "%s is open to other users (mode %04o)", r.dir.path, mode)
	}
	r.writable()
	r.ownership(info)
	r.inUse()
	if r.cfg.Storage.Type == "raft" {
		r.identity()
	}
	if len(r.findings) == before {
		r.ok("%s can be written, and is Locum's alone", r.dir.path)
	}
}

// missing: the first start makes it, if it may.
func (r *run) missing() {
	parent := existing(r.dir.path)
	if err := canWrite(parent); err != nil {
		r.fault(fmt.Sprintf("make it, and give it to Locum's user: install -d -m 700 -o USER %s", r.dir.path),
			"%s is not there, and this user cannot make it: %s", r.dir.path, err)
		return
	}
	r.ok("%s is not there yet: the first start makes it", r.dir.path)
}

// existing is the nearest directory above that there is.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}

func (r *run) writable() {
	f, err := os.CreateTemp(r.dir.path, ".diagnose-*")
	if err != nil {
		r.fault("chown it to Locum's user; run this as that user, too", "this user (%d) cannot write to %s: %s", os.Geteuid(), r.dir.path, causeOf(err))
		return
	}
	_ = f.Close()
	if err := os.Remove(f.Name()); err == nil {
		r.dir.usable = true
	}
}

// ownership finds files that another user than the directory's made: mostly root, who once started the node by hand.
func (r *run) ownership(dir os.FileInfo) {
	owner, known := ownerOf(dir)
	if !known {
		return
	}
	if euid := os.Geteuid(); owner != euid {
		r.warn(fmt.Sprintf("run this as the user who runs Locum: sudo -u '#%d' locum operator diagnose …", owner),
			"%s belongs to user %d, and this is user %d: what that one may do is not known", r.dir.path, owner, euid)
	}
	var foreign []string
	_ = filepath.WalkDir(r.dir.path, func(path string, d fs.DirEntry, err error) error { // what cannot be read is foreign, too
		info, statErr := os.Lstat(path)
		if statErr == nil {
			if by, _ := ownerOf(info); by != owner {
				foreign = append(foreign, path)
			}
		}
		if err != nil || len(foreign) > 100 {
			return fs.SkipDir
		}
		return nil
	})
	if len(foreign) > 0 {
		r.fault(fmt.Sprintf("end the node, then chown -R %d %s", owner, r.dir.path),
			"%d files in %s do not belong to its owner, user %d, such as %s: was the node once started as another user?", len(foreign), r.dir.path, owner, foreign[0])
	}
}

// inUse finds out whether a process has the directory. It only asks: the lock that it may take for an instant is a
// shared one, where the system cannot say who has it.
func (r *run) inUse() {
	if r.cfg.Storage.Type != "raft" {
		return
	}
	r.dir.pid = lockedBy(filepath.Join(r.dir.path, "raft", "lock"))
	switch {
	case r.dir.pid > 0:
		r.ok("%s is in use by process %d, which runs", r.dir.path, r.dir.pid)
	case r.dir.pid < 0:
		r.ok("%s is in use by a running process", r.dir.path)
	}
}

// identity reads what raft's directory says of itself.
func (r *run) identity() {
	read := func(name string) (string, bool) {
		data, err := os.ReadFile(filepath.Join(r.dir.path, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.fault("let Locum's user read it", "%s", err)
		}
		return strings.TrimSpace(string(data)), err == nil
	}
	format, made := read("format")
	if made && format != dirFormat {
		r.fault("start the version of Locum that wrote it, or a newer one; or empty the directory, and the node joins anew", "%s has format %q, and this version of Locum knows %s", r.dir.path, format, dirFormat)
		return
	}
	id, made := read("node-id")
	switch {
	case made && len(id) != 36:
		r.fault("end the node, empty the directory, start it: it joins as a new one", "%s is damaged: it holds no identity", filepath.Join(r.dir.path, "node-id"))
	case made:
		r.dir.id, r.dir.joined = id, voted(filepath.Join(r.dir.path, "raft", "vote"))
	}
}

// voted reports whether raft has ever run on this directory: its vote file holds more than the number of a change, eight
// bytes behind a length and a checksum.
func voted(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var length [4]byte
	_, err = f.ReadAt(length[:], 0)
	return err == nil && binary.LittleEndian.Uint32(length[:]) > 8
}

// causeOf leaves out the name of a file that was made up.
func causeOf(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
