package raft

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/locum-ha/locum/physical"
)

// A snapshot, of the engine's or of an operator's, is:
//
//	"locumsnp"                          8 bytes
//	format                              1 byte
//	index, term                         uvarints: the last log entry in it
//	fence, lock record                  as in the state
//	n, n times node and address         a uvarint and strings, ascending
//	1, key, value                       for each entry, ascending
//	0, number of entries                0 and a uvarint
//	SHA-256 over all of the above       32 bytes
const (
	snapshotMagic  = "locumsnp"
	snapshotFormat = 1
)

// ErrSnapshot: a snapshot that is damaged, cut short, or of a format that this version does not know.
var ErrSnapshot = physical.ErrSnapshot

// snapshotWriter writes the format and sums it up.
type snapshotWriter struct {
	w    *bufio.Writer
	sum  hash.Hash
	n    uint64
	buf  []byte
	fail error
}

func newSnapshotWriter(w io.Writer, h header) *snapshotWriter {
	sum := sha256.New()
	s := &snapshotWriter{w: bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10), sum: sum}
	s.buf = append(append(s.buf, snapshotMagic...), snapshotFormat)
	s.buf = binary.AppendUvarint(s.buf, h.index)
	s.buf = binary.AppendUvarint(s.buf, h.term)
	s.buf = appendFence(s.buf, h.fence)
	s.buf = appendLock(s.buf, h.lock)
	s.buf = binary.AppendUvarint(s.buf, uint64(len(h.addrs)))
	for _, id := range slices.Sorted(maps.Keys(h.addrs)) {
		s.buf = appendBytes(s.buf, id)
		s.buf = appendBytes(s.buf, h.addrs[id])
	}
	s.flush()
	return s
}

func (s *snapshotWriter) flush() {
	if s.fail == nil {
		_, s.fail = s.w.Write(s.buf)
	}
	s.buf = s.buf[:0]
}

func (s *snapshotWriter) entry(key, value []byte) error {
	s.n++
	s.buf = append(s.buf, 1)
	s.buf = appendBytes(s.buf, key)
	s.buf = appendBytes(s.buf, value)
	s.flush()
	return s.fail
}

// finish writes the end and the sum, to w directly: the sum is not part of itself.
func (s *snapshotWriter) finish(w io.Writer) error {
	s.buf = binary.AppendUvarint(append(s.buf, 0), s.n)
	s.flush()
	if s.fail == nil {
		s.fail = s.w.Flush()
	}
	if s.fail == nil {
		_, s.fail = w.Write(s.sum.Sum(nil))
	}
	return s.fail
}

// writeSnapshot writes the state that tx sees.
func writeSnapshot(w io.Writer, tx *bbolt.Tx) error {
	h, err := readHeader(tx)
	if err != nil {
		return err
	}
	s := newSnapshotWriter(w, h)
	if err := tx.Bucket(bucketEntries).ForEach(s.entry); err != nil {
		return err
	}
	return s.finish(w)
}

// snapshotReader reads the format and sums it up.
type snapshotReader struct {
	r   *bufio.Reader
	sum hash.Hash
}

func (s *snapshotReader) ReadByte() (byte, error) {
	c, err := s.r.ReadByte()
	if err == nil {
		s.sum.Write([]byte{c})
	}
	return c, err
}

func (s *snapshotReader) take(n uint64) ([]byte, error) {
	if n > maxCommit {
		return nil, fmt.Errorf("%w: a field of %d bytes", ErrSnapshot, n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(s.r, b); err != nil {
		return nil, err
	}
	s.sum.Write(b)
	return b, nil
}

func (s *snapshotReader) bytes() ([]byte, error) {
	n, err := binary.ReadUvarint(s)
	if err != nil {
		return nil, err
	}
	return s.take(n)
}

// readSnapshot reads a snapshot and calls each for every entry. What it was told must be thrown away if it
// returns an error: the sum comes last.
func readSnapshot(r io.Reader, start func(header) error, each func(key, value []byte) error) error {
	s := &snapshotReader{r: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
	h, err := s.header()
	if err == nil {
		err = start(h)
	}
	if err == nil {
		err = s.entries(each)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: cut short", ErrSnapshot)
	}
	return err
}

func (s *snapshotReader) header() (header, error) {
	var h header
	magic, err := s.take(uint64(len(snapshotMagic)) + 1)
	if err != nil {
		return h, err
	}
	if string(magic[:len(snapshotMagic)]) != snapshotMagic {
		return h, fmt.Errorf("%w: not a snapshot of Locum", ErrSnapshot)
	}
	if magic[len(snapshotMagic)] != snapshotFormat {
		return h, fmt.Errorf("%w: format %d, this version knows %d", ErrSnapshot, magic[len(snapshotMagic)], snapshotFormat)
	}
	var fail error
	num := func() uint64 {
		if fail != nil {
			return 0
		}
		var n uint64
		n, fail = binary.ReadUvarint(s)
		return n
	}
	str := func() string {
		if fail != nil {
			return ""
		}
		var b []byte
		b, fail = s.bytes()
		return string(b)
	}
	h.index, h.term = num(), num()
	h.fence.Lineage, h.fence.Term = str(), num()
	if fail == nil {
		var nonce []byte
		if nonce, fail = s.take(uint64(len(h.fence.Nonce))); fail == nil {
			copy(h.fence.Nonce[:], nonce)
		}
	}
	h.lock.Holder, h.lock.Name, h.lock.Term, h.lock.Next = str(), str(), num(), str()
	h.lock.raftTerm, h.lock.floor = num(), num()
	h.addrs = map[string]string{}
	for n := num(); n > 0 && fail == nil; n-- {
		id := str()
		h.addrs[id] = str()
	}
	return h, fail
}

func (s *snapshotReader) entries(each func(key, value []byte) error) error {
	var n uint64
	for {
		more, err := s.ReadByte()
		if err != nil {
			return err
		}
		switch more {
		case 0:
			return s.end(n)
		case 1:
		default:
			return fmt.Errorf("%w: malformed after entry %d", ErrSnapshot, n)
		}
		key, err := s.bytes()
		if err != nil {
			return err
		}
		value, err := s.bytes()
		if err != nil {
			return err
		}
		if err := each(key, value); err != nil {
			return err
		}
		n++
	}
}

func (s *snapshotReader) end(n uint64) error {
	count, err := binary.ReadUvarint(s)
	if err != nil {
		return err
	}
	if count != n {
		return fmt.Errorf("%w: %d entries instead of %d", ErrSnapshot, n, count)
	}
	want := s.sum.Sum(nil)
	have := make([]byte, len(want))
	if _, err := io.ReadFull(s.r, have); err != nil {
		return err
	}
	if string(have) != string(want) {
		return fmt.Errorf("%w: checksum does not match", ErrSnapshot)
	}
	return nil
}

// restoreBatch is how many bytes of entries go into one transaction while a snapshot is read.
const restoreBatch = 4 << 20

// loadSnapshot builds a fresh state file at path from a snapshot. On an error it leaves no file.
func loadSnapshot(path string, r io.Reader) (err error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	db, _, err := openStateFile(path)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := db.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	var tx *bbolt.Tx
	defer func() {
		if tx != nil {
			_ = tx.Rollback()
		}
	}()
	if tx, err = db.Begin(true); err != nil {
		return err
	}
	pending := 0
	err = readSnapshot(r,
		func(h header) error { return writeHeader(tx, header{}, h) },
		func(key, value []byte) error {
			bucket := tx.Bucket(bucketEntries)
			bucket.FillPercent = 0.9 // keys arrive in order
			if err := bucket.Put(key, value); err != nil {
				return err
			}
			if pending += len(key) + len(value); pending < restoreBatch {
				return nil
			}
			pending = 0
			if err := tx.Commit(); err != nil {
				return err
			}
			tx, err = db.Begin(true)
			return err
		})
	if err != nil {
		return err
	}
	err = tx.Commit()
	tx = nil
	return err
}

// restore replaces the state by the one in a snapshot.
func (s *state) restore(r io.Reader) error {
	fresh := s.path + ".new"
	if err := loadSnapshot(fresh, r); err != nil {
		return fmt.Errorf("restore the state: %w", err)
	}
	return s.exchange(fresh)
}
