package test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// A write that power loss has torn, in the log or in the state, and a file that lost its second half, each end in a
// healthy cluster or in a node that says clearly what is wrong, never in one that serves something else.
func TestTornFiles(t *testing.T) {
	c := cluster.New(t, cluster.Options{})
	ctx := within(t, 2*time.Minute)
	client := clientsOf(t, c)[0]
	for i := range 50 {
		put(ctx, t, client, fmt.Sprintf("torn/%d", i), "kept")
	}
	for _, damage := range []struct {
		name, file string
		do         func(path string) error
	}{
		{"the log's last write torn", "raft/log.db", tearMeta},
		{"the state's last write torn", "raft/state.db", tearMeta},
		{"the log cut in half", "raft/log.db", halve},
		{"the state cut in half", "raft/state.db", halve},
		{"the state lost", "raft/state.db", os.Remove},
		{"the log lost", "raft/log.db", os.Remove},
	} {
		t.Run(damage.name, func(t *testing.T) {
			active, err := c.WaitActive(ctx)
			if err != nil {
				t.Fatal(err)
			}
			victim := c.Nodes[(active.Index+1)%3]
			victim.Kill()
			if err := damage.do(filepath.Join(victim.DataDir(), damage.file)); err != nil {
				t.Fatal(err)
			}
			before := identity(t, victim)
			comeBack(ctx, t, c, victim)
			if damage.name == "the log lost" && identity(t, victim) == before {
				// It has forgotten its vote and what it had acknowledged: as the same voter it could elect one who lacks
				// committed entries (P3).
				t.Error("a node that lost its log goes on as the voter that it was")
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
		if strings.Contains(said, "panic:") || strings.Contains(said, "goroutine ") || !strings.Contains(said, "error: ") {
			t.Error("that is no clear error")
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
