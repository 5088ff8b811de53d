package kv

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"
)

const (
	metaFormat = 2
	dataFormat = 1
	dataHeader = 1 + 8

	flagCASRequired = 1 << 0
	flagInline      = 1 << 1
	flagDestroyed   = 1 << 0
	flagDeletion    = 1 << 1
	minVersionSize  = 3 // bytes of the shortest encoded version
	minRecordSize   = 5 // and record
)

// encodeMeta writes: format | current oldest swept max (uvarints) | flags (1 B) | delete after, created, updated (varints,
// ns) | number of custom pairs, then key and value of each, by key | number of versions, then of each: number (uvarint),
// created (varint), flags (1 B), and with flagDeletion its deletion less created (varint) | with flagInline the current version's
// data. Strings are a uvarint length and their bytes.
//
// With records the format is 2, and behind all that is: number of records, then of each: slot (string), number, current less its version
// (uvarints), updated less created (varint), deletion less created (uvarint, 0: none).
func encodeMeta(m *metadata) []byte {
	size := 64 + 24*len(m.versions) + 96*len(m.records) + len(m.inline)
	for k, v := range m.custom {
		size += len(k) + len(v) + 6
	}
	b := make([]byte, 0, size)
	b = append(b, 1+flag(len(m.records) > 0, 1))
	for _, n := range [...]uint64{m.current, m.oldest, m.swept, m.maxVersions} {
		b = binary.AppendUvarint(b, n)
	}
	b = append(b, flag(m.casRequired, flagCASRequired)|flag(m.inline != nil, flagInline))
	for _, n := range [...]int64{int64(m.deleteAfter), m.created, m.updated} {
		b = binary.AppendVarint(b, n)
	}
	b = binary.AppendUvarint(b, uint64(len(m.custom)))
	for _, k := range slices.Sorted(maps.Keys(m.custom)) {
		b = appendString(appendString(b, k), m.custom[k])
	}
	b = binary.AppendUvarint(b, uint64(len(m.versions)))
	for _, v := range m.versions {
		b = binary.AppendUvarint(b, v.number)
		b = binary.AppendVarint(b, v.created)
		b = append(b, flag(v.destroyed, flagDestroyed)|flag(v.deletion != 0, flagDeletion))
		if v.deletion != 0 {
			b = binary.AppendVarint(b, v.deletion-v.created)
		}
	}
	if m.inline != nil {
		b = appendString(b, m.inline)
	}
	if len(m.records) > 0 {
		b = m.appendRecords(b)
	}
	return b
}

func (m *metadata) appendRecords(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(m.records)))
	for _, r := range m.records {
		b = binary.AppendUvarint(appendString(b, r.slot), r.number)
		b = binary.AppendUvarint(b, m.current-r.version)
		b = binary.AppendVarint(b, m.updated-r.created)
		after := uint64(0)
		if r.deletion != 0 {
			after = uint64(r.deletion - r.created)
		}
		b = binary.AppendUvarint(b, after)
	}
	return b
}

func flag(on bool, bit byte) byte {
	if on {
		return bit
	}
	return 0
}

func appendString[T string | Object](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decodeMeta is the reverse of encodeMeta: ErrNewerFormat, ErrDamaged. Data of the current version lie in data.
func decodeMeta(data []byte) (*metadata, error) {
	if len(data) > 0 && data[0] > metaFormat {
		return nil, fmt.Errorf("metadata: %w: format %d, this build knows %d", ErrNewerFormat, data[0], metaFormat)
	}
	if len(data) == 0 || data[0] == 0 {
		return nil, fmt.Errorf("metadata: %w", ErrDamaged)
	}
	r := reader{rest: data[1:]}
	m := &metadata{current: r.uvarint(), oldest: r.uvarint(), swept: r.uvarint(), maxVersions: r.uvarint()}
	flags := r.byte()
	m.casRequired = flags&flagCASRequired != 0
	m.deleteAfter, m.created, m.updated = time.Duration(r.varint()), r.varint(), r.varint()
	if n := r.count(2); n > 0 {
		m.custom = make(map[string]string, n)
		for range n {
			k := r.string()
			m.custom[k] = r.string()
		}
	}
	n := r.count(minVersionSize)
	m.versions = make([]version, 0, n+1) // one more: the next write's
	last := uint64(0)
	for range n {
		v := version{number: r.uvarint(), created: r.varint()}
		flags := r.byte()
		v.destroyed = flags&flagDestroyed != 0
		if flags&flagDeletion != 0 {
			v.deletion = v.created + r.varint()
		}
		r.bad = r.bad || v.number <= last
		last = v.number
		m.versions = append(m.versions, v)
	}
	if flags&flagInline != 0 {
		m.inline = r.bytes()
	}
	if data[0] > 1 {
		m.readRecords(&r)
	}
	if r.bad || len(r.rest) > 0 || last > m.current {
		return nil, fmt.Errorf("metadata: %w", ErrDamaged)
	}
	return m, nil
}

func (m *metadata) readRecords(r *reader) {
	n := r.count(minRecordSize)
	r.bad = r.bad || n == 0
	m.records = make([]record, 0, n+1) // one more: the next write's
	for range n {
		one := record{slot: r.string(), number: r.uvarint(), version: m.current - r.uvarint(), created: m.updated - r.varint()}
		if after := r.uvarint(); after != 0 {
			one.deletion = one.created + int64(after)
			r.bad = r.bad || one.deletion == 0
		}
		m.records = append(m.records, one)
	}
}

// reader takes values off the front, and remembers when one was not there.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	return take(r, v, n)
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.rest)
	return take(r, v, n)
}

func take[T int64 | uint64](r *reader, v T, n int) T {
	if n <= 0 || r.bad {
		r.bad = true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) byte() byte {
	if len(r.rest) == 0 {
		r.bad = true
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

// count reads how many items of at least size bytes follow, so that a wrong number allocates nothing.
func (r *reader) count(size int) int {
	n := r.uvarint()
	if n > uint64(len(r.rest)/size) {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *reader) string() string { return string(r.bytes()) }

func (r *reader) bytes() []byte {
	n := r.uvarint()
	if r.bad || n > uint64(len(r.rest)) {
		r.bad = true
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func encodeData(created int64, object Object) []byte {
	b := make([]byte, 0, dataHeader+len(object))
	b = append(b, dataFormat)
	b = binary.BigEndian.AppendUint64(b, uint64(created))
	return append(b, object...)
}

// decodeData returns the object, which lies in data.
func decodeData(data []byte) (created int64, object Object, err error) {
	if len(data) > 0 && data[0] > dataFormat {
		return 0, nil, fmt.Errorf("version data: %w: format %d, this build knows %d", ErrNewerFormat, data[0], dataFormat)
	}
	if len(data) < dataHeader || data[0] != dataFormat {
		return 0, nil, fmt.Errorf("version data: %w", ErrDamaged)
	}
	return int64(binary.BigEndian.Uint64(data[1:])), Object(data[dataHeader:]), nil
}
