package cache

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	hraft "github.com/hashicorp/raft"
)

// inbound is a connection on which a peer asks.
type inbound struct {
	*transport
	net.Conn
	r       *bufio.Reader
	peer    hello
	header  hraft.RPCHeader
	replies chan hraft.RPCResponse
	in, out []byte
	armed   time.Time // when the limit of a write was set last
}

// serve answers a peer until the connection ends. The hello has been checked: it is meant for this
// incarnation in this cluster.
func (t *transport) serve(conn net.Conn, h hello) {
	if !t.track(conn) {
		_ = conn.Close()
		return
	}
	defer t.drop(conn)
	c := &inbound{
		transport: t, Conn: conn, r: bufio.NewReaderSize(conn, 64<<10), peer: h, replies: make(chan hraft.RPCResponse, 1),
		header: hraft.RPCHeader{ProtocolVersion: hraft.ProtocolVersionMax, ID: []byte(h.from), Addr: []byte(joinTarget(h.from, h.host))},
	}
	for c.next() == nil {
	}
	t.ended(h.from)
}

// next reads one request and answers it.
func (c *inbound) next() error {
	if err := c.SetReadDeadline(time.Now().Add(dropConn)); err != nil {
		return err
	}
	frame, err := readFrame(c.r, c.in)
	if err != nil {
		return err
	}
	c.in = nil // entries alias it
	out, keep, err := c.answer(frame[0], frame[1:])
	var refusal *refusalError
	if errors.As(err, &refusal) {
		out = append(beginFrame(c.out, 1), refusal.msg...)
	} else if err != nil {
		return err
	}
	if keep && cap(frame) <= keepMessage {
		c.in = frame
	}
	if out == nil { // it was acknowledged already
		return nil
	}
	c.out = endFrame(out)
	if err := c.arm(); err != nil {
		return err
	}
	_, err = c.Write(c.out)
	return err
}

// arm limits the next write. Not anew with each: it costs.
func (c *inbound) arm() error {
	now := time.Now()
	if now.Sub(c.armed) <= c.limit/2 {
		return nil
	}
	c.armed = now
	return c.SetWriteDeadline(now.Add(c.limit + c.limit/2))
}

// answer carries a request out and returns the answer's frame, and whether the request's may be reused.
func (c *inbound) answer(kind byte, body []byte) (out []byte, keep bool, err error) {
	out = beginFrame(c.out, 0)
	switch kind {
	case msgAppend:
		m, err := decodeAppend(body)
		if err != nil {
			return nil, false, err
		}
		resp, applied, err := c.appended(m)
		if err != nil || resp == nil {
			return nil, false, err
		}
		return appendAppendAnswer(out, resp, applied), len(m.Entries) == 0, nil
	case msgVote, msgPreVote:
		m, err := decodeVote(body)
		if err != nil {
			return nil, false, err
		}
		term, granted, err := c.voted(kind, m)
		return appendVoteAnswer(out, term, granted), true, err
	case msgSnapshot:
		m, err := decodeSnapshotRequest(body)
		if err != nil {
			return nil, false, err
		}
		m.RPCHeader = c.header
		reply, err := c.ask(m, &chunkReader{c: c, size: &m.Size})
		if err != nil {
			return nil, false, err
		}
		resp, ok := reply.(*hraft.InstallSnapshotResponse)
		if !ok {
			return nil, false, errStopping
		}
		return appendBool(appendUvarint(out, resp.Term), resp.Success), false, nil
	case msgTakeOver:
		_, err := c.ask(&hraft.TimeoutNowRequest{RPCHeader: c.header}, nil)
		return out, true, err
	case msgPulse:
		p, err := decodePulse(body)
		if err != nil {
			return nil, false, err
		}
		a := pulseAnswer{at: now()}
		a.ok, a.applied = c.pulsed(c.peer.from, p)
		return appendPulseAnswer(out, a), true, nil
	case msgGone:
		d := decoder{b: body}
		id := d.string()
		if err := d.end("question"); err != nil {
			return nil, false, err
		}
		return appendBool(out, c.gone(id)), true, nil
	}
	return nil, false, &refusalError{msg: fmt.Sprintf("a request of kind %d is not known to this version", kind)}
}

// ask puts a command to raft's main loop and waits for the reply.
func (c *inbound) ask(command any, content io.Reader) (any, error) {
	select {
	case c.consumer <- hraft.RPC{Command: command, Reader: content, RespChan: c.replies}:
	case <-c.stop.Done():
		return nil, errStopping
	}
	select {
	case reply := <-c.replies:
		if reply.Error != nil {
			return nil, &refusalError{msg: reply.Error.Error()}
		}
		return reply.Response, nil
	case <-c.stop.Done():
		return nil, errStopping
	}
}

// appended passes entries or a heartbeat to raft. The answer to entries waits until what is committed of
// them is applied, so that an acknowledgement says both.
func (c *inbound) appended(m *hraft.AppendEntriesRequest) (*hraft.AppendEntriesResponse, uint64, error) {
	m.RPCHeader = c.header
	m.LeaderCommitIndex = min(m.LeaderCommitIndex, m.PrevLogEntry+uint64(len(m.Entries))) // of what follows, this node may have something else
	handle := c.heartbeat.Load()
	beat := m.Term != 0 && m.PrevLogEntry == 0 && m.PrevLogTerm == 0 && len(m.Entries) == 0 && m.LeaderCommitIndex == 0
	// Raft's own way beside its main loop is not for a message that changes the term: the main loop may be storing entries in the old one.
	if beat && handle != nil && m.Term == c.engine.Load().CurrentTerm() {
		(*handle)(hraft.RPC{Command: m, RespChan: c.replies})
		select {
		case reply := <-c.replies:
			if resp, ok := reply.Response.(*hraft.AppendEntriesResponse); ok && reply.Error == nil {
				return resp, c.applied.at.Load(), nil
			}
		default: // raft is shutting down and answers nothing
		}
		return nil, 0, errStopping
	}
	var e *early
	if c.early(m) {
		e = &early{c: c, last: m.Entries[len(m.Entries)-1], term: m.Term}
		if size(m) <= aheadBytes { // not what would keep raft's main loop
			c.arrivals.add(e)
		}
	}
	reply, err := c.ask(m, nil)
	if e != nil {
		c.arrivals.remove(e)
	}
	if errors.Is(err, errStopping) {
		return nil, 0, err
	}
	if e != nil && e.done {
		return nil, 0, e.err
	}
	if err != nil {
		return nil, 0, err
	}
	resp, ok := reply.(*hraft.AppendEntriesResponse)
	switch {
	case !ok:
		return nil, 0, errStopping
	case e != nil && resp.Success: // it had come before
		c.carry(e.term, e.last.Index)
	case resp.Success:
		c.awaitApplied(m)
	}
	return resp, c.applied.at.Load(), nil
}

// early reports whether it is certain that the message's entries are committed as soon as this node has them: of up to three voters the
// leader and this one are a majority. An entry of the leader's own term that a majority has is committed (raft paper, §5.4.2), whoever
// counts first. The leader stores an entry before it sends it. No change of the voters may be under way, and the voters that this node
// knows must be the leader's: where its log is not known to be the leader's, they may be those of a change that this very message takes back.
func (c *inbound) early(m *hraft.AppendEntriesRequest) bool {
	if len(m.Entries) == 0 || m.Entries[len(m.Entries)-1].Term != m.Term {
		return false
	}
	for _, e := range m.Entries {
		if e.Type == hraft.LogConfiguration {
			return false
		}
	}
	return c.majority(c.peer.from, min(m.LeaderCommitIndex, m.PrevLogEntry))
}

func size(m *hraft.AppendEntriesRequest) (n int) {
	for _, e := range m.Entries {
		n += len(e.Data) + 32
	}
	return n
}

// awaitApplied waits until the writes among the entries that are committed are applied; not long: a slow
// node is not to hold the leader's messages up.
func (c *inbound) awaitApplied(m *hraft.AppendEntriesRequest) {
	for i := len(m.Entries) - 1; i >= 0; i-- {
		e := m.Entries[i]
		if e.Type != hraft.LogCommand || e.Index > m.LeaderCommitIndex {
			continue
		}
		if c.applied.at.Load() >= e.Index {
			return
		}
		ctx, cancel := context.WithTimeout(c.stop, c.limit/2)
		defer cancel()
		_ = c.applied.wait(ctx, e.Index) // the answer says how far it came
		return
	}
}

func (c *inbound) voted(kind byte, m *hraft.RequestVoteRequest) (term uint64, granted bool, err error) {
	m.RPCHeader = c.header
	if kind == msgPreVote {
		reply, err := c.ask(&hraft.RequestPreVoteRequest{
			RPCHeader: c.header, Term: m.Term, LastLogIndex: m.LastLogIndex, LastLogTerm: m.LastLogTerm,
		}, nil)
		if resp, ok := reply.(*hraft.RequestPreVoteResponse); ok && err == nil {
			return resp.Term, resp.Granted, nil
		}
		return 0, false, orStopping(err)
	}
	reply, err := c.ask(m, nil)
	if resp, ok := reply.(*hraft.RequestVoteResponse); ok && err == nil {
		return resp.Term, resp.Granted, nil
	}
	return 0, false, orStopping(err)
}

func orStopping(err error) error {
	if err == nil {
		return errStopping
	}
	return err
}

// chunkReader reads the content of a snapshot. Raft wants to know its size when it has read it, and the
// sender did not know it before: so it is filled in at the end.
type chunkReader struct {
	c    *inbound
	size *int64
	rest []byte
	buf  []byte
	done bool
}

// Read implements io.Reader.
func (r *chunkReader) Read(b []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.done {
			return 0, io.EOF
		}
		if err := r.c.SetReadDeadline(time.Now().Add(snapshotPatience)); err != nil {
			return 0, err
		}
		frame, err := readFrame(r.c.r, r.buf)
		if err != nil {
			return 0, err
		}
		if frame[0] != msgChunk {
			return 0, fmt.Errorf("%w snapshot", errFormat)
		}
		r.buf, r.rest, r.done = frame, frame[1:], len(frame) == 1
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	*r.size += int64(n)
	return n, nil
}
