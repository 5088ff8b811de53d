package raft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	hraft "github.com/hashicorp/raft"
)

const (
	keyCommit = "commit" // an index that is known to be committed
	keySynced = "synced" // an index that the log is known to reach
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errNotFound carries the text by which the raft library knows a key that was never set.
var errNotFound = errors.New("not found")

// errInUse: another process has the data directory.
var errInUse error = inUse{}

type inUse struct{}

func (inUse) Error() string { return "in use by another process" }

// Hint says what to do about it.
func (inUse) Hint() string {
	return "another node runs in this data directory: end it first, or give this one a directory of its own"
}

// DamagedError says which file of a node cannot be trusted any more. The data is still whole on the other
// nodes: the hint says how to get it back.
type DamagedError struct {
	Path  string // the file
	What  string // what is wrong with it
	Cause error  // nil, or what the store below reported
}

func (e *DamagedError) Error() string {
	msg := fmt.Sprintf("%s is damaged: %s", e.Path, e.What)
	if e.Cause != nil {
		msg += ": " + e.Cause.Error()
	}
	return msg
}

func (e *DamagedError) Unwrap() error { return e.Cause }

// Hint says what to do about it.
func (e *DamagedError) Hint() string {
	return "stop this node, move its data directory away and start it again: it joins anew and gets everything " +
		"from the other nodes. With only one node, restore a snapshot"
}

// logStore is the durable half of a node: the log, the term and the vote. Every write is synced before it
// returns. It implements raft's LogStore, MonotonicLogStore and StableStore.
//
// What it once acknowledged it never loses silently: an entry that does not match its checksum, or a log
// that ends before an index that it is known to have reached, is an error and never a shorter log. The
// node may have promised the entry to the others.
type logStore struct {
	dir   string
	votes *voteFile

	writing sync.Mutex // one write or removal at a time: raft stores and compacts from two goroutines
	wal     *wal

	mu sync.RWMutex // guards what follows

	index []location // of the entries first, first+1, …
	first uint64     // index of the first entry; 0 if there is none
	buf   []byte     // of the record being written

	commit   uint64        // highest commit index found in records and votes
	bytes    atomic.Int64  // size of the entries stored since the store was opened
	entries  atomic.Uint64 // how many those were
	broken   atomic.Bool   // the last write failed
	onBroken func(error)   // is told of it

	// commitHint returns an index that is known to be committed. It is written along with entries, so
	// that after a power loss the state can be built again up to there. Nil before raft runs.
	commitHint atomic.Pointer[func() uint64]
	onStore    func(entries int, took time.Duration)

	recent recentLogs
}

// location is where an entry is.
type location struct {
	seg *segment
	at  uint32
	len uint32
}

// openLogStore opens the log in dir and the vote beside it, reads them through and checks them. With fresh
// they are made: the node has no identity yet, so it cannot have promised anything to anybody.
func openLogStore(dir string, fresh bool) (*logStore, error) {
	s := &logStore{dir: dir, onBroken: func(error) {}}
	path := filepath.Join(filepath.Dir(dir), "vote")
	var err error
	if s.votes, err = openVoteFile(path); errors.Is(err, os.ErrNotExist) && fresh {
		s.votes, err = createVoteFile(path)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil, &DamagedError{Path: path, What: "missing"}
	}
	if err != nil {
		return nil, err
	}
	if s.wal, err = openWAL(dir, fresh, s.replay); err != nil {
		return nil, errors.Join(err, s.votes.close())
	}
	s.commit = max(s.commit, s.number(keyCommit))
	if synced := s.number(keySynced); s.last() < synced {
		err = &DamagedError{Path: dir, What: fmt.Sprintf("the log ends at entry %d, and it had reached %d", s.last(), synced)}
	} else if fresh && s.first != 0 {
		err = &DamagedError{Path: filepath.Join(filepath.Dir(filepath.Dir(dir)), "node-id"), What: "missing beside a log that belongs to it"}
	}
	if err != nil {
		return nil, errors.Join(err, s.wal.close(), s.votes.close())
	}
	return s, nil
}

func (s *logStore) number(key string) uint64 {
	v, err := s.GetUint64([]byte(key))
	if err != nil {
		return 0
	}
	return v
}

// last returns the index of the newest entry, 0 for none. The caller holds mu, or nothing else runs yet.
func (s *logStore) last() uint64 {
	if s.first == 0 {
		return 0
	}
	return s.first + uint64(len(s.index)) - 1
}

// An entries record is: index of the first entry, commit index, number of entries (8, 8 and 4 bytes), and
// for each its length (4) and the entry. A truncate record is the index (8) from which on everything goes, 0
// for all there is.
const entriesHeader = 8 + 8 + 4

// replay takes one record over while the log is opened.
func (s *logStore) replay(seg *segment, at int64, kind byte, payload []byte) error {
	bad := func(what string) error {
		return &DamagedError{Path: seg.path, What: fmt.Sprintf("record at %d: %s", at-recHeader, what)}
	}
	switch kind {
	case recTruncate:
		if len(payload) != 8 {
			return bad("malformed")
		}
		s.cut(binary.LittleEndian.Uint64(payload))
		return nil
	case recEntries:
	default:
		return fmt.Errorf("%s: record of kind %d, which this version does not know", seg.path, kind)
	}
	if len(payload) < entriesHeader {
		return bad("malformed")
	}
	first, count := binary.LittleEndian.Uint64(payload), binary.LittleEndian.Uint32(payload[16:])
	s.commit = max(s.commit, binary.LittleEndian.Uint64(payload[8:]))
	if first == 0 || s.first != 0 && first != s.last()+1 {
		return bad(fmt.Sprintf("entry %d follows on entry %d", first, s.last()))
	}
	at, rest := at+entriesHeader, payload[entriesHeader:]
	for i := range uint64(count) {
		if len(rest) < 4 {
			return bad("malformed")
		}
		n := binary.LittleEndian.Uint32(rest)
		if uint64(n) > uint64(len(rest)-4) {
			return bad("malformed")
		}
		var entry hraft.Log
		if err := decodeLog(first+i, rest[4:4+n], &entry); err != nil {
			return bad(fmt.Sprintf("entry %d: %v", first+i, err))
		}
		s.append(first+i, location{seg: seg, at: uint32(at + 4), len: n})
		at, rest = at+4+int64(n), rest[4+n:]
	}
	return nil
}

func (s *logStore) append(index uint64, at location) {
	if s.first == 0 {
		s.first = index
	}
	s.index = append(s.index, at)
}

// cut forgets the entries from an index on.
func (s *logStore) cut(from uint64) {
	switch {
	case s.first == 0 || from > s.last():
	case from <= s.first: // also 0
		s.first, s.index = 0, nil
	default:
		s.index = s.index[:from-s.first]
	}
}

// FirstIndex returns the index of the oldest entry, 0 for none.
func (s *logStore) FirstIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.first, nil
}

// LastIndex returns the index of the newest entry, 0 for none.
func (s *logStore) LastIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.last(), nil
}

// IsMonotonic tells raft that the log has no gaps: it is emptied when a snapshot jumps ahead of it.
func (s *logStore) IsMonotonic() bool { return true }

// GetLog reads one entry.
func (s *logStore) GetLog(index uint64, out *hraft.Log) error {
	if s.recent.get(index, out) {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.first == 0 || index < s.first || index > s.last() {
		return hraft.ErrLogNotFound
	}
	at := s.index[index-s.first]
	raw, err := s.wal.read(at.seg, int64(at.at), int(at.len))
	if err != nil {
		return err
	}
	if err := decodeLog(index, raw, out); err != nil {
		return &DamagedError{Path: at.seg.path, What: fmt.Sprintf("log entry %d", index), Cause: err}
	}
	return nil
}

// StoreLog stores one entry.
func (s *logStore) StoreLog(entry *hraft.Log) error { return s.StoreLogs([]*hraft.Log{entry}) }

// StoreLogs stores entries in one synced write: all or none.
func (s *logStore) StoreLogs(entries []*hraft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	start := time.Now()
	err := s.store(entries)
	s.broken.Store(err != nil)
	if err != nil {
		s.onBroken(err)
		return err
	}
	s.recent.add(entries)
	if s.onStore != nil {
		s.onStore(len(entries), time.Since(start))
	}
	return nil
}

func (s *logStore) store(entries []*hraft.Log) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.RLock()
	first, last, commit := entries[0].Index, s.last(), s.commit
	s.mu.RUnlock()
	if last != 0 && first != last+1 {
		return fmt.Errorf("log entry %d cannot follow on entry %d", first, last)
	}
	if hint := s.commitHint.Load(); hint != nil {
		commit = max(commit, min((*hint)(), entries[len(entries)-1].Index))
	}
	b := append(s.buf[:0], make([]byte, recHeader)...)
	b = binary.LittleEndian.AppendUint64(b, first)
	b = binary.LittleEndian.AppendUint64(b, commit)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(entries)))
	at := make([]location, len(entries))
	for i, entry := range entries {
		if entry.Index != first+uint64(i) {
			return fmt.Errorf("log entry %d cannot follow on entry %d", entry.Index, first+uint64(i)-1)
		}
		b = append(b, 0, 0, 0, 0)
		from := len(b)
		b = appendLog(b, entry)
		binary.LittleEndian.PutUint32(b[from-4:], uint32(len(b)-from))
		at[i] = location{at: uint32(from - recHeader), len: uint32(len(b) - from)}
	}
	if cap(b) <= keepBuf {
		s.buf = b
	} else {
		s.buf = nil
	}
	seg, payload, err := s.wal.append(recEntries, b)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range at {
		at[i].seg = seg
		at[i].at += uint32(payload)
		s.append(first+uint64(i), at[i])
	}
	s.commit = commit
	s.bytes.Add(int64(len(b)))
	s.entries.Add(uint64(len(entries)))
	return nil
}

// keepBuf is how large the buffer of a record may be to be kept for the next.
const keepBuf = 4 << 20

// saveMarks writes the commit index and the log's end down without an entry: for when the log falls
// silent. From then on a log that ends before is known to be damaged.
func (s *logStore) saveMarks() error {
	s.mu.RLock()
	last, commit := s.last(), s.commit
	s.mu.RUnlock()
	if hint := s.commitHint.Load(); hint != nil {
		commit = max(commit, min((*hint)(), last))
	}
	if s.number(keyCommit) >= commit && s.number(keySynced) == last {
		return nil
	}
	return s.votes.setAll(map[string][]byte{
		keyCommit: binary.BigEndian.AppendUint64(nil, max(commit, s.number(keyCommit))),
		keySynced: binary.BigEndian.AppendUint64(nil, last),
	})
}

// commitIndex returns the highest index that was known to be committed when it was last written down.
func (s *logStore) commitIndex() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return min(s.commit, s.last())
}

// DeleteRange removes the entries from low to high, both included: a head, a tail, or all.
func (s *logStore) DeleteRange(low, high uint64) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.RLock()
	first, last := s.first, s.last()
	s.mu.RUnlock()
	switch {
	case first == 0 || high < first || low > last || low > high:
		return nil
	case high >= last && low <= first:
		return s.truncate(0)
	case high >= last:
		return s.truncate(low)
	case low <= first:
		return s.dropHead(high)
	default:
		return fmt.Errorf("log entries %d to %d are in the middle of %d to %d", low, high, first, last)
	}
}

// truncate removes the tail from an index on, durably; with 0, everything.
func (s *logStore) truncate(from uint64) error {
	end := max(from, 1) - 1
	if s.number(keySynced) > end { // else a crash now would make the shorter log look damaged
		if err := s.SetUint64([]byte(keySynced), end); err != nil {
			return err
		}
	}
	record := binary.LittleEndian.AppendUint64(make([]byte, recHeader), from)
	if _, _, err := s.wal.append(recTruncate, record); err != nil {
		s.broken.Store(true)
		s.onBroken(err)
		return err
	}
	s.recent.drop(from)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut(from)
	if s.first == 0 {
		return s.wal.dropBefore(nil)
	}
	return nil
}

// dropHead forgets the entries up to an index and removes the segments that held only such. What remains
// of them in a segment comes back when the log is opened, which does no harm: it is in the snapshot.
func (s *logStore) dropHead(high uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index = append([]location(nil), s.index[high+1-s.first:]...)
	s.first = high + 1
	if err := s.wal.dropBefore(s.index[0].seg); err != nil {
		return fmt.Errorf("remove a segment of the log: %w", err)
	}
	return nil
}

// Set stores a value of raft's own.
func (s *logStore) Set(key, value []byte) error { return s.votes.set(string(key), value) }

// Get returns a value of raft's own, or an error whose text is "not found".
func (s *logStore) Get(key []byte) ([]byte, error) {
	if value, ok := s.votes.get(string(key)); ok {
		return value, nil
	}
	return nil, errNotFound
}

// SetUint64 stores a number of raft's own.
func (s *logStore) SetUint64(key []byte, value uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 returns a number of raft's own; 0 and an error whose text is "not found" if it was never set.
func (s *logStore) GetUint64(key []byte) (uint64, error) {
	v, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, &DamagedError{Path: s.votes.path, What: fmt.Sprintf("value of %s", key)}
	}
	return binary.BigEndian.Uint64(v), nil
}

// Close writes the marks down and closes the files.
func (s *logStore) Close() error {
	s.commitHint.Store(nil)
	var err error
	if s.wal.fail == nil {
		err = s.saveMarks()
	}
	return errors.Join(err, s.wal.close(), s.votes.close())
}
