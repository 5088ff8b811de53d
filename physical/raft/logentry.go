package raft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"time"

	hraft "github.com/hashicorp/raft"
)

// An entry on disk: format byte, type byte, term and time (8 bytes each, big endian), length of the
// extensions, extensions, data, and a CRC-32C over the index and all before it (4 bytes).
const (
	logFormat   = 1
	logOverhead = 2 + 8 + 8 + 4
)

func appendLog(b []byte, entry *hraft.Log) []byte {
	start := len(b)
	b = append(b, logFormat, byte(entry.Type))
	b = binary.BigEndian.AppendUint64(b, entry.Term)
	var at int64
	if !entry.AppendedAt.IsZero() {
		at = entry.AppendedAt.UnixNano()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(at))
	b = appendBytes(b, entry.Extensions)
	b = append(b, entry.Data...)
	return binary.BigEndian.AppendUint32(b, logSum(entry.Index, b[start:]))
}

func logSum(index uint64, b []byte) uint32 {
	var i [8]byte
	binary.BigEndian.PutUint64(i[:], index)
	return crc32.Update(crc32.Checksum(i[:], castagnoli), castagnoli, b)
}

// decodeLog reads an entry into out, which aliases b.
func decodeLog(index uint64, b []byte, out *hraft.Log) error {
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
	low   uint64 // no entry below is held
	high  uint64 // the newest
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
		r.high = held.Index
		r.low = max(r.low, r.high-min(r.high, recentEntries))
		for ; r.bytes > recentBytes && r.low < r.high; r.low++ {
			if e := r.ring[r.low%recentEntries]; e != nil && e.Index == r.low {
				r.remove(r.low % recentEntries)
			}
		}
	}
}

func (r *recentLogs) remove(slot uint64) {
	if e := r.ring[slot]; e != nil {
		r.bytes -= len(e.Data)
		r.ring[slot] = nil
	}
}

// drop forgets the entries from an index on.
func (r *recentLogs) drop(from uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for slot, e := range r.ring {
		if e != nil && e.Index >= from {
			r.remove(uint64(slot))
		}
	}
	r.low = min(r.low, from)
}
