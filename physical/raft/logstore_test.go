package raft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	hraft "github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

func openTestLog(t testing.TB, base string) *logStore {
	t.Helper()
	_, err := os.Stat(filepath.Join(base, "log"))
	s, err := openLogStore(filepath.Join(base, "log"), err != nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func entry(index, term uint64, size int) *hraft.Log {
	data := make([]byte, size)
	r := rand.New(rand.NewPCG(index, term))
	for i := range data {
		data[i] = byte(r.Uint32() | 1) // like ciphertext: no run of zeros
	}
	return &hraft.Log{Index: index, Term: term, Type: hraft.LogCommand, Data: data, AppendedAt: time.Unix(1700000000, int64(index))}
}

func wantEntry(t testing.TB, s *logStore, want *hraft.Log) {
	t.Helper()
	var got hraft.Log
	if err := s.GetLog(want.Index, &got); err != nil {
		t.Fatalf("entry %d: %v", want.Index, err)
	}
	if got.Index != want.Index || got.Term != want.Term || got.Type != want.Type || !bytes.Equal(got.Data, want.Data) ||
		!bytes.Equal(got.Extensions, want.Extensions) || !got.AppendedAt.Equal(want.AppendedAt) {
		t.Fatalf("entry %d is %+v, want %+v", want.Index, got, *want)
	}
}

// P3, "on a majority, each with an fsync": what was written is synced before the call returns, entries once, a vote once for each
// of its two copies; and a sync that fails is an error.
func TestEveryWriteIsSynced(t *testing.T) {
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	defer w.Close()
	if syncData(w) == nil {
		t.Error("nobody was asked to sync: a pipe cannot be")
	}
	s := openTestLog(t, t.TempDir())
	defer s.Close()
	synced, broken := 0, error(nil)
	count := func(f *os.File) error {
		if err := syncData(f); err != nil {
			return err
		}
		synced++
		return broken
	}
	s.wal.sync, s.votes.sync = count, count
	for what, write := range map[string]struct {
		do   func() error
		want int
	}{
		"entries": {func() error { return s.StoreLogs([]*hraft.Log{entry(1, 1, 10), entry(2, 1, 10), entry(3, 1, 10)}) }, 1},
		"a vote":  {func() error { return s.Set([]byte("LastVoteCand"), []byte("a@b")) }, 2},
		"a term":  {func() error { return s.SetUint64([]byte("CurrentTerm"), 7) }, 2},
	} {
		synced = 0
		must(t, write.do())
		if synced != write.want {
			t.Errorf("%s: synced %d times before it returned, want %d", what, synced, write.want)
		}
	}
	broken = errors.New("the disk says no")
	if err := s.StoreLog(entry(4, 1, 10)); !errors.Is(err, broken) {
		t.Errorf("entries that are not synced: %v", err)
	}
	if err := s.SetUint64([]byte("CurrentTerm"), 8); !errors.Is(err, broken) {
		t.Errorf("a term that is not synced: %v", err)
	}
}

// What raft asks of its stores: hraft.LogStore and hraft.StableStore.
func TestLogStoreContract(t *testing.T) {
	base := t.TempDir()
	s := openTestLog(t, base)
	if first, _ := s.FirstIndex(); first != 0 {
		t.Errorf("first of an empty log: %d", first)
	}
	if last, _ := s.LastIndex(); last != 0 {
		t.Errorf("last of an empty log: %d", last)
	}
	if err := s.GetLog(1, new(hraft.Log)); !errors.Is(err, hraft.ErrLogNotFound) {
		t.Errorf("entry of an empty log: %v", err)
	}
	if _, err := s.Get([]byte("x")); err == nil || err.Error() != "not found" {
		t.Errorf("a key that was never set: %v", err)
	}
	if n, err := s.GetUint64([]byte("x")); n != 0 || err == nil || err.Error() != "not found" {
		t.Errorf("a number that was never set: %d, %v", n, err)
	}
	must(t, s.SetUint64([]byte("CurrentTerm"), 7))
	must(t, s.Set([]byte("LastVoteCand"), []byte("a@b")))

	var all []*hraft.Log
	for i := uint64(5); i < 50; i++ { // a log need not begin at 1
		all = append(all, entry(i, 1+i/10, int(i)*10))
	}
	all[3].Extensions = []byte("ext")
	all[4].Data = nil
	all[5].AppendedAt = time.Time{}
	must(t, s.StoreLog(all[0]))
	must(t, s.StoreLogs(all[1:10]))
	must(t, s.StoreLogs(all[10:]))
	if err := s.StoreLog(entry(99, 9, 1)); err == nil {
		t.Error("a log with a gap")
	}
	check := func() {
		t.Helper()
		for _, e := range all {
			wantEntry(t, s, e)
		}
		first, _ := s.FirstIndex()
		last, _ := s.LastIndex()
		if first != all[0].Index || last != all[len(all)-1].Index {
			t.Fatalf("log from %d to %d, want %d to %d", first, last, all[0].Index, all[len(all)-1].Index)
		}
		if n, err := s.GetUint64([]byte("CurrentTerm")); n != 7 || err != nil {
			t.Fatalf("term %d, %v", n, err)
		}
	}
	reopen := func() {
		t.Helper()
		must(t, s.Close())
		s = openTestLog(t, base)
	}
	check()
	reopen()
	check()
	must(t, s.DeleteRange(40, 49)) // a tail
	all = append(all[:35:35], entry(40, 8, 10))
	must(t, s.StoreLog(all[35]))
	check()
	reopen()
	check()
	must(t, s.DeleteRange(5, 9)) // a head
	all = all[5:]
	check()
	if err := s.DeleteRange(20, 25); err == nil {
		t.Error("a hole in the middle")
	}
	must(t, s.DeleteRange(10, 40)) // all
	if first, _ := s.FirstIndex(); first != 0 {
		t.Errorf("first of an emptied log: %d", first)
	}
	all = []*hraft.Log{entry(1000, 9, 100)} // a snapshot jumped ahead
	must(t, s.StoreLog(all[0]))
	check()
	reopen()
	check()
	must(t, s.Close())
}

// A log is a list, whatever is stored, cut off and reopened.
func TestLogStoreModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		base, err := os.MkdirTemp(t.TempDir(), "log")
		must(t, err)
		s := openTestLog(t, base)
		model := map[uint64]*hraft.Log{}
		next, first, term := uint64(1), uint64(1), uint64(1)
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			switch rapid.IntRange(0, 9).Draw(rt, "op") {
			case 0:
				must(t, s.Close())
				s = openTestLog(t, base)
				if f, _ := s.FirstIndex(); f != 0 && f < first { // a head may come back
					for i := f; i < first; i++ {
						model[i] = nil
					}
					first = f
				}
			case 1:
				if next > first {
					from := rapid.Uint64Range(first, next-1).Draw(rt, "from")
					must(t, s.DeleteRange(from, next-1))
					for i := from; i < next; i++ {
						delete(model, i)
					}
					next, term = from, term+1
				}
			case 2:
				if next > first+1 {
					to := rapid.Uint64Range(first, next-2).Draw(rt, "to")
					must(t, s.DeleteRange(first, to))
					for i := first; i <= to; i++ {
						delete(model, i)
					}
					first = to + 1
				}
			default:
				var batch []*hraft.Log
				size := rapid.SampledFrom([]int{0, 1, 100, 500, 5000, 200000}).Draw(rt, "size")
				for range rapid.IntRange(1, 8).Draw(rt, "n") {
					e := entry(next, term, size)
					batch, model[next] = append(batch, e), e
					next++
				}
				must(t, s.StoreLogs(batch))
			}
			for i, e := range model {
				if e != nil {
					wantEntry(t, s, e)
				} else if err := s.GetLog(i, new(hraft.Log)); err != nil {
					t.Fatalf("entry %d: %v", i, err)
				}
			}
			if last, _ := s.LastIndex(); len(model) > 0 && last != next-1 {
				t.Fatalf("last is %d, want %d", last, next-1)
			}
		}
		must(t, s.Close())
	})
}

func onlySegment(base string) string { return segmentPath(filepath.Join(base, "log"), 1) }

// A write that a power loss interrupted, in whichever of its sectors: the log is as before it or after
// it, and goes on.
func TestLogTornWrite(t *testing.T) {
	base := t.TempDir()
	s := openTestLog(t, base)
	must(t, s.StoreLogs([]*hraft.Log{entry(1, 1, 700), entry(2, 1, 300)}))
	before, err := os.ReadFile(onlySegment(base))
	must(t, err)
	vote, err := os.ReadFile(filepath.Join(base, "vote"))
	must(t, err)
	must(t, s.StoreLogs([]*hraft.Log{entry(3, 1, 900), entry(4, 1, 1200), entry(5, 1, 400)}))
	after, err := os.ReadFile(onlySegment(base))
	must(t, err)
	must(t, s.Close())
	var sectors []int
	for at := 0; at < len(after); at += walSector {
		if !bytes.Equal(before[at:at+walSector], after[at:at+walSector]) {
			sectors = append(sectors, at)
		}
	}
	for written := range 1 << len(sectors) {
		mixed := bytes.Clone(before)
		for i, at := range sectors {
			if written>>i&1 == 1 {
				copy(mixed[at:], after[at:at+walSector])
			}
		}
		must(t, os.WriteFile(onlySegment(base), mixed, 0o600))
		must(t, os.WriteFile(filepath.Join(base, "vote"), vote, 0o600))
		s := openTestLog(t, base)
		want := uint64(2)
		if written == 1<<len(sectors)-1 {
			want = 5
		}
		if last, _ := s.LastIndex(); last != want {
			t.Fatalf("sectors %b: the log ends at %d, want %d", written, last, want)
		}
		wantEntry(t, s, entry(2, 1, 300))
		e := entry(want+1, 2, 50)
		must(t, s.StoreLog(e))
		must(t, s.Close())
		s = openTestLog(t, base)
		wantEntry(t, s, e)
		must(t, s.Close())
	}
}

// What was damaged after it was written is an error that names the file, and never a shorter log.
func TestLogDamage(t *testing.T) {
	base := t.TempDir()
	s := openTestLog(t, base)
	for i := range uint64(5) {
		must(t, s.StoreLog(entry(i+1, 1, 300)))
	}
	must(t, s.saveMarks())
	must(t, s.Close())
	path := onlySegment(base)
	whole, err := os.ReadFile(path)
	must(t, err)
	used := len(bytes.TrimRight(whole, "\x00"))
	refused := func(what string) {
		t.Helper()
		s, err := openLogStore(filepath.Join(base, "log"), false)
		var damaged *DamagedError
		if !errors.As(err, &damaged) || damaged.Path == "" || damaged.Hint() == "" {
			t.Errorf("%s: got %v", what, err)
		}
		if s != nil {
			must(t, s.Close())
		}
	}
	covered := func(at int) bool { // what lies between records means nothing
		if at < walHeader {
			return at < 36
		}
		for from := int64(walHeader); ; {
			n := int64(binary.LittleEndian.Uint32(whole[from:]))
			if int64(at) < from+recHeader+n {
				return true
			}
			if from = align(from + recHeader + n); int64(at) < from {
				return false
			}
		}
	}
	for at := 0; at < used; at += 1 + at/walHeader*7 {
		if !covered(at) {
			continue
		}
		bad := bytes.Clone(whole)
		bad[at] ^= 0x40
		if at == 8 {
			continue // the format: an error too, of another kind
		}
		must(t, os.WriteFile(path, bad, 0o600))
		refused(fmt.Sprintf("byte %d of %d flipped", at, used))
	}
	for sector := walHeader; sector < used; sector += walSector {
		bad := bytes.Clone(whole)
		clear(bad[sector : sector+walSector])
		must(t, os.WriteFile(path, bad, 0o600))
		refused(fmt.Sprintf("sector at %d of %d zeroed", sector, used))
	}
	must(t, os.WriteFile(path, whole[:used], 0o600))
	refused("cut behind the last entry")
	must(t, os.WriteFile(path, whole[:walHeader], 0o600))
	refused("cut to the header")
	must(t, os.Remove(path))
	refused("removed")
	must(t, os.WriteFile(path, whole, 0o600))
	must(t, os.Rename(filepath.Join(base, "vote"), filepath.Join(base, "away")))
	refused("the vote removed")
	must(t, os.Rename(filepath.Join(base, "away"), filepath.Join(base, "vote")))
	must(t, openTestLog(t, base).Close())
}

// Segments come and go; an entry larger than a segment gets one of its own; one that is missing is noticed.
func TestLogSegments(t *testing.T) {
	base := t.TempDir()
	s := openTestLog(t, base)
	next := uint64(1)
	for range 50 {
		must(t, s.StoreLog(entry(next, 1, 1<<20)))
		next++
	}
	must(t, s.StoreLog(entry(next, 1, normalSize+1000)))
	next++
	must(t, s.StoreLog(entry(next, 1, 10)))
	numbers, err := segmentNumbers(filepath.Join(base, "log"))
	must(t, err)
	if len(numbers) < 5 {
		t.Fatalf("segments %v", numbers)
	}
	must(t, s.Close())
	s = openTestLog(t, base)
	for i := uint64(1); i < next-1; i += 7 {
		wantEntry(t, s, entry(i, 1, 1<<20))
	}
	wantEntry(t, s, entry(next-1, 1, normalSize+1000))
	must(t, s.DeleteRange(1, 40))
	kept, err := segmentNumbers(filepath.Join(base, "log"))
	must(t, err)
	if len(kept) >= len(numbers) || kept[0] == 1 {
		t.Errorf("segments %v after %v and the removal of most entries", kept, numbers)
	}
	must(t, s.Close())
	must(t, os.Remove(segmentPath(filepath.Join(base, "log"), kept[1])))
	if _, err := openLogStore(filepath.Join(base, "log"), false); !isDamaged(err) {
		t.Errorf("a missing segment: %v", err)
	}
}

// A full disk refuses a write and loses nothing; when there is room again, the log goes on.
func TestLogFullDisk(t *testing.T) {
	base := t.TempDir()
	s := openTestLog(t, base)
	full := errors.New("no space left on device")
	s.wal.zeroed = func(string, int64) (*os.File, error) { return nil, full }
	stored := uint64(0)
	var err error
	for err == nil {
		if err = s.StoreLog(entry(stored+1, 1, 50000)); err == nil {
			stored++
		}
	}
	if !errors.Is(err, full) || !s.broken.Load() {
		t.Fatalf("got %v", err)
	}
	must(t, s.SetUint64([]byte("CurrentTerm"), 3)) // a vote needs no room
	s.wal.zeroed = zeroFile
	must(t, s.StoreLog(entry(stored+1, 2, 50000)))
	if s.broken.Load() {
		t.Error("still broken")
	}
	must(t, s.Close())
	s = openTestLog(t, base)
	for i := uint64(1); i <= stored; i++ {
		wantEntry(t, s, entry(i, 1, 50000))
	}
	wantEntry(t, s, entry(stored+1, 2, 50000))
	must(t, s.Close())
}

// Each copy of the vote can be torn or damaged; both cannot.
func TestVoteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vote")
	v, err := createVoteFile(path)
	must(t, err)
	must(t, v.set("a", []byte("1")))
	old, err := os.ReadFile(path)
	must(t, err)
	must(t, v.set("a", []byte("2")))
	must(t, v.set("b", []byte("3")))
	if err := v.set("c", make([]byte, voteCopy)); err == nil {
		t.Error("more than fits was taken")
	}
	must(t, v.close())
	now, err := os.ReadFile(path)
	must(t, err)
	want := func(what string, content []byte, a string) {
		t.Helper()
		must(t, os.WriteFile(path, content, 0o600))
		v, err := openVoteFile(path)
		if a == "" {
			if !isDamaged(err) {
				t.Errorf("%s: got %v", what, err)
			}
			return
		}
		must(t, err)
		if got, _ := v.get("a"); string(got) != a {
			t.Errorf("%s: a is %q, want %q", what, got, a)
		}
		must(t, v.close())
	}
	half := func(first, second []byte) []byte {
		return append(bytes.Clone(first[:voteCopy]), second[voteCopy:]...)
	}
	junk := bytes.Repeat([]byte{7}, 2*voteCopy)
	want("whole", now, "2")
	want("first copy new, second old", half(now, old), "2")
	want("first copy torn, second old", half(junk, old), "1")
	want("second copy damaged", half(now, junk), "2")
	want("both damaged", junk, "")
	want("cut", now[:100], "")
	want("empty", nil, "")
}
