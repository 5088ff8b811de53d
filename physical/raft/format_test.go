package raft

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	hraft "github.com/hashicorp/raft"

	"github.com/locum-ha/locum/physical"
)

// The stored formats are frozen: what an earlier version wrote, every later one reads. A vector is changed
// only together with the format's number.

func vector(t *testing.T, name string, got []byte, want string) {
	t.Helper()
	want = strings.Join(strings.Fields(want), "")
	if h := hex.EncodeToString(got); h != want {
		t.Errorf("%s is written as\n%s, frozen is\n%s", name, h, want)
	}
}

var frozenFence = physical.Fence{Lineage: "lin", Term: 300, Nonce: [16]byte{1, 2, 3}}

func frozenRequests() []request {
	return []request{
		{kind: kindCommit, fenced: true, fence: frozenFence, ops: []physical.Op{
			physical.Put("a/b", []byte("value")), physical.Delete("c"), physical.RequireAbsent("d"), physical.RequireValue("e", []byte{0}),
		}},
		{kind: kindCommit, ops: []physical.Op{physical.Put("k", []byte{})}},
		{kind: kindRaise, to: frozenFence},
		{kind: kindAcquire, holder: "node", name: "n", term: 7},
		{kind: kindRelease, term: 8, next: "other"},
		{kind: kindAddress, holder: "id", name: "h:1"},
	}
}

func TestFrozenCommand(t *testing.T) {
	data := []byte{commandFormat}
	for _, r := range frozenRequests() {
		data = r.append(data)
	}
	const frozen = `01 01 01 03 6c696e ac02 01020300000000000000000000000000 04
		01 03 612f62 05 76616c7565  02 01 63 00  03 01 64 00  04 01 65 01 00
		01 00 01 01 01 6b 00
		02 00 00 00000000000000000000000000000000 03 6c696e ac02 01020300000000000000000000000000
		03 04 6e6f6465 01 6e 07
		04 08 05 6f74686572
		05 02 6964 03 683a31`
	vector(t, "a command", data, frozen)
	raw, err := hex.DecodeString(strings.Join(strings.Fields(frozen), ""))
	must(t, err)
	requests, err := decodeEntry(raw)
	must(t, err)
	if len(requests) != 6 || requests[3].holder != "node" || requests[0].fence != frozenFence {
		t.Errorf("the frozen command is read as %+v", requests)
	}
}

func TestFrozenLogEntry(t *testing.T) {
	e := hraft.Log{Index: 300, Term: 2, Type: hraft.LogBarrier, Data: []byte("data"), Extensions: []byte("x"), AppendedAt: time.Unix(1, 2)}
	b := appendLog(nil, &e)
	vector(t, "a log entry", b, `01 04 0000000000000002 000000003b9aca02 01 78 64617461 `+hex.EncodeToString(b[len(b)-4:]))
	vector(t, "its checksum", b[len(b)-4:], frozenEntrySum)
	var back hraft.Log
	must(t, decodeLog(300, b, &back))
	if !reflect.DeepEqual(back, e) {
		t.Errorf("read as %+v", back)
	}
	if decodeLog(301, b, &back) == nil {
		t.Error("an entry was taken for another index's")
	}
	h := make([]byte, recHeader)
	recordHeader(h, 3, 512, recEntries, []byte("payload"))
	vector(t, "a record's header", h, frozenRecordHeader)
}

const (
	frozenEntrySum     = "529b5721"
	frozenRecordHeader = "07000000010000007069e3f4673072e9"
)

func TestFrozenSnapshot(t *testing.T) {
	var b bytes.Buffer
	w := newSnapshotWriter(&b, header{index: 9, term: 2, fence: frozenFence, lock: lockRecord{
		Record: physical.Record{Holder: "h", Name: "n", Term: 300, Next: ""}, raftTerm: 2, floor: 5,
	}, addrs: map[string]string{"y": "h:2", "x": "h:1"}})
	must(t, w.entry([]byte("a/b"), []byte("value")))
	must(t, w.entry([]byte("c"), nil))
	must(t, w.finish(&b))
	body, sum := b.Bytes()[:b.Len()-32], b.Bytes()[b.Len()-32:]
	vector(t, "a snapshot", body, `6c6f63756d736e70 01 09 02 03 6c696e ac02 01020300000000000000000000000000
		01 68 01 6e ac02 00 02 05  02 01 78 03 683a31 01 79 03 683a32  01 03 612f62 05 76616c7565  01 01 63 00  00 02`)
	vector(t, "its checksum", sum, frozenSnapshotSum)
}

const frozenSnapshotSum = "fa5eab9c29600c773a49a9d85b89c467a2fa721ba650b957078c17ec4b03214b"

// A directory that the first version wrote opens, with everything in it.
func TestFrozenDirectory(t *testing.T) {
	golden := filepath.Join("testdata", "v1")
	if os.Getenv("RAFT_FREEZE") != "" {
		freeze(t, golden)
	}
	dir := t.TempDir()
	must(t, os.CopyFS(dir, os.DirFS(golden)))
	must(t, unzero(filepath.Join(dir, "raft", "log")))
	s, err := Open(Config{Path: dir, Advertise: "127.0.0.1:1"})
	must(t, err)
	defer func() { must(t, s.Close()) }()
	for key, want := range map[string]string{"a/b": "value", "core/keyring": "sealed"} {
		e, err := s.Get(t.Context(), key)
		must(t, err)
		if string(e.Value) != want {
			t.Errorf("%s holds %q", key, e.Value)
		}
	}
	peers, err := s.Peers()
	must(t, err)
	if len(peers) != 1 || peers[0].ID != s.ID() || !peers[0].Voter || s.state.header().addrs[s.ID()] == "" {
		t.Errorf("members %+v", peers)
	}
	f, err := s.Fence(t.Context())
	must(t, err)
	if f != frozenFence {
		t.Errorf("fence %v", f)
	}
}

// Segments are megabytes of zeros: in testdata they end with the last record.
func unzero(dir string) error {
	return eachSegment(dir, func(path string, data []byte) error { return os.Truncate(path, firstSize) })
}

func eachSegment(dir string, do func(path string, data []byte) error) error {
	numbers, err := segmentNumbers(dir)
	for _, n := range numbers {
		data, readErr := os.ReadFile(segmentPath(dir, n))
		if readErr != nil {
			return readErr
		}
		if err := do(segmentPath(dir, n), data); err != nil {
			return err
		}
	}
	return err
}

// freeze writes testdata anew.
func freeze(t *testing.T, golden string) {
	c := newCluster(t, 1, nil)
	l := c.leader()
	eventually(t, 5*time.Second, func(ctxT) error {
		if l.state.header().addrs[l.ID()] == "" {
			return os.ErrNotExist
		}
		return nil
	})
	put(t, l.Store, "core/keyring", "sealed")
	must(t, l.RaiseFence(t.Context(), physical.Fence{}, frozenFence))
	must(t, l.running().raft.Snapshot().Error())
	must(t, l.Commit(t.Context(), &frozenFence, physical.Put("a/b", []byte("value"))))
	path := c.nodes[0].path
	c.stop(0)
	must(t, os.RemoveAll(golden))
	must(t, os.MkdirAll(golden, 0o755))
	must(t, os.CopyFS(golden, os.DirFS(path)))
	must(t, os.Remove(filepath.Join(golden, "raft", "state.db"))) // a cache, and of the machine's page size
	must(t, eachSegment(filepath.Join(golden, "raft", "log"), func(path string, data []byte) error {
		return os.WriteFile(path, bytes.TrimRight(data, "\x00"), 0o600)
	}))
}

// A newer format is refused with both numbers in the error.
func TestNewerFormats(t *testing.T) {
	refused := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "format") || !strings.Contains(err.Error(), "this version knows") {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := decodeEntry([]byte{9, 1})
	refused("command", err)
	e := appendLog(nil, entry(1, 1, 10))
	e[0] = 9
	e = append(e[:len(e)-4], 0, 0, 0, 0)
	sum := logSum(1, e[:len(e)-4])
	e[len(e)-4], e[len(e)-3], e[len(e)-2], e[len(e)-1] = byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum)
	refused("log entry", decodeLog(1, e, new(hraft.Log)))
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "format"), []byte("2\n"), 0o600))
	_, err = Open(Config{Path: dir})
	refused("directory", err)
	hello := appendHello(nil, identity{"a", "b"}, "c")
	hello[len(wireMagic)] = 9
	_, _, err = readHello(bufio.NewReader(bytes.NewReader(hello)))
	refused("hello", err)
}
