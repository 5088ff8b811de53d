//go:build unix

package diagnose

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// locksKnown: whether a process has the data directory can be found out here.
const locksKnown = true

func canWrite(dir string) error { return unix.Access(dir, unix.W_OK|unix.X_OK) }

func ownerOf(info os.FileInfo) (uid int, known bool) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid), true
	}
	return 0, false
}

// lockedBy returns the process that has the file locked, -1 for one that is not known, 0 for none.
func lockedBy(path string) int {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	if pid := inLockTable(f); pid > 0 {
		return pid
	}
	// A process in another container is not in the table. A shared lock is refused while somebody has the exclusive one.
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return -1
	}
	return 0
}

// inLockTable looks a file up in Linux's table of locks: "1: FLOCK  ADVISORY  WRITE 123 fd:01:4567 0 EOF".
func inLockTable(f *os.File) int {
	var st unix.Stat_t
	table, err := os.Open("/proc/locks")
	if err != nil || unix.Fstat(int(f.Fd()), &st) != nil {
		return 0
	}
	defer table.Close()
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)), st.Ino)
	for lines := bufio.NewScanner(table); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) < 6 || words[1] != "FLOCK" || words[5] != file {
			continue
		}
		if pid, err := strconv.Atoi(words[4]); err == nil && pid > 0 {
			return pid
		}
	}
	return 0
}

// spaceOf returns the bytes that this user can still write, and all that there are.
func spaceOf(path string) (free, total uint64, known bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0, false
	}
	return uint64(st.Bavail) * uint64(st.Bsize), uint64(st.Blocks) * uint64(st.Bsize), true
}
