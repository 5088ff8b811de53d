package raft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// openWAL opens the segments in dir and calls each for every record, oldest first. With fresh, it makes
// the first segment where there is none.
//
// A record at the very end that was torn by a crash was never acknowledged, and is dropped; the place is
// zeroed for the next. Anything else that does not match is a *DamagedError.
func openWAL(dir string, fresh bool, each func(seg *segment, at int64, kind byte, payload []byte) error) (*wal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the log's directory: %w", err)
	}
	for _, name := range []string{sparePath, freshPath} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	w := &wal{dir: dir, zeroed: zeroFile, sync: syncData, spare: make(chan *os.File, 1)}
	numbers, err := segmentNumbers(dir)
	if err != nil {
		return nil, err
	}
	var buf []byte // of one segment: they are read one after the other
	for i, number := range numbers {
		if i > 0 && number != numbers[i-1]+1 {
			err = &DamagedError{Path: segmentPath(dir, numbers[i-1]+1), What: "missing"}
		}
		if err == nil {
			buf, err = w.scanSegment(buf, number, i == len(numbers)-1, each)
		}
		if err != nil {
			return nil, errors.Join(err, w.close())
		}
	}
	if len(w.segs) == 0 && !fresh {
		return nil, &DamagedError{Path: dir, What: "no segment of the log is there"}
	}
	if len(w.segs) == 0 {
		seg, err := w.createSegment(1, 0)
		if err != nil {
			return nil, fmt.Errorf("make the log: %w", err)
		}
		w.segs, w.end = []*segment{seg}, walHeader
	}
	return w, nil
}

func segmentNumbers(dir string) ([]uint64, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read the log's directory: %w", err)
	}
	var numbers []uint64
	for _, f := range list {
		name, ok := strings.CutSuffix(f.Name(), ".wal")
		if !ok {
			continue
		}
		number, err := strconv.ParseUint(name, 16, 64)
		if err != nil || segmentPath(dir, number) != filepath.Join(dir, f.Name()) {
			return nil, &DamagedError{Path: filepath.Join(dir, f.Name()), What: "not a name of a segment"}
		}
		numbers = append(numbers, number)
	}
	slices.Sort(numbers)
	return numbers, nil
}

// scanSegment reads a segment into buf, or a larger one, which it returns.
func (w *wal) scanSegment(buf []byte, number uint64, last bool, each func(*segment, int64, byte, []byte) error) ([]byte, error) {
	path := segmentPath(w.dir, number)
	file, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if err != nil {
		return buf, fmt.Errorf("open the log: %w", err)
	}
	seg := &segment{number: number, path: path, file: file}
	w.segs = append(w.segs, seg)
	info, err := file.Stat()
	if err != nil {
		return buf, fmt.Errorf("open the log: %w", err)
	}
	seg.size = info.Size()
	if int64(cap(buf)) < seg.size {
		buf = make([]byte, seg.size)
	}
	data := buf[:seg.size]
	if _, err := file.ReadAt(data, 0); err != nil {
		return buf, fmt.Errorf("read %s: %w", path, err)
	}
	if err := checkHeader(seg, data); err != nil {
		return buf, err
	}
	w.end, err = w.scanRecords(seg, data, last, each)
	return buf, err
}

// scanRecords reads the records of a segment and returns where the next one goes.
func (w *wal) scanRecords(seg *segment, data []byte, last bool, each func(*segment, int64, byte, []byte) error) (int64, error) {
	at := int64(walHeader)
	for at+recHeader <= seg.size {
		payload, state := recordAt(seg.number, data, at)
		if state == recGood {
			if err := each(seg, at+recHeader, data[at+4], payload); err != nil {
				return at, err
			}
			at = align(at + recHeader + int64(len(payload)))
			continue
		}
		if state == recEmpty && (!last || allZero(data[at:])) {
			break // the clean end
		}
		if state == recBad || !last || followed(seg.number, data, at) {
			return at, &DamagedError{Path: seg.path, What: fmt.Sprintf("the record at %d does not match its checksum", at)}
		}
		return at, zeroTail(seg, data, at)
	}
	return at, nil
}

// What can stand where a record is expected.
type recState int

const (
	recGood  recState = iota
	recEmpty          // the header is zero: nothing, or a record whose first sector was not written
	recTorn           // the header is whole, and some sector of the payload was not written
	recBad            // neither: it was damaged after it was written
)

// recordAt looks at the record at an offset. A disk writes a sector or does not; a record that was
// interrupted while it was written has sectors that are as they were before, zero. One that was damaged
// later has none, for its payload is full of ciphertext and checksums.
func recordAt(number uint64, data []byte, at int64) ([]byte, recState) {
	header := data[at : at+recHeader]
	if allZero(header) {
		return nil, recEmpty
	}
	if headerSum(header, number, at) != binary.LittleEndian.Uint32(header[12:]) {
		return nil, recBad
	}
	from, end := at+recHeader, at+recHeader+int64(binary.LittleEndian.Uint32(header))
	if end > int64(len(data)) {
		return nil, recBad
	}
	payload := data[from:end]
	if crc32.Checksum(payload, castagnoli) == binary.LittleEndian.Uint32(header[8:]) {
		return payload, recGood
	}
	for sector := (from + walSector - 1) &^ (walSector - 1); sector < end; sector += walSector {
		if allZero(data[sector:min(sector+walSector, end)]) {
			return nil, recTorn
		}
	}
	return nil, recBad
}

// followed reports whether a whole record stands anywhere behind at: then the one at at was synced before
// it, and cannot be torn.
func followed(number uint64, data []byte, at int64) bool {
	for next := at + recAlign; next+recHeader <= int64(len(data)); next += recAlign {
		if _, state := recordAt(number, data, next); state == recGood {
			return true
		}
	}
	return false
}

func checkHeader(seg *segment, data []byte) error {
	switch {
	case len(data) < walHeader || string(data[:8]) != walMagic,
		binary.LittleEndian.Uint32(data[32:]) != crc32.Checksum(data[:32], castagnoli),
		binary.LittleEndian.Uint64(data[16:]) != seg.number:
		return &DamagedError{Path: seg.path, What: "header does not match"}
	case data[8] != walFormat:
		return fmt.Errorf("%s has format %d, this version knows %d", seg.path, data[8], walFormat)
	case binary.LittleEndian.Uint64(data[24:]) != uint64(len(data)):
		return &DamagedError{Path: seg.path, What: fmt.Sprintf("cut to %d bytes", len(data))}
	}
	return nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// zeroTail wipes what was torn.
func zeroTail(seg *segment, data []byte, at int64) error {
	end := int64(len(data))
	for end > at && data[end-1] == 0 {
		end--
	}
	if _, err := seg.file.WriteAt(make([]byte, end-at), at); err != nil {
		return fmt.Errorf("repair %s: %w", seg.path, err)
	}
	if err := seg.file.Sync(); err != nil {
		return fmt.Errorf("repair %s: %w", seg.path, err)
	}
	return nil
}
