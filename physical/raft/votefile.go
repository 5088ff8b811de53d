package raft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// voteFile keeps the few values that a node must never forget: the term, its vote, and how far the log
// reaches for certain. It has a fixed size, so a full disk does not keep a node from voting; and every
// value is in it twice, one after the other synced, so that one that is torn or damaged is known by the
// other.
//
// A copy is: length of the rest (4 bytes), CRC-32C of the rest (4), number of the change (8), and for each
// value key and value, each with its length. Numbers are little endian or uvarints.
type voteFile struct {
	path string
	file *os.File
	sync func(*os.File) error // syncData

	mu     sync.Mutex
	number uint64
	values map[string][]byte
	fail   error
}

const voteCopy = 4096 // bytes of one copy

// openVoteFile opens the file at path; os.ErrNotExist if it is not there.
func openVoteFile(path string) (*voteFile, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the vote: %w", err)
	}
	v := &voteFile{path: path, file: file, sync: syncData, values: map[string][]byte{}}
	if err := v.load(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return v, nil
}

// createVoteFile makes the file of a node that has never voted.
func createVoteFile(path string) (*voteFile, error) {
	v := &voteFile{path: path, sync: syncData, values: map[string][]byte{}}
	file, err := zeroFile(v.path+".tmp", 2*voteCopy)
	if err != nil {
		return nil, fmt.Errorf("make the vote: %w", err)
	}
	v.file = file
	if err = v.write(); err == nil {
		if err = os.Rename(v.path+".tmp", v.path); err == nil {
			err = syncDir(filepath.Dir(v.path))
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the vote: %w", err), file.Close())
	}
	return v, nil
}

func (v *voteFile) load() error {
	data := make([]byte, 2*voteCopy)
	if _, err := v.file.ReadAt(data, 0); err != nil {
		return &DamagedError{Path: v.path, What: "cut short", Cause: err}
	}
	found := false
	for _, raw := range [][]byte{data[:voteCopy], data[voteCopy:]} {
		number, values, ok := decodeVote(raw)
		if ok && (!found || number > v.number) {
			v.number, v.values, found = number, values, true
		}
	}
	if !found {
		return &DamagedError{Path: v.path, What: "neither copy matches its checksum"}
	}
	return v.write() // both copies are the same again
}

func decodeVote(raw []byte) (uint64, map[string][]byte, bool) {
	n := binary.LittleEndian.Uint32(raw)
	if n < 8 || n > uint32(len(raw)-8) {
		return 0, nil, false
	}
	body := raw[8 : 8+n]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(raw[4:]) {
		return 0, nil, false
	}
	d := decoder{b: body[8:]}
	values := map[string][]byte{}
	for len(d.b) > 0 && !d.bad {
		key := d.string()
		values[key] = slices.Clone(d.bytes())
	}
	return binary.LittleEndian.Uint64(body), values, !d.bad
}

// write writes both copies, each synced.
func (v *voteFile) write() error {
	if v.fail != nil {
		return v.fail
	}
	body := binary.LittleEndian.AppendUint64(nil, v.number)
	for _, key := range slices.Sorted(maps.Keys(v.values)) {
		body = appendBytes(body, key)
		body = appendBytes(body, v.values[key])
	}
	if len(body)+8 > voteCopy {
		return fmt.Errorf("write %s: %d bytes are too many", v.path, len(body))
	}
	raw := make([]byte, voteCopy)
	binary.LittleEndian.PutUint32(raw, uint32(len(body)))
	binary.LittleEndian.PutUint32(raw[4:], crc32.Checksum(body, castagnoli))
	copy(raw[8:], body)
	for at := range int64(2) {
		_, err := v.file.WriteAt(raw, at*voteCopy)
		if err == nil {
			err = v.sync(v.file)
		}
		if err != nil {
			v.fail = fmt.Errorf("write %s: %w", v.path, err)
			return v.fail
		}
	}
	return nil
}

func (v *voteFile) set(key string, value []byte) error {
	return v.setAll(map[string][]byte{key: value})
}

// setAll changes several values in one step.
func (v *voteFile) setAll(change map[string][]byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	old := v.values
	v.values = maps.Clone(old)
	for key, value := range change {
		v.values[key] = slices.Clone(value)
	}
	v.number++
	err := v.write()
	if err != nil && v.fail == nil { // refused, not written
		v.number--
		v.values = old
	}
	return err
}

func (v *voteFile) get(key string) ([]byte, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	value, ok := v.values[key]
	return slices.Clone(value), ok
}

func (v *voteFile) close() error { return v.file.Close() }
