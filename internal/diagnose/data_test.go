//go:build unix

package diagnose

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestDataDirectory(t *testing.T) {
	s := newScene(t)
	data := filepath.Join(s.dir, "data")
	run := func() Report { return s.run(s.listener(), s.storage()) }
	r := run()
	expect(t, r, CheckData, OK, "can be written, and is Locum's alone")
	expect(t, r, CheckDisk, OK, "MiB are free")
	if left, err := os.ReadDir(data); err != nil || len(left) != 0 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
	if err := os.Chmod(data, 0o755); err != nil {
		t.Fatal(err)
	}
	expect(t, run(), CheckData, Warning, "open to other users (mode 0755)", "do: chmod 700 it")
	if err := os.Remove(data); err != nil {
		t.Fatal(err)
	}
	r = run()
	expect(t, r, CheckData, OK, "not there yet")
	expect(t, r, CheckDisk, Skipped, "not measured")
	s.file("data", "a file")
	expect(t, run(), CheckData, Error, "is a file")
	expect(t, s.run(s.listener(), "storage \"inmem\" {\n}\n"), CheckData, OK, "keeps nothing in files")
}

func TestDataDirectoryPermissions(t *testing.T) {
	s := newScene(t)
	data := filepath.Join(s.dir, "data")
	if os.Geteuid() != 0 {
		if err := os.Chmod(data, 0o500); err != nil {
			t.Fatal(err)
		}
		expect(t, s.run(s.listener(), s.storage()), CheckData, Error, "cannot write to", "do: chown it")
		if err := os.Remove(data); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(s.dir, 0o500); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(s.dir, 0o700) })
		return
	}
	s.file("data/raft/vote", "")
	if err := os.Chown(filepath.Join(data, "raft", "vote"), 12345, -1); err != nil {
		t.Skip("cannot give files away here")
	}
	expect(t, s.run(s.listener(), s.storage()), CheckData, Error, "do not belong to its owner", "vote", "do: end the node, then chown -R 0")
	if err := os.Chown(data, 12345, -1); err != nil {
		t.Fatal(err)
	}
	expect(t, s.run(s.listener(), s.storage()), CheckData, Warning, "belongs to user 12345, and this is user 0", "sudo -u '#12345'")
}

func TestIdentity(t *testing.T) {
	s := newScene(t)
	const id = "5b1f0c1e-1111-4222-8333-444455556666"
	s.file("data/format", "1\n")
	s.file("data/node-id", id+"\n")
	run := func() Report { return s.run(s.listener(), s.storage()) }
	s.file("data/raft/vote", "\x08\x00\x00\x00")
	r := run()
	never(t, r, CheckData, Error)
	expect(t, r, CheckMember, Warning, "in no cluster, and retry_join names none")
	s.file("data/raft/vote", "\x20\x00\x00\x00")
	expect(t, run(), CheckMember, OK, id+", has taken part in a cluster")
	s.file("data/node-id", "nonsense")
	expect(t, run(), CheckData, Error, "is damaged", "do: end the node, empty the directory")
	s.file("data/format", "2\n")
	expect(t, run(), CheckData, Error, `has format "2"`)
}

// A directory that a process has is told from one that nobody has, with the process where the system says.
func TestInUse(t *testing.T) {
	s := newScene(t)
	f, err := os.OpenFile(s.file("data/raft/lock", ""), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if pid := lockedBy(f.Name()); pid != 0 {
		t.Errorf("locked by %d, and is not", pid)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if pid := lockedBy(f.Name()); pid != os.Getpid() && pid != -1 {
		t.Errorf("locked by %d", pid)
	}
	r := s.run(s.listener(), s.storage())
	expect(t, r, CheckData, OK, "is in use by")
	expect(t, r, CheckPorts, Error, "has the data directory, and does not listen on", "do: look at its log")
	expect(t, r, CheckNode, Error, "it runs", "API does not answer")
}

// What raft needs of the disk depends on its performance setting.
func TestDiskSpeed(t *testing.T) {
	for _, c := range []struct {
		half, worst time.Duration
		performance float64
		want        Level
		part        string
	}{
		{time.Millisecond, 20 * time.Millisecond, 1, OK, "half of 30 small writes"},
		{30 * time.Millisecond, 50 * time.Millisecond, 1, Warning, "should be within 10ms"},
		{time.Millisecond, 150 * time.Millisecond, 1, Warning, "never above 100ms"},
		{120 * time.Millisecond, 130 * time.Millisecond, 1, Error, "lose their leadership"},
		{30 * time.Millisecond, 150 * time.Millisecond, 5, OK, ""},
	} {
		r := &run{check: CheckDisk, dir: dataDir{path: "d"}}
		took := make([]time.Duration, syncs)
		for i := range took {
			took[i] = c.half
		}
		took[3] = c.worst
		r.speed(took, c.performance)
		if f := r.findings[0]; f.Level != c.want || !strings.Contains(f.What, c.part) {
			t.Errorf("%+v: %+v", c, f)
		}
	}
	took, err := measure(t.TempDir())
	if err != nil || len(took) == 0 {
		t.Errorf("%v, %v", took, err)
	}
	if _, err := measure(filepath.Join(t.TempDir(), "nothing")); err == nil {
		t.Error("measured nothing")
	}
}

func TestSpace(t *testing.T) {
	const gib = 1 << 30
	for free, want := range map[uint64]Level{100 * gib: OK, gib: Warning, gib / 8: Error, 0: Error} {
		r := &run{check: CheckDisk, dir: dataDir{path: "d"}}
		r.space(free, 200*gib, 3*(64<<20))
		if f := r.findings[0]; f.Level != want {
			t.Errorf("%d: %+v", free, f)
		}
	}
	if fmt.Sprint(rounded(1234567*time.Nanosecond), rounded(1500*time.Nanosecond), rounded(1234*time.Millisecond)) != "1.2ms 2µs 1.23s" {
		t.Error(rounded(1234567*time.Nanosecond), rounded(1500*time.Nanosecond), rounded(1234*time.Millisecond))
	}
}
