package raft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// wal is an append-only file of records, in segments. A record is written and synced in one go: that is
// one sync for each write, into space whose blocks are there already, where a database needs two.
//
// Segments are zero-filled before use and never written twice, so that a record torn by a power loss is
// told from one that was damaged later: a sector of it is still zero (see scan).
//
// A segment is a header sector ("locumwal", format byte, number and size of the segment, CRC-32C) and records,
// each aligned to 16 bytes, so that its header never spans two sectors: length of the payload (4 bytes),
// kind (1), 3 zero bytes, CRC-32C of the payload (4), CRC-32C over segment number, offset and the header so
// far (4), payload. Numbers are little endian.
type wal struct {
	dir  string
	segs []*segment // oldest first; the last one is written to
	end  int64      // where the next record goes in the last segment
	fail error      // set once a write or a sync failed: what is on disk is not known any more

	zeroed      func(path string, size int64) (*os.File, error) // zeroFile
	sync        func(*os.File) error                            // syncData
	spare       chan *os.File                                   // a zeroed file for the next segment
	preparedFor uint64                                          // the segment that it was last prepared in
	preparing   sync.WaitGroup
}

type segment struct {
	number uint64
	path   string
	file   *os.File
	size   int64
}

const (
	walMagic   = "locumwal"
	walFormat  = 1
	walSector  = 512
	walHeader  = walSector // of a segment
	recHeader  = 16
	recAlign   = 16
	firstSize  = 1 << 20  // of the first segment: a small cluster stays small
	normalSize = 16 << 20 // of all others
	sparePath  = "spare.tmp"
	freshPath  = "fresh.tmp"
)

// The kinds of record. The numbers are part of the log's format and never change.
const (
	recEntries  byte = 1
	recTruncate byte = 2
)

func segmentPath(dir string, number uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016x.wal", number))
}

// recordHeader fills in the header of a record at offset of segment number.
func recordHeader(h []byte, number uint64, offset int64, kind byte, payload []byte) {
	clear(h[:recHeader])
	binary.LittleEndian.PutUint32(h[0:], uint32(len(payload)))
	h[4] = kind
	binary.LittleEndian.PutUint32(h[8:], crc32.Checksum(payload, castagnoli))
	binary.LittleEndian.PutUint32(h[12:], headerSum(h, number, offset))
}

func headerSum(h []byte, number uint64, offset int64) uint32 {
	var place [16]byte
	binary.LittleEndian.PutUint64(place[0:], number)
	binary.LittleEndian.PutUint64(place[8:], uint64(offset))
	return crc32.Update(crc32.Checksum(place[:], castagnoli), castagnoli, h[:12])
}

func align(n int64) int64 { return (n + recAlign - 1) &^ (recAlign - 1) }

// createSegment makes segment number, with room for at least need bytes of records, and makes it last.
func (w *wal) createSegment(number uint64, need int64) (*segment, error) {
	size := int64(normalSize)
	if number == 1 {
		size = firstSize
	}
	var file *os.File
	if need+walHeader <= size && size == normalSize {
		w.preparing.Wait()
		select {
		case file = <-w.spare:
		default:
		}
	}
	if file == nil {
		var err error
		if file, err = w.zeroed(filepath.Join(w.dir, freshPath), max(size, align(need+walHeader))); err != nil {
			return nil, err
		}
	}
	seg, err := w.adopt(file, number)
	if err != nil {
		return nil, errors.Join(err, file.Close(), os.Remove(file.Name()))
	}
	return seg, nil
}

// adopt turns a zeroed file into a segment: header first, then its name.
func (w *wal) adopt(file *os.File, number uint64) (*segment, error) {
	header := make([]byte, walHeader)
	copy(header, walMagic)
	header[8] = walFormat
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	binary.LittleEndian.PutUint64(header[16:], number)
	binary.LittleEndian.PutUint64(header[24:], uint64(info.Size()))
	binary.LittleEndian.PutUint32(header[32:], crc32.Checksum(header[:32], castagnoli))
	if _, err := file.WriteAt(header, 0); err != nil {
		return nil, err
	}
	if err := file.Sync(); err != nil {
		return nil, err
	}
	path := segmentPath(w.dir, number)
	if err := os.Rename(file.Name(), path); err != nil {
		return nil, err
	}
	if err := syncDir(w.dir); err != nil {
		return nil, err
	}
	return &segment{number: number, path: path, file: file, size: info.Size()}, nil
}

// zeroFile makes a file of zeros that are really written: a write into it later allocates nothing.
func zeroFile(path string, size int64) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	zeros := make([]byte, min(size, 1<<20))
	for at := int64(0); at < size && err == nil; at += int64(len(zeros)) {
		_, err = file.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at)
	}
	if err == nil {
		err = file.Sync()
	}
	if err != nil {
		return nil, errors.Join(err, file.Close(), os.Remove(path))
	}
	return file, nil
}

// prepare makes the next segment's file ready, once the current one is half full.
func (w *wal) prepare() {
	seg := w.segs[len(w.segs)-1]
	if w.end < seg.size/2 || w.preparedFor == seg.number || len(w.spare) > 0 {
		return
	}
	w.preparedFor = seg.number
	w.preparing.Go(func() {
		if file, err := w.zeroed(filepath.Join(w.dir, sparePath), normalSize); err == nil {
			w.spare <- file
		} // else createSegment meets the same error, and reports it
	})
}

// append writes one record and syncs it. It returns the segment and the offset of the payload. buf is the
// record: recHeader bytes to be filled in here, then the payload.
//
// When there is no room on the disk it fails and the log is as before. When a write or a sync fails, the
// log takes nothing more: what is on disk is not known.
func (w *wal) append(kind byte, buf []byte) (*segment, int64, error) {
	if w.fail != nil {
		return nil, 0, w.fail
	}
	seg := w.segs[len(w.segs)-1]
	if w.end+int64(len(buf)) > seg.size {
		next, err := w.createSegment(seg.number+1, int64(len(buf)))
		if err != nil {
			return nil, 0, fmt.Errorf("make the next segment of the log: %w", err)
		}
		w.segs = append(w.segs, next)
		seg, w.end = next, walHeader
	}
	at := w.end
	payload := buf[recHeader:]
	recordHeader(buf, seg.number, at, kind, payload)
	_, err := seg.file.WriteAt(buf, at)
	if err == nil {
		err = w.sync(seg.file)
	}
	if err != nil {
		w.fail = fmt.Errorf("write %s: %w", seg.path, err)
		return nil, 0, w.fail
	}
	w.end = align(at + int64(len(buf)))
	w.prepare()
	return seg, at + recHeader, nil
}

// read reads n bytes of a segment.
func (w *wal) read(seg *segment, at int64, n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := seg.file.ReadAt(b, at); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, &DamagedError{Path: seg.path, What: "cut short"}
		}
		return nil, fmt.Errorf("read %s: %w", seg.path, err)
	}
	return b, nil
}

// dropBefore removes the segments older than keep; with nil, all but the last.
func (w *wal) dropBefore(keep *segment) error {
	for len(w.segs) > 1 && w.segs[0] != keep {
		seg := w.segs[0]
		if err := os.Remove(seg.path); err != nil {
			return err
		}
		_ = seg.file.Close()
		w.segs = w.segs[1:]
	}
	return nil
}

func (w *wal) close() error {
	w.preparing.Wait()
	var errs []error
	select {
	case file := <-w.spare:
		errs = append(errs, file.Close(), os.Remove(file.Name()))
	default:
	}
	for _, seg := range w.segs {
		errs = append(errs, seg.file.Close())
	}
	w.segs = nil
	return errors.Join(errs...)
}
