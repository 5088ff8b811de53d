package raft

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	hraft "github.com/hashicorp/raft"
)

// Two nodes speak over a connection like this. Who dials says hello: "locumrft", format byte, and as
// strings the identity and address of the sender and the identity that it wants to reach. After that it
// sends requests, one at a time, and the other answers each. A request is: length (4 bytes, little
// endian, of the rest), kind byte, body. An answer is: length, status byte (0, or 1 and a message), body.
// Numbers in bodies are uvarints, strings and bytes a length and the bytes. A snapshot's content follows
// its request.
const (
	wireMagic  = "locumrft"
	wireFormat = 1
	maxFrame   = 32 << 20 // bytes of a request or an answer
	maxHello   = 1 << 10

	// maxMessage is how many bytes of entries go into one message, unless a single entry is larger.
	maxMessage = 4 << 20
)

// The kinds of request. The numbers are part of the protocol and never change.
const (
	msgAppend   byte = 1
	msgVote     byte = 2
	msgPreVote  byte = 3
	msgSnapshot byte = 4
	msgHandover byte = 5
)

// errWire: bytes that are no message of this protocol.
var errWire = errors.New("malformed message")

// readFrame reads a frame into buf, or into a larger one.
func readFrame(r *bufio.Reader, buf []byte) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n == 0 || n > maxFrame {
		return nil, fmt.Errorf("%w: %d bytes", errWire, n)
	}
	if uint32(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	_, err := io.ReadFull(r, buf)
	return buf, err
}

// beginFrame starts a frame in b with its kind or status; endFrame fills in the length.
func beginFrame(b []byte, kind byte) []byte { return append(b[:0], 0, 0, 0, 0, kind) }

func endFrame(b []byte) []byte {
	binary.LittleEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

func appendHello(b []byte, from identity, to string) []byte {
	b = append(append(b, wireMagic...), wireFormat)
	b = appendBytes(b, from.id)
	b = appendBytes(b, from.addr)
	return appendBytes(b, to)
}

// readHello reads who is calling, and whom.
func readHello(r *bufio.Reader) (from identity, to string, err error) {
	head := make([]byte, len(wireMagic)+1)
	if _, err := io.ReadFull(r, head); err != nil {
		return from, "", err
	}
	if string(head[:len(wireMagic)]) != wireMagic {
		return from, "", fmt.Errorf("%w: no hello", errWire)
	}
	if head[len(wireMagic)] != wireFormat {
		return from, "", fmt.Errorf("%w: format %d, this version knows %d", errWire, head[len(wireMagic)], wireFormat)
	}
	text := func() string {
		if err != nil {
			return ""
		}
		var n uint64
		if n, err = binary.ReadUvarint(r); err != nil {
			return ""
		}
		if n > maxHello {
			err = fmt.Errorf("%w: hello", errWire)
			return ""
		}
		b := make([]byte, n)
		_, err = io.ReadFull(r, b)
		return string(b)
	}
	from.id, from.addr = text(), text()
	return from, text(), err
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func (d *decoder) bool() bool {
	v := d.byte()
	d.bad = d.bad || v > 1
	return v == 1
}

func appendAppend(b []byte, m *hraft.AppendEntriesRequest) []byte {
	b = beginFrame(b, msgAppend)
	b = binary.AppendUvarint(b, m.Term)
	b = binary.AppendUvarint(b, m.PrevLogEntry)
	b = binary.AppendUvarint(b, m.PrevLogTerm)
	b = binary.AppendUvarint(b, m.LeaderCommitIndex)
	b = binary.AppendUvarint(b, uint64(len(m.Entries)))
	for _, e := range m.Entries {
		b = binary.AppendUvarint(b, e.Index)
		b = binary.AppendUvarint(b, e.Term)
		b = append(b, byte(e.Type))
		var at int64
		if !e.AppendedAt.IsZero() {
			at = e.AppendedAt.UnixNano()
		}
		b = binary.AppendVarint(b, at)
		b = appendBytes(b, e.Extensions)
		b = appendBytes(b, e.Data)
	}
	return endFrame(b)
}

// decodeAppend reads the body of msgAppend. The entries alias it.
func decodeAppend(body []byte) (*hraft.AppendEntriesRequest, error) {
	d := decoder{b: body}
	m := &hraft.AppendEntriesRequest{
		Term: d.uvarint(), PrevLogEntry: d.uvarint(), PrevLogTerm: d.uvarint(), LeaderCommitIndex: d.uvarint(),
	}
	n := d.uvarint()
	if n > uint64(len(d.b)) { // each entry takes six bytes at least
		d.bad = true
	}
	if n > 0 && !d.bad {
		logs := make([]hraft.Log, n)
		m.Entries = make([]*hraft.Log, n)
		for i := range logs {
			e := &logs[i]
			e.Index, e.Term, e.Type = d.uvarint(), d.uvarint(), hraft.LogType(d.byte())
			if at := d.varint(); at != 0 {
				e.AppendedAt = time.Unix(0, at)
			}
			if x := d.bytes(); len(x) > 0 {
				e.Extensions = x
			}
			if x := d.bytes(); len(x) > 0 {
				e.Data = x
			}
			m.Entries[i] = e
			if d.bad {
				break
			}
		}
	}
	return m, d.end("append")
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

// end reports whether the body was read to its end and no further.
func (d *decoder) end(what string) error {
	if d.bad || len(d.b) > 0 {
		return fmt.Errorf("%w: %s", errWire, what)
	}
	return nil
}

func appendAppendAnswer(b []byte, m *hraft.AppendEntriesResponse) []byte {
	b = binary.AppendUvarint(b, m.Term)
	b = binary.AppendUvarint(b, m.LastLog)
	b = appendBool(b, m.Success)
	return appendBool(b, m.NoRetryBackoff)
}

func decodeAppendAnswer(body []byte, m *hraft.AppendEntriesResponse) error {
	d := decoder{b: body}
	*m = hraft.AppendEntriesResponse{Term: d.uvarint(), LastLog: d.uvarint(), Success: d.bool(), NoRetryBackoff: d.bool()}
	return d.end("append answer")
}

// A vote and a pre-vote have the same fields; a pre-vote is never part of a transfer.
func appendVote(b []byte, kind byte, term, lastIndex, lastTerm uint64, transfer bool) []byte {
	b = beginFrame(b, kind)
	b = binary.AppendUvarint(b, term)
	b = binary.AppendUvarint(b, lastIndex)
	b = binary.AppendUvarint(b, lastTerm)
	return endFrame(appendBool(b, transfer))
}

func decodeVoteRequest(body []byte) (*hraft.RequestVoteRequest, error) {
	d := decoder{b: body}
	m := &hraft.RequestVoteRequest{Term: d.uvarint(), LastLogIndex: d.uvarint(), LastLogTerm: d.uvarint(), LeadershipTransfer: d.bool()}
	return m, d.end("vote")
}

func appendVoteAnswer(b []byte, term uint64, granted bool) []byte {
	return appendBool(binary.AppendUvarint(b, term), granted)
}

func decodeVoteAnswer(body []byte) (term uint64, granted bool, err error) {
	d := decoder{b: body}
	term, granted = d.uvarint(), d.bool()
	return term, granted, d.end("vote answer")
}

func appendSnapshotRequest(b []byte, m *hraft.InstallSnapshotRequest) []byte {
	b = beginFrame(b, msgSnapshot)
	b = binary.AppendUvarint(b, uint64(m.SnapshotVersion))
	b = binary.AppendUvarint(b, m.Term)
	b = binary.AppendUvarint(b, m.LastLogIndex)
	b = binary.AppendUvarint(b, m.LastLogTerm)
	b = appendBytes(b, m.Configuration)
	b = binary.AppendUvarint(b, m.ConfigurationIndex)
	return endFrame(binary.AppendUvarint(b, uint64(m.Size)))
}

func decodeSnapshotRequest(body []byte) (*hraft.InstallSnapshotRequest, error) {
	d := decoder{b: body}
	m := &hraft.InstallSnapshotRequest{
		SnapshotVersion: hraft.SnapshotVersion(d.uvarint()), Term: d.uvarint(), LastLogIndex: d.uvarint(), LastLogTerm: d.uvarint(),
		Configuration: d.bytes(), ConfigurationIndex: d.uvarint(), Size: int64(d.uvarint()),
	}
	if m.Size < 0 {
		d.bad = true
	}
	return m, d.end("snapshot")
}

func appendSnapshotAnswer(b []byte, m *hraft.InstallSnapshotResponse) []byte {
	return appendBool(binary.AppendUvarint(b, m.Term), m.Success)
}

func decodeSnapshotAnswer(body []byte, m *hraft.InstallSnapshotResponse) error {
	d := decoder{b: body}
	*m = hraft.InstallSnapshotResponse{Term: d.uvarint(), Success: d.bool()}
	return d.end("snapshot answer")
}
