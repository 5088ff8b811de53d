package raft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/locum-ha/locum/physical"
)

var (
	bucketEntries = []byte("entries")
	bucketMeta    = []byte("meta")
	bucketPeers   = []byte("peers") // node -> its address

	keyFormat  = []byte("format")
	keyApplied = []byte("applied") // index and term of the last log entry applied
	keyFence   = []byte("fence")
	keyLock    = []byte("lock")
)

const stateFormat = 1

// lockRecord is the record of the lock as the log knows it. It is held while Holder is not empty; whether
// the holder still leads raft is for the nodes to judge, not for the record.
type lockRecord struct {
	physical.Record
	raftTerm uint64 // the raft term in which it was acquired
	floor    uint64 // terms given are above it: the highest of a snapshot that was restored; see recoverGap too
}

// header is all of the state but the entries.
type header struct {
	index uint64 // of the last log entry applied
	term  uint64 // its term
	fence physical.Fence
	lock  lockRecord
	addrs map[string]string // where the nodes are reached; never changed, only replaced
}

// state is the copy of the entries that this node has built from the log, in a bbolt file that is not
// synced while it is open. Reads may run beside the one writer.
type state struct {
	path string

	mu     sync.RWMutex // held for writing only while the file is exchanged
	db     *bbolt.DB
	closed bool

	headMu sync.Mutex
	head   header // as of the last committed transaction
}

func boltStateOptions() *bbolt.Options {
	return &bbolt.Options{
		NoSync:          true,
		NoGrowSync:      true,
		NoFreelistSync:  true,
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: 1 << 30,
		NoStatistics:    true,
		Timeout:         1e9,
	}
}

// openBolt opens a bbolt file and translates what can go wrong.
func openBolt(path string, options *bbolt.Options) (db *bbolt.DB, err error) {
	defer func() {
		// bbolt asserts the shape of pages that it reads: on a torn file it panics.
		if r := recover(); r != nil {
			db, err = nil, &DamagedError{Path: path, What: fmt.Sprint(r)}
		}
	}()
	if err := checkBoltSize(path); err != nil {
		return nil, err
	}
	db, err = bbolt.Open(path, 0o600, options)
	switch {
	case err == nil:
		return db, nil
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("%s: %w", path, errInUse)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return nil, &DamagedError{Path: path, What: "not a readable database", Cause: err}
	default:
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
}

// checkBoltSize refuses a file that is shorter than its newest meta page says: bbolt maps it into memory,
// and to read a page that is not there would end the process. A meta page is a header of 16 bytes, then
// magic, version and page size (4 bytes each), flags (4), root (16), freelist, number of pages, transaction
// and checksum (8 each).
func checkBoltSize(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return nil // bbolt makes the file, or reports what is wrong
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	var newest, need uint64
	for _, at := range []int64{0, int64(os.Getpagesize())} {
		var page [80]byte
		if _, err := f.ReadAt(page[:], at); err != nil {
			return &DamagedError{Path: path, What: "cut short"}
		}
		meta := page[16:]
		size, pages, tx := binary.NativeEndian.Uint32(meta[8:]), binary.NativeEndian.Uint64(meta[40:]), binary.NativeEndian.Uint64(meta[48:])
		if binary.NativeEndian.Uint32(meta) == boltMagic && tx >= newest {
			newest, need = tx, pages*uint64(size)
		}
	}
	if uint64(info.Size()) < need {
		return &DamagedError{Path: path, What: fmt.Sprintf("%d bytes are left of %d", info.Size(), need)}
	}
	return nil
}

const boltMagic = 0xED0CDAED

// openState opens the state at path, or makes an empty one.
func openState(path string) (*state, error) {
	s := &state{path: path}
	db, head, err := openStateFile(path)
	if err != nil {
		return nil, err
	}
	s.db, s.head = db, head
	return s, nil
}

func openStateFile(path string) (*bbolt.DB, header, error) {
	var head header
	db, err := openBolt(path, boltStateOptions())
	if err != nil {
		return nil, head, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucketIfNotExists(bucketEntries); err != nil {
			return err
		}
		meta, err := tx.CreateBucketIfNotExists(bucketMeta)
		if err != nil {
			return err
		}
		if format := meta.Get(keyFormat); format == nil {
			if err := meta.Put(keyFormat, []byte{stateFormat}); err != nil {
				return err
			}
		} else if !bytes.Equal(format, []byte{stateFormat}) {
			return fmt.Errorf("%s has format %x, this version knows %d", path, format, stateFormat)
		}
		if _, err := tx.CreateBucketIfNotExists(bucketPeers); err != nil {
			return err
		}
		head, err = readHeader(tx)
		return err
	})
	if err != nil {
		_ = db.Close()
		return nil, head, err
	}
	return db, head, nil
}

func readHeader(tx *bbolt.Tx) (header, error) {
	h := header{addrs: map[string]string{}}
	meta := tx.Bucket(bucketMeta)
	if v := meta.Get(keyApplied); len(v) == 16 {
		h.index, h.term = binary.BigEndian.Uint64(v), binary.BigEndian.Uint64(v[8:])
	}
	if v := meta.Get(keyFence); v != nil {
		d := decoder{b: v}
		h.fence = d.fence()
		if d.bad {
			return h, fmt.Errorf("state: malformed fence")
		}
	}
	if v := meta.Get(keyLock); v != nil {
		d := decoder{b: v}
		h.lock = d.lock()
		if d.bad {
			return h, fmt.Errorf("state: malformed lock record")
		}
	}
	err := tx.Bucket(bucketPeers).ForEach(func(id, addr []byte) error {
		h.addrs[string(id)] = string(addr)
		return nil
	})
	return h, err
}

func writeHeader(tx *bbolt.Tx, old, h header) error {
	meta, peers := tx.Bucket(bucketMeta), tx.Bucket(bucketPeers)
	for id := range old.addrs {
		if _, ok := h.addrs[id]; !ok {
			if err := peers.Delete([]byte(id)); err != nil {
				return err
			}
		}
	}
	for id, addr := range h.addrs {
		if old.addrs[id] != addr {
			if err := peers.Put([]byte(id), []byte(addr)); err != nil {
				return err
			}
		}
	}
	applied := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, h.index), h.term)
	if err := meta.Put(keyApplied, applied); err != nil {
		return err
	}
	if h.fence != old.fence {
		if err := meta.Put(keyFence, appendFence(nil, h.fence)); err != nil {
			return err
		}
	}
	if h.lock != old.lock {
		return meta.Put(keyLock, appendLock(nil, h.lock))
	}
	return nil
}

func appendLock(b []byte, l lockRecord) []byte {
	b = appendBytes(b, l.Holder)
	b = appendBytes(b, l.Name)
	b = binary.AppendUvarint(b, l.Term)
	b = appendBytes(b, l.Next)
	b = binary.AppendUvarint(b, l.raftTerm)
	return binary.AppendUvarint(b, l.floor)
}

func (d *decoder) lock() lockRecord {
	var l lockRecord
	l.Holder, l.Name, l.Term, l.Next = d.string(), d.string(), d.uvarint(), d.string()
	l.raftTerm, l.floor = d.uvarint(), d.uvarint()
	return l
}

// withAddress returns addrs with a node's address changed, "" for none. An address is one node's only: who
// had it before has been replaced.
func withAddress(addrs map[string]string, id, addr string) map[string]string {
	out := map[string]string{}
	for other, at := range addrs {
		if other != id && at != addr {
			out[other] = at
		}
	}
	if addr != "" {
		out[id] = addr
	}
	return out
}

// header returns the state's header as of the last transaction.
func (s *state) header() header {
	s.headMu.Lock()
	defer s.headMu.Unlock()
	return s.head
}

func (s *state) setHeader(h header) {
	s.headMu.Lock()
	s.head = h
	s.headMu.Unlock()
}

// view runs fn in a read transaction.
func (s *state) view(fn func(*bbolt.Tx) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return physical.ErrClosed
	}
	return s.db.View(fn)
}

// update runs fn in a write transaction, with the header as it is, and keeps the one that fn returns.
func (s *state) update(fn func(tx *bbolt.Tx, h header) (header, error)) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return physical.ErrClosed
	}
	old := s.header()
	var next header
	err := s.db.Update(func(tx *bbolt.Tx) error {
		var err error
		if next, err = fn(tx, old); err != nil {
			return err
		}
		return writeHeader(tx, old, next)
	})
	if err != nil {
		return err
	}
	s.setHeader(next)
	return nil
}

// get returns a copy of the value at key.
func (s *state) get(key string) ([]byte, error) {
	var out []byte
	err := s.view(func(tx *bbolt.Tx) error {
		v := tx.Bucket(bucketEntries).Get([]byte(key))
		if v == nil {
			return physical.ErrNotFound
		}
		out = append(make([]byte, 0, len(v)), v...)
		return nil
	})
	return out, err
}

// list is Backend.List. Keys are in the order of the names listed: a folder is the common prefix of its
// keys, up to and with the slash.
func (s *state) list(prefix, after string, limit int) ([]string, error) {
	var names []string
	err := s.view(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketEntries).Cursor()
		start := []byte(prefix + after)
		for k, _ := cursor.Seek(start); k != nil && bytes.HasPrefix(k, []byte(prefix)); {
			name := string(k[len(prefix):])
			slash := strings.IndexByte(name, '/')
			if slash >= 0 {
				name = name[:slash+1]
			}
			if name > after {
				names = append(names, name)
				if limit > 0 && len(names) == limit {
					return nil
				}
			}
			if slash >= 0 { // on to the first key that is not in this folder
				k, _ = cursor.Seek([]byte(prefix + name[:slash] + string(rune('/'+1))))
			} else {
				k, _ = cursor.Next()
			}
		}
		return nil
	})
	return names, err
}

// exchange puts the closed file at fresh in the place of the current one.
func (s *state) exchange(fresh string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return physical.ErrClosed
	}
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close %s: %w", s.path, err)
	}
	// From here on a failure leaves no open file: the state is lost to this process, not to the log.
	s.closed = true
	if err := os.Rename(fresh, s.path); err != nil {
		return fmt.Errorf("exchange the state: %w", err)
	}
	db, head, err := openStateFile(s.path)
	if err != nil {
		return err
	}
	s.db, s.closed = db, false
	s.setHeader(head)
	return nil
}

// sync makes everything that was written so far durable.
func (s *state) sync() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return physical.ErrClosed
	}
	return s.db.Sync()
}

func (s *state) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return s.db.Close()
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	dir, err := os.Open(filepath.Clean(path))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	return dir.Sync()
}
