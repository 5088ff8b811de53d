package raft

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/locum-ha/locum/physical"
)

// A log entry is: format byte, then requests back to back until its end. Each request is a kind byte and
// its fields; numbers are uvarints, strings and bytes are a length and the bytes. A request stands for
// one call of Commit, RaiseFence, Acquire or Release, or for a node's new address, and has its own result.
const commandFormat = 1

// The kinds of request. The numbers are part of the log's format and never change.
type requestKind uint8

const (
	kindCommit  requestKind = 1
	kindRaise   requestKind = 2
	kindAcquire requestKind = 3
	kindRelease requestKind = 4
	kindAddress requestKind = 5
)

// request is one call, as it travels through the log.
type request struct {
	kind requestKind

	fenced bool           // commit: whether fence counts
	fence  physical.Fence // commit: the fence; raise: from
	to     physical.Fence // raise
	ops    []physical.Op  // commit

	holder string // acquire; address: the node
	name   string // acquire; address: where it is reached, "" if nowhere
	term   uint64 // acquire: above; release: the term to be released
	next   string // release
}

// errCommand: a log entry that this version cannot read.
var errCommand = errors.New("unreadable log entry")

func appendBytes[T string | []byte](b []byte, s T) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendFence(b []byte, f physical.Fence) []byte {
	b = appendBytes(b, f.Lineage)
	b = binary.AppendUvarint(b, f.Term)
	return append(b, f.Nonce[:]...)
}

// append adds r's encoding to b.
func (r *request) append(b []byte) []byte {
	b = append(b, byte(r.kind))
	switch r.kind {
	case kindCommit:
		if r.fenced {
			b = appendFence(append(b, 1), r.fence)
		} else {
			b = append(b, 0)
		}
		b = binary.AppendUvarint(b, uint64(len(r.ops)))
		for _, op := range r.ops {
			b = append(b, byte(op.Kind))
			b = appendBytes(b, op.Key)
			b = appendBytes(b, op.Value)
		}
	case kindRaise:
		b = appendFence(b, r.fence)
		b = appendFence(b, r.to)
	case kindAcquire:
		b = appendBytes(b, r.holder)
		b = appendBytes(b, r.name)
		b = binary.AppendUvarint(b, r.term)
	case kindRelease:
		b = binary.AppendUvarint(b, r.term)
		b = appendBytes(b, r.next)
	case kindAddress:
		b = appendBytes(b, r.holder)
		b = appendBytes(b, r.name)
	}
	return b
}

// size is about how many bytes append adds.
func (r *request) size() int {
	n := 64 + len(r.holder) + len(r.name) + len(r.next) + len(r.fence.Lineage) + len(r.to.Lineage)
	for i := range r.ops {
		n += 12 + len(r.ops[i].Key) + len(r.ops[i].Value)
	}
	return n
}

// decodeEntry reads the requests of a log entry. Their values alias data.
func decodeEntry(data []byte) ([]request, error) {
	if len(data) == 0 {
		return nil, fmt.Errorf("%w: empty", errCommand)
	}
	if data[0] != commandFormat {
		return nil, fmt.Errorf("%w: format %d, this version knows %d", errCommand, data[0], commandFormat)
	}
	d := decoder{b: data[1:]}
	var out []request
	for len(d.b) > 0 && !d.bad {
		out = append(out, d.request())
	}
	if d.bad {
		return nil, fmt.Errorf("%w: cut short or malformed", errCommand)
	}
	return out, nil
}

// decoder reads fields off the front of b. The first that does not fit sets bad, and all that follow are
// zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.bad = true
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) bytes() []byte  { return d.take(d.uvarint()) }
func (d *decoder) string() string { return string(d.bytes()) }

func (d *decoder) fence() physical.Fence {
	f := physical.Fence{Lineage: d.string(), Term: d.uvarint()}
	copy(f.Nonce[:], d.take(uint64(len(f.Nonce))))
	return f
}

func (d *decoder) request() request {
	r := request{kind: requestKind(d.byte())}
	switch r.kind {
	case kindCommit:
		switch d.byte() {
		case 0:
		case 1:
			r.fenced, r.fence = true, d.fence()
		default:
			d.bad = true
		}
		n := d.uvarint()
		if n > uint64(len(d.b)) { // each op takes three bytes at least
			d.bad = true
			return r
		}
		r.ops = make([]physical.Op, 0, n)
		for range n {
			r.ops = append(r.ops, physical.Op{Kind: physical.OpKind(d.byte()), Key: d.string(), Value: d.bytes()})
			if d.bad {
				return r
			}
		}
	case kindRaise:
		r.fence, r.to = d.fence(), d.fence()
	case kindAcquire:
		r.holder, r.name, r.term = d.string(), d.string(), d.uvarint()
	case kindRelease:
		r.term, r.next = d.uvarint(), d.string()
	case kindAddress:
		r.holder, r.name = d.string(), d.string()
	default:
		d.bad = true
	}
	return r
}
