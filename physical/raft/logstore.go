package raft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"sync"
	"sync/atomic"
	"time"

	hraft "github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

var (
	bucketLog    = []byte("log")    // index, big endian -> entry
	bucketStable = []byte("stable") // the term, the vote, the commit index

	keyCommit = []byte("CommitIndex")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// errNotFound carries the text by which the raft library knows a key that was never set.
var errNotFound = errors.New("not found")

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
// returns. It implements raft's LogStore and StableStore.
//
// Each entry carries a checksum over its index and its content. An entry that does not match is an error,
// never a shorter log: the node may have promised it to the others.
type logStore struct {
	db    *bbolt.DB
	path  string
	first atomic.Uint64 // index of the first entry, 0 if there is none
	last  atomic.Uint64 // of the last
	bytes atomic.Int64  // size of entries stored since the store was opened

	// commitHint returns an index that is known to be committed. It is written along with entries, so
	// that after a power loss the state can be built again up to there. Nil before raft runs.
	commitHint atomic.Pointer[func() uint64]
	onStore    func(entries int, took time.Duration)

	recent recentLogs
}

// openLogStore opens or makes the log at path. It waits a second at most for another process that has it.
func openLogStore(path string) (*logStore, error) {
	db, err := openBolt(path, &bbolt.Options{
		Timeout:         time.Second,
		NoFreelistSync:  true,
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: 512 << 20,
		NoStatistics:    true,
	})
	if err != nil {
		return nil, err
	}
	s := &logStore{db: db, path: path}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketLog, bucketStable} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		cursor := tx.Bucket(bucketLog).Cursor()
		if k, _ := cursor.First(); k != nil {
			s.first.Store(binary.BigEndian.Uint64(k))
		}
		if k, _ := cursor.Last(); k != nil {
			s.last.Store(binary.BigEndian.Uint64(k))
		}
		return nil
	})
	if err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("prepare %s: %w", path, err)
	}
	return s, nil
}

// openBolt opens a bbolt file and translates what can go wrong.
func openBolt(path string, options *bbolt.Options) (db *bbolt.DB, err error) {
	defer func() {
		// bbolt asserts the shape of pages that it reads: on a torn file it panics.
		if r := recover(); r != nil {
			db, err = nil, &DamagedError{Path: path, What: fmt.Sprint(r)}
		}
	}()
	db, err = bbolt.Open(path, 0o600, options)
	switch {
	case err == nil:
		return db, nil
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("%s is in use by another process", path)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return nil, &DamagedError{Path: path, What: "not a readable database", Cause: err}
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("open %s: %w", path, err)
	default:
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
}

// verify reads every entry above from, and reports the first that is damaged or missing.
func (s *logStore) verify(from uint64) error {
	return s.view(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketLog).Cursor()
		for k, v := cursor.Seek(indexKey(from + 1)); k != nil; k, v = cursor.Next() {
			index := binary.BigEndian.Uint64(k)
			var entry hraft.Log
			if err := decodeLog(index, v, &entry, false); err != nil {
				return &DamagedError{Path: s.path, What: fmt.Sprintf("log entry %d", index), Cause: err}
			}
		}
		return nil
	})
}

// view is bbolt's View that turns the panics of a damaged file into an error.
func (s *logStore) view(fn func(*bbolt.Tx) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &DamagedError{Path: s.path, What: fmt.Sprint(r)}
		}
	}()
	return s.db.View(fn)
}

func indexKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

// FirstIndex returns the index of the oldest entry, 0 for none.
func (s *logStore) FirstIndex() (uint64, error) { return s.first.Load(), nil }

// LastIndex returns the index of the newest entry, 0 for none.
func (s *logStore) LastIndex() (uint64, error) { return s.last.Load(), nil }

// GetLog reads one entry.
func (s *logStore) GetLog(index uint64, out *hraft.Log) error {
	if s.recent.get(index, out) {
		return nil
	}
	return s.view(func(tx *bbolt.Tx) error {
		v := tx.Bucket(bucketLog).Get(indexKey(index))
		if v == nil {
			return hraft.ErrLogNotFound
		}
		if err := decodeLog(index, v, out, true); err != nil {
			return &DamagedError{Path: s.path, What: fmt.Sprintf("log entry %d", index), Cause: err}
		}
		return nil
	})
}

// StoreLog stores one entry.
func (s *logStore) StoreLog(entry *hraft.Log) error { return s.StoreLogs([]*hraft.Log{entry}) }

// StoreLogs stores entries in one synced write.
func (s *logStore) StoreLogs(entries []*hraft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	start := time.Now()
	var written int64
	err := s.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(bucketLog)
		bucket.FillPercent = 1 // entries are only ever appended
		for _, entry := range entries {
			v := encodeLog(entry)
			written += int64(len(v))
			if err := bucket.Put(indexKey(entry.Index), v); err != nil {
				return err
			}
		}
		return s.putCommit(tx, entries[len(entries)-1].Index)
	})
	if err != nil {
		return fmt.Errorf("write %s: %w", s.path, err)
	}
	if s.first.Load() == 0 {
		s.first.Store(entries[0].Index)
	}
	s.last.Store(max(s.last.Load(), entries[len(entries)-1].Index))
	s.bytes.Add(written)
	s.recent.add(entries)
	if s.onStore != nil {
		s.onStore(len(entries), time.Since(start))
	}
	return nil
}

// putCommit writes down the commit index as far as it is known, in the transaction that also makes the
// entries durable: it never exceeds the log's end.
func (s *logStore) putCommit(tx *bbolt.Tx, last uint64) error {
	hint := s.commitHint.Load()
	if hint == nil {
		return nil
	}
	commit := min((*hint)(), last)
	bucket := tx.Bucket(bucketStable)
	if old := bucket.Get(keyCommit); len(old) == 8 && binary.BigEndian.Uint64(old) >= commit {
		return nil
	}
	return bucket.Put(keyCommit, indexKey(commit))
}

// saveCommit writes the commit index down without an entry: for when the log falls silent.
func (s *logStore) saveCommit() error {
	return s.db.Update(func(tx *bbolt.Tx) error { return s.putCommit(tx, s.last.Load()) })
}

// commitIndex returns the highest index that was known to be committed when it was last written down.
func (s *logStore) commitIndex() (uint64, error) {
	commit, err := s.GetUint64(keyCommit)
	if errors.Is(err, errNotFound) {
		return 0, nil
	}
	return min(commit, s.last.Load()), err
}

// deleteChunk is how many entries are removed in one transaction while the log's head is cut off, so that
// writers wait for milliseconds at most.
const deleteChunk = 1024

// DeleteRange removes the entries from low to high, both included. A tail goes in one step: a crash must
// not leave a hole in the middle. A head goes in steps from the oldest on.
func (s *logStore) DeleteRange(low, high uint64) error {
	s.recent.drop(low, high)
	tail := high >= s.last.Load()
	for at := low; at <= high; {
		next := high + 1
		if !tail && high-at >= deleteChunk {
			next = at + deleteChunk
		}
		if err := s.deleteStep(at, next-1); err != nil {
			return fmt.Errorf("truncate %s: %w", s.path, err)
		}
		at = next
	}
	return nil
}

func (s *logStore) deleteStep(low, high uint64) error {
	var first, last uint64
	err := s.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(bucketLog)
		for index := low; index <= high; index++ {
			if err := bucket.Delete(indexKey(index)); err != nil {
				return err
			}
		}
		cursor := bucket.Cursor()
		if k, _ := cursor.First(); k != nil {
			first = binary.BigEndian.Uint64(k)
		}
		if k, _ := cursor.Last(); k != nil {
			last = binary.BigEndian.Uint64(k)
		}
		return nil
	})
	if err == nil {
		s.first.Store(first)
		s.last.Store(last)
	}
	return err
}

// Set stores a value of raft's own.
func (s *logStore) Set(key, value []byte) error {
	return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketStable).Put(key, value) })
}

// Get returns a value of raft's own, or an error whose text is "not found".
func (s *logStore) Get(key []byte) ([]byte, error) {
	var out []byte
	err := s.view(func(tx *bbolt.Tx) error {
		v := tx.Bucket(bucketStable).Get(key)
		if v == nil {
			return errNotFound
		}
		out = bytes.Clone(v)
		return nil
	})
	return out, err
}

// SetUint64 stores a number of raft's own.
func (s *logStore) SetUint64(key []byte, value uint64) error { return s.Set(key, indexKey(value)) }

// GetUint64 returns a number of raft's own; 0 and an error whose text is "not found" if it was never set.
func (s *logStore) GetUint64(key []byte) (uint64, error) {
	v, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, &DamagedError{Path: s.path, What: fmt.Sprintf("value of %s", key)}
	}
	return binary.BigEndian.Uint64(v), nil
}

func (s *logStore) Close() error { return s.db.Close() }

// An entry on disk: format byte, type byte, term and time (8 bytes each, big endian), length of the
// extensions, extensions, data, and a CRC-32C over the index and all before it (4 bytes).
const (
	logFormat   = 1
	logOverhead = 2 + 8 + 8 + 4
)

func encodeLog(entry *hraft.Log) []byte {
	b := make([]byte, 0, logOverhead+binary.MaxVarintLen64+len(entry.Extensions)+len(entry.Data))
	b = append(b, logFormat, byte(entry.Type))
	b = binary.BigEndian.AppendUint64(b, entry.Term)
	var at int64
	if !entry.AppendedAt.IsZero() {
		at = entry.AppendedAt.UnixNano()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(at))
	b = appendBytes(b, entry.Extensions)
	b = append(b, entry.Data...)
	return binary.BigEndian.AppendUint32(b, logSum(entry.Index, b))
}

func logSum(index uint64, b []byte) uint32 {
	return crc32.Update(crc32.Checksum(indexKey(index), castagnoli), castagnoli, b)
}

// decodeLog reads an entry into out. With own, its data is copied; else it aliases b.
func decodeLog(index uint64, b []byte, out *hraft.Log, own bool) error {
	if len(b) < logOverhead+1 {
		return errors.New("cut short")
	}
	body, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	if logSum(index, body) != sum {
		return errors.New("checksum does not match")
	}
	if body[0] != logFormat {
		return fmt.Errorf("format %d, this version knows %d", body[0], logFormat)
	}
	*out = hraft.Log{Index: index, Type: hraft.LogType(body[1]), Term: binary.BigEndian.Uint64(body[2:])}
	if at := int64(binary.BigEndian.Uint64(body[10:])); at != 0 {
		out.AppendedAt = time.Unix(0, at)
	}
	d := decoder{b: body[18:]}
	extensions := d.bytes()
	if d.bad {
		return errors.New("malformed")
	}
	if own {
		extensions, d.b = bytes.Clone(extensions), bytes.Clone(d.b)
	}
	if len(extensions) > 0 {
		out.Extensions = extensions
	}
	if len(d.b) > 0 {
		out.Data = d.b
	}
	return nil
}

// recentLogs keeps the newest entries in memory: replication and application read each entry right after
// it was written. It is bounded in entries and in bytes (P12).
type recentLogs struct {
	mu    sync.Mutex
	ring  [recentEntries]*hraft.Log
	bytes int
	low   uint64 // the lowest index that may still be held
	high  uint64 // the highest
}

const (
	recentEntries = 512
	recentBytes   = 8 << 20
)

func (r *recentLogs) get(index uint64, out *hraft.Log) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	entry := r.ring[index%recentEntries]
	if entry == nil || entry.Index != index {
		return false
	}
	*out = *entry
	return true
}

func (r *recentLogs) add(entries []*hraft.Log) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, entry := range entries {
		held := *entry // the caller's may be reused; data is never written again
		r.remove(held.Index % recentEntries)
		r.ring[held.Index%recentEntries] = &held
		r.bytes += len(held.Data)
		if r.high == 0 || held.Index <= r.low {
			r.low = held.Index
		}
		r.high = held.Index
		if r.high > recentEntries {
			r.low = max(r.low, r.high-recentEntries)
		}
		for r.bytes > recentBytes && r.low < r.high {
			if e := r.ring[r.low%recentEntries]; e != nil && e.Index == r.low {
				r.remove(r.low % recentEntries)
			}
			r.low++
		}
	}
}

func (r *recentLogs) remove(slot uint64) {
	if e := r.ring[slot]; e != nil {
		r.bytes -= len(e.Data)
		r.ring[slot] = nil
	}
}

func (r *recentLogs) drop(low, high uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for slot, e := range r.ring {
		if e != nil && e.Index >= low && e.Index <= high {
			r.remove(uint64(slot))
		}
	}
}
