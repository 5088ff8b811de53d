package test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// Files as power loss and failing disks leave them: each ends in a healthy cluster or in a node that says clearly what is
// wrong, never in one that serves something else or votes as if it remembered.
func TestDamagedFiles(t *testing.T) {
	c := cluster.New(t, calm)
	ctx := within(t, 2*time.Minute)
	client := clientsOf(t, c)[0]
	for i := range 50 {
		put(ctx, t, client, fmt.Sprintf("torn/%d", i), "kept")
	}
	for _, damage := range []struct {
		name    string
		forgets bool // the node cannot know any more how it voted and what it acknowledged
		do      func(raftDir string) error
	}{
		{"the log's last write torn", false, onLog(tearTail)},
		{"a byte of the log flipped", false, onLog(flipByte)},
		{"the log cut in half", true, onLog(halve)},
		{"the log lost", true, func(dir string) error { return os.RemoveAll(filepath.Join(dir, "log")) }},
		{"the vote lost", true, func(dir string) error { return os.Remove(filepath.Join(dir, "vote")) }},
		{"the state's last write torn", false, onState(tearMeta)},
		{"the state cut in half", false, onState(halve)},
		{"the state lost", false, onState(os.Remove)},
	} {
		t.Run(damage.name, func(t *testing.T) {
			active, err := c.WaitActive(ctx)
			if err != nil {
				t.Fatal(err)
			}
			victim := c.Nodes[(active.Index+1)%3]
			put(ctx, t, client, "torn/last", strings.Repeat("x", 4096)) // the last record spans several sectors
			victim.Kill()
			if err := damage.do(filepath.Join(victim.DataDir(), "raft")); err != nil {
				t.Fatal(err)
			}
			before := identity(t, victim)
			comeBack(ctx, t, c, victim)
			if damage.forgets && identity(t, victim) == before {
				// As the same voter it could elect one who lacks committed entries (P3).
				t.Error("a node that has forgotten its log or its vote goes on as the voter that it was")
			}
			own := clientsOf(t, c)[victim.Index]
			for i := range 50 {
				expect(ctx, t, own, fmt.Sprintf("torn/%d", i), "kept")
			}
		})
	}
}

// comeBack starts a damaged node. If it ends with a clear error, its directory is emptied, as an operator would.
func comeBack(ctx context.Context, t *testing.T, c *cluster.Cluster, victim *cluster.Node) {
	t.Helper()
	mark := len(victim.LogTail(1 << 20))
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	limit, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	err := cluster.Poll(limit, "the damaged node is well or has ended", func() error {
		code := c.Health(limit, victim)
		if victim.Running() && code != http.StatusOK && code != http.StatusTooManyRequests {
			return &cluster.StatusError{Code: code}
		}
		return nil
	})
	said := victim.LogTail(1 << 20)[mark:]
	if err != nil {
		t.Errorf("%v; it said:\n%s", err, said)
		victim.Kill()
	}
	if victim.Running() {
		t.Log("it is well")
	} else {
		t.Logf("it ended with:\n%s", said)
		if strings.Contains(said, "panic:") || strings.Contains(said, "goroutine ") || !strings.Contains(said, "error: ") || !strings.Contains(said, "hint: ") {
			t.Error("that is no clear error that says what to do")
		}
		if err := victim.Empty(); err != nil {
			t.Fatal(err)
		}
		if err := victim.Start(); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.WaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitVoters(ctx, 3); err != nil {
		t.Fatal(err)
	}
}

func onState(f func(path string) error) func(string) error {
	return func(raftDir string) error { return f(filepath.Join(raftDir, "state.db")) }
}

// onLog applies f to the segment of the log that is written to.
func onLog(f func(path string) error) func(string) error {
	return func(raftDir string) error {
		segments, err := filepath.Glob(filepath.Join(raftDir, "log", "*.wal"))
		if err != nil || len(segments) == 0 {
			return fmt.Errorf("no segments in %s: %w", raftDir, err)
		}
		return f(slices.Max(segments))
	}
}

// tearTail leaves the last sector that was written as it was before: zero.
func tearTail(path string) error {
	return change(path, func(used []byte) { clear(used[(len(used)-1)&^511:]) })
}

func flipByte(path string) error {
	return change(path, func(used []byte) { used[len(used)/2] ^= 0x10 })
}

// change edits the part of a zero-filled file that was written.
func change(path string, edit func(used []byte)) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	edit(bytes.TrimRight(data, "\x00"))
	return os.WriteFile(path, data, 0o600)
}

// tearMeta destroys half of the newer of a bbolt file's two meta pages: the last thing that a commit writes. The page is
// a header of 16 bytes and the meta, in which the transaction's number stands at 48.
func tearMeta(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	page := int64(os.Getpagesize())
	newest, at := uint64(0), int64(0)
	for i := range int64(2) {
		var b [8]byte
		if _, err := file.ReadAt(b[:], i*page+16+48); err != nil {
			return err
		}
		if tx := binary.LittleEndian.Uint64(b[:]); tx >= newest {
			newest, at = tx, i*page
		}
	}
	_, err = file.WriteAt(make([]byte, 512), at+32)
	return err
}

func halve(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.Truncate(path, info.Size()/2)
}
