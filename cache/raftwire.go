package cache

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	hraft "github.com/hashicorp/raft"
)

// After the hello of a connection for raft the dialler sends requests, one at a time, and the other answers
// each. A request is: length (4 bytes, little endian, of the rest), kind byte, body. An answer is: length,
// status byte (0, or 1 and a message), body. A snapshot's content follows its request in frames of kind
// msgChunk, the last one empty.
const (
	msgAppend   byte = 1
	msgVote     byte = 2
	msgPreVote  byte = 3
	msgSnapshot byte = 4
	msgTakeOver byte = 5
	msgPulse    byte = 6
	msgChunk    byte = 7
	msgGone     byte = 8
)

const (
	maxFrame   = 80 << 20 // bytes: larger than any request (maxTxn) with what goes with it
	maxMessage = 8 << 20  // bytes of entries in one message, unless a single one is larger
)

// readFrame reads a frame into buf, or into a larger one. A large one grows with what has arrived.
func readFrame(r *bufio.Reader, buf []byte) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.LittleEndian.Uint32(head[:]))
	if n == 0 || n > maxFrame {
		return nil, fmt.Errorf("%w frame of %d bytes", errFormat, n)
	}
	const step = 4 << 20
	if cap(buf) < n {
		buf = make([]byte, min(n, step))
	}
	buf = buf[:min(n, cap(buf))]
	if _, err := io.ReadFull(r, buf); err != nil {
		return nil, err
	}
	for len(buf) < n {
		part := make([]byte, min(n-len(buf), max(step, len(buf))))
		if _, err := io.ReadFull(r, part); err != nil {
			return nil, err
		}
		buf = append(buf, part...)
	}
	return buf, nil
}

// beginFrame starts a frame in b with its kind or status; endFrame fills in the length.
func beginFrame(b []byte, kind byte) []byte { return append(b[:0], 0, 0, 0, 0, kind) }

func endFrame(b []byte) []byte {
	binary.LittleEndian.PutUint32(b, uint32(len(b)-4))
	return b
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
	if n := d.count(4); n > 0 {
		logs := make([]hraft.Log, n)
		m.Entries = make([]*hraft.Log, n)
		for i := range logs {
			e := &logs[i]
			e.Index, e.Term, e.Type = d.uvarint(), d.uvarint(), hraft.LogType(d.byte())
			if data := d.bytes(); len(data) > 0 {
				e.Data = data
			}
			m.Entries[i] = e
		}
	}
	return m, d.end("append")
}

// The answer to msgAppend says more than raft asks for: how far the follower has applied the log.
func appendAppendAnswer(b []byte, m *hraft.AppendEntriesResponse, applied uint64) []byte {
	b = binary.AppendUvarint(b, m.Term)
	b = binary.AppendUvarint(b, m.LastLog)
	b = appendBool(appendBool(b, m.Success), m.NoRetryBackoff)
	return binary.AppendUvarint(b, applied)
}

func decodeAppendAnswer(body []byte, m *hraft.AppendEntriesResponse) (applied uint64, err error) {
	d := decoder{b: body}
	*m = hraft.AppendEntriesResponse{Term: d.uvarint(), LastLog: d.uvarint(), Success: d.bool(), NoRetryBackoff: d.bool()}
	applied = d.uvarint()
	return applied, d.end("append answer")
}

func appendVote(b []byte, kind byte, term, lastIndex, lastTerm uint64, transfer bool) []byte {
	b = beginFrame(b, kind)
	b = binary.AppendUvarint(b, term)
	b = binary.AppendUvarint(b, lastIndex)
	b = binary.AppendUvarint(b, lastTerm)
	return endFrame(appendBool(b, transfer))
}

func decodeVote(body []byte) (*hraft.RequestVoteRequest, error) {
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
	return endFrame(binary.AppendUvarint(b, m.ConfigurationIndex))
}

func decodeSnapshotRequest(body []byte) (*hraft.InstallSnapshotRequest, error) {
	d := decoder{b: body}
	m := &hraft.InstallSnapshotRequest{
		SnapshotVersion: hraft.SnapshotVersion(d.uvarint()), Term: d.uvarint(), LastLogIndex: d.uvarint(), LastLogTerm: d.uvarint(),
		Configuration: d.bytes(), ConfigurationIndex: d.uvarint(),
	}
	return m, d.end("snapshot")
}

// pulse is what the leader says between its log entries: whether it has a majority of the hosts with it
// (open), how far the log is committed, what time it is, and who leads. Its answers tell the leader who is
// there and has not moved on to a later term, how far they have applied the log, and what time it is by their
// clock; the next pulse brings that back. So a node knows since when at the latest the leader led: a pulse
// that lay somewhere while this node, or the network, stood still is not taken for a new one.
type pulse struct {
	term       uint64
	open       bool
	commit     uint64
	commitTerm uint64
	clock      int64  // the log's time, milliseconds
	hosts      uint64 // connected ones, a bit for each place in the leader's list
	echo       int64  // the receiver's own time when it answered the last pulse, see now; 0 for none
}

// pulseAnswer is the answer.
type pulseAnswer struct {
	ok      bool // the term is the receiver's
	applied uint64
	at      int64 // the receiver's time when the pulse came
}

func appendPulse(b []byte, p pulse) []byte {
	b = beginFrame(b, msgPulse)
	b = binary.AppendUvarint(b, p.term)
	b = appendBool(b, p.open)
	b = binary.AppendUvarint(b, p.commit)
	b = binary.AppendUvarint(b, p.commitTerm)
	b = binary.AppendVarint(b, p.clock)
	b = binary.AppendUvarint(b, p.hosts)
	return endFrame(binary.AppendVarint(b, p.echo))
}

func decodePulse(body []byte) (pulse, error) {
	d := decoder{b: body}
	p := pulse{term: d.uvarint(), open: d.bool(), commit: d.uvarint(), commitTerm: d.uvarint(), clock: d.varint(), hosts: d.uvarint(), echo: d.varint()}
	return p, d.end("pulse")
}

func appendPulseAnswer(b []byte, a pulseAnswer) []byte {
	b = binary.AppendUvarint(appendBool(b, a.ok), a.applied)
	return binary.AppendVarint(b, a.at)
}

func decodePulseAnswer(body []byte) (pulseAnswer, error) {
	d := decoder{b: body}
	a := pulseAnswer{ok: d.bool(), applied: d.uvarint(), at: d.varint()}
	return a, d.end("pulse answer")
}

// snapshotPatience is how long one part of a snapshot may take.
const snapshotPatience = 10 * time.Second
