package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// errFormat: bytes that are nothing this version wrote or knows.
var errFormat = errors.New("malformed")

// entryFormat is the first byte of each log entry. A cluster of mixed versions must not form: the log is
// read by all, so a node that does not know the format of an entry stops taking part.
const entryFormat = 1

// batchHead is: format, id (8 bytes, little endian), stamp and count follow as uvarints.
const batchHead = 9

func appendBytes[T ~string | ~[]byte](b []byte, v T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// decoder reads what the append functions wrote. After an error everything is empty and bad is set.
type decoder struct {
	b    []byte
	bad  bool
	room []Op // for the operations of requests; may be nil
}

func (d *decoder) fail() { d.bad, d.b = true, nil }

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) bool() bool {
	v := d.byte()
	if v > 1 {
		d.fail()
	}
	return v == 1
}

// bytes aliases what is read.
func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) string() string { return string(d.bytes()) }

// count reads how many things follow, each of at least size bytes.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if n > uint64(len(d.b)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

// end reports whether everything was read, and no further.
func (d *decoder) end(what string) error {
	if d.bad || len(d.b) > 0 {
		return fmt.Errorf("%w %s", errFormat, what)
	}
	return nil
}

// appendRequest writes a request as it lies in the log.
func appendRequest(b []byte, r *request) []byte {
	b = binary.AppendUvarint(b, uint64(len(r.watch)))
	for _, w := range r.watch {
		b = appendBytes(appendBytes(b, w.Cache), w.Key)
		b = binary.AppendUvarint(b, w.Version)
	}
	b = binary.AppendUvarint(b, uint64(len(r.ops)))
	for i := range r.ops {
		b = appendOp(b, &r.ops[i])
	}
	return b
}

// The flags of an operation say which of its fields follow.
const (
	opWantOld byte = 1 << iota
	opHasValue
	opHasTTL
	opHasVersion
	opHasExpect
	opHasDelta
	opHasBase
)

func appendOp(b []byte, op *Op) []byte {
	var flags byte
	set := func(flag byte, on bool) {
		if on {
			flags |= flag
		}
	}
	set(opWantOld, op.WantOld)
	set(opHasValue, len(op.Value) > 0)
	set(opHasTTL, op.TTL != 0)
	set(opHasVersion, op.Version != 0)
	set(opHasExpect, len(op.Expect) > 0)
	set(opHasDelta, op.Delta != 0)
	set(opHasBase, op.from != "")
	b = append(b, byte(op.Kind), byte(op.If), flags)
	b = appendBytes(appendBytes(b, op.Cache), op.Key)
	if flags&opHasValue != 0 {
		b = appendBytes(b, op.Value)
	}
	if flags&opHasTTL != 0 {
		b = binary.AppendVarint(b, int64(op.TTL))
	}
	if flags&opHasVersion != 0 {
		b = binary.AppendUvarint(b, op.Version)
	}
	if flags&opHasExpect != 0 {
		b = appendBytes(b, op.Expect)
	}
	if flags&opHasDelta != 0 {
		b = binary.AppendVarint(b, op.Delta)
	}
	if flags&opHasBase != 0 {
		b = binary.AppendVarint(appendBytes(binary.AppendUvarint(b, op.base), op.from), op.ends)
	}
	return b
}

// request reads a request. Values alias what is read; names is where cache names are looked up, so that each
// is made only once.
func (d *decoder) request(names map[string]string) request {
	var r request
	if n := d.count(3); n > 0 {
		r.watch = make([]Watch, n)
		for i := range r.watch {
			r.watch[i] = Watch{Cache: d.name(names), Key: d.string(), Version: d.uvarint()}
		}
	}
	if n := d.count(5); n > 0 {
		if n <= len(d.room) {
			r.ops, d.room = d.room[:n:n], d.room[n:]
		} else {
			r.ops = make([]Op, n)
		}
		for i := range r.ops {
			d.op(&r.ops[i], names)
		}
	}
	return r
}

func (d *decoder) name(names map[string]string) string {
	b := d.bytes()
	if s, ok := names[string(b)]; ok {
		return s
	}
	s := string(b)
	if names != nil && len(names) < maxCaches {
		names[s] = s
	}
	return s
}

func (d *decoder) op(op *Op, names map[string]string) {
	op.Kind, op.If = OpKind(d.byte()), Condition(d.byte())
	flags := d.byte()
	op.Cache, op.Key = d.name(names), d.string()
	op.WantOld = flags&opWantOld != 0
	if flags&opHasValue != 0 {
		op.Value = d.bytes()
	}
	if flags&opHasTTL != 0 {
		op.TTL = time.Duration(d.varint())
	}
	if flags&opHasVersion != 0 {
		op.Version = d.uvarint()
	}
	if flags&opHasExpect != 0 {
		op.Expect = d.bytes()
	}
	if flags&opHasDelta != 0 {
		op.Delta = d.varint()
	}
	if flags&opHasBase != 0 {
		op.base, op.from, op.ends = d.uvarint(), d.string(), d.varint()
	}
	if flags&^(opWantOld|opHasValue|opHasTTL|opHasVersion|opHasExpect|opHasDelta|opHasBase) != 0 {
		d.fail()
	}
}

// decodeBatch reads a log entry. The operations lie in room, as far as that goes.
func decodeBatch(data []byte, names map[string]string, room []Op) (*batch, error) {
	if len(data) < batchHead || data[0] != entryFormat {
		return nil, fmt.Errorf("%w entry", errFormat)
	}
	d := decoder{b: data[batchHead:], room: room}
	b := &batch{id: binary.LittleEndian.Uint64(data[1:]), stamp: d.varint()}
	if n := d.count(2); n > 0 {
		b.requests = make([]request, n)
		for i := range b.requests {
			b.requests[i] = d.request(names)
		}
	}
	return b, d.end("entry")
}

// resultErrors are the errors that a result may carry. Their places are part of the protocol.
var resultErrors = []error{nil, ErrNotNumber, ErrOverflow, ErrTooLarge, ErrInvalid}

func appendResponse(b []byte, r *response) []byte {
	b = appendBool(b, r.conflict)
	b = binary.AppendUvarint(b, uint64(len(r.results)))
	for i := range r.results {
		res := &r.results[i]
		var code byte
		for j, err := range resultErrors[1:] {
			if errors.Is(res.Err, err) {
				code = byte(j + 1)
			}
		}
		b = append(b, code)
		b = appendBool(appendBool(b, res.Done), res.Found)
		b = appendBytes(b, res.Value)
		b = binary.AppendUvarint(b, res.Version)
		b = binary.AppendVarint(b, int64(res.TTL))
		b = binary.AppendVarint(b, res.Number)
	}
	return b
}

func (d *decoder) response() response {
	r := response{conflict: d.bool()}
	if n := d.count(7); n > 0 {
		r.results = make([]Result, n)
	}
	for i := range r.results {
		res := &r.results[i]
		code := d.byte()
		if int(code) >= len(resultErrors) {
			d.fail()
			code = 0
		}
		res.Err = resultErrors[code]
		res.Done, res.Found = d.bool(), d.bool()
		if res.Value = d.bytes(); len(res.Value) == 0 && !res.Found {
			res.Value = nil
		}
		res.Version, res.TTL, res.Number = d.uvarint(), time.Duration(d.varint()), d.varint()
	}
	return r
}

func appendUvarint(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }
