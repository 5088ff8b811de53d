package raft

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

// accept takes connections in until the layer is closed.
func (t *transport) accept() {
	for delay := 5 * time.Millisecond; ; {
		conn, err := t.layer.Accept()
		if t.stop.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return
		}
		if err != nil {
			t.logger.Error("failed to accept a connection", "error", err)
			select {
			case <-time.After(delay):
			case <-t.stop.Done():
				return
			}
			delay = min(2*delay, time.Second)
			continue
		}
		delay = 5 * time.Millisecond
		if !t.track(conn) {
			_ = conn.Close()
			return
		}
		t.work.Go(func() {
			defer t.drop(conn)
			if err := t.serve(conn); err != nil && !errors.Is(err, io.EOF) && t.stop.Err() == nil {
				t.logger.Debug("connection ended", "error", err)
			}
		})
	}
}

// inbound is a connection on which a peer asks.
type inbound struct {
	*transport
	net.Conn
	r       *bufio.Reader
	from    identity
	header  hraft.RPCHeader
	replies chan hraft.RPCResponse
	in, out []byte
}

// serve answers one peer. A hello that is meant for another identity, or that claims another than the
// connection proves, ends it: nothing of an emptied or replaced node's past reaches it.
func (t *transport) serve(conn net.Conn) error {
	select {
	case <-t.ready:
	case <-t.stop.Done():
		return errStopping
	}
	c := &inbound{transport: t, Conn: conn, r: bufio.NewReaderSize(conn, 64<<10), replies: make(chan hraft.RPCResponse, 1)}
	if err := conn.SetReadDeadline(time.Now().Add(t.timing.rpc)); err != nil {
		return err
	}
	from, to, err := readHello(c.r)
	if err != nil {
		return err
	}
	if to != t.self.id {
		return fmt.Errorf("node %s looks for node %s, this is %s", from.id, to, t.self.id)
	}
	if who, ok := conn.(interface{ PeerID() string }); ok && who.PeerID() != from.id {
		return fmt.Errorf("node %s says that it is %s", who.PeerID(), from.id)
	}
	t.peers.learn(from.id, from.addr)
	c.from = from
	c.header = hraft.RPCHeader{
		ProtocolVersion: hraft.ProtocolVersionMax, ID: []byte(from.id), Addr: []byte(joinTarget(from.id, from.addr)),
	}
	for {
		if err := c.next(); err != nil {
			return err
		}
	}
}

// next reads one request and answers it.
func (c *inbound) next() error {
	if err := c.SetReadDeadline(time.Now().Add(dropConn)); err != nil {
		return err
	}
	if _, err := c.r.Peek(1); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(c.timing.rpc + transferTime(maxFrame))); err != nil {
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
	c.out = endFrame(out)
	if err := c.SetWriteDeadline(time.Now().Add(c.timing.rpc)); err != nil {
		return err
	}
	_, err = c.Write(c.out)
	return err
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
		m.RPCHeader = c.header
		resp, err := c.appended(m)
		if err != nil {
			return nil, false, err
		}
		return appendAppendAnswer(out, resp), len(m.Entries) == 0, nil
	case msgVote, msgPreVote:
		m, err := decodeVoteRequest(body)
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
		resp, err := c.installed(m)
		if err != nil {
			return nil, false, err
		}
		return appendSnapshotAnswer(out, resp), false, nil
	case msgHandover:
		d := decoder{b: body}
		term := d.uvarint()
		if err := d.end("handover"); err != nil {
			return nil, false, err
		}
		return out, true, c.tookOver(term)
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
	return c.reply()
}

func (c *inbound) reply() (any, error) {
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

// appended passes entries or a heartbeat to raft; its acknowledgement becomes a promise, or a refusal if
// this node has moved on.
func (c *inbound) appended(m *hraft.AppendEntriesRequest) (*hraft.AppendEntriesResponse, error) {
	reply, err := c.appendOrBeat(m)
	if err != nil {
		return nil, err
	}
	resp, ok := reply.(*hraft.AppendEntriesResponse)
	if !ok {
		return nil, errStopping
	}
	if !resp.Success {
		return resp, nil
	}
	c.peers.led()
	if newer, ok := c.gate.acknowledge(m.Term); !ok {
		c.refused("ack")
		return &hraft.AppendEntriesResponse{Term: max(resp.Term, newer), LastLog: resp.LastLog}, nil
	}
	return resp, nil
}

func (c *inbound) appendOrBeat(m *hraft.AppendEntriesRequest) (any, error) {
	handle := c.heartbeat.Load()
	beat := m.Term != 0 && m.PrevLogEntry == 0 && m.PrevLogTerm == 0 && len(m.Entries) == 0 && m.LeaderCommitIndex == 0
	if !beat || handle == nil {
		return c.ask(m, nil)
	}
	(*handle)(hraft.RPC{Command: m, RespChan: c.replies})
	select {
	case reply := <-c.replies:
		if reply.Error != nil {
			return nil, &refusalError{msg: reply.Error.Error()}
		}
		return reply.Response, nil
	default: // raft is shutting down and answers nothing
		return nil, errStopping
	}
}

// voted passes a request for a vote to raft if no promise stands against it, and lets a granted one out
// only if that is still so.
func (c *inbound) voted(kind byte, m *hraft.RequestVoteRequest) (term uint64, granted bool, err error) {
	transfer := m.LeadershipTransfer && kind == msgVote
	if !c.isMember(c.from.id) {
		return 0, false, &refusalError{msg: notMember}
	}
	if !c.awaitVote(m.Term, transfer) {
		c.refused(map[byte]string{msgVote: "vote", msgPreVote: "pre-vote"}[kind])
		return c.engineTerm(), false, nil
	}
	// Raft would refuse as long as it has not noticed itself that its leader is silent, some time after the
	// promise to that leader has run out. The gate knows better: a vote is passed on as if the leader had asked
	// for it, and a pre-vote, which cannot say so, with the leader's address, to which raft compares.
	m.RPCHeader, m.LeadershipTransfer = c.header, true
	if kind == msgPreVote {
		header := c.header
		if leader := c.engineLeader(); leader != "" {
			header.Addr = []byte(leader)
		}
		reply, err := c.ask(&hraft.RequestPreVoteRequest{
			RPCHeader: header, Term: m.Term, LastLogIndex: m.LastLogIndex, LastLogTerm: m.LastLogTerm,
		}, nil)
		if resp, ok := reply.(*hraft.RequestPreVoteResponse); ok && err == nil {
			return resp.Term, resp.Granted, nil
		}
		return 0, false, orStopping(err)
	}
	reply, err := c.ask(m, nil)
	resp, ok := reply.(*hraft.RequestVoteResponse)
	if err != nil || !ok {
		return 0, false, orStopping(err)
	}
	if resp.Granted && !c.gate.vote(m.Term, transfer) {
		c.refused("vote")
		return resp.Term, false, nil
	}
	return resp.Term, resp.Granted, nil
}

// notMember is how a node learns that it was removed while it was away: it is asked for nothing any more,
// so it hears it from those that it asks for votes.
const notMember = "not a member of the cluster"

func orStopping(err error) error {
	if err == nil {
		return errStopping
	}
	return err
}

// awaitVote waits for a promise to end that stands against a vote: whoever asks heard the leader last a
// little earlier than this node did, or knows already that it is dead. It refuses as soon as the leader is
// heard again.
func (t *transport) awaitVote(term uint64, transfer bool) bool {
	first, _ := t.gate.promise()
	for {
		until, changed := t.gate.promise()
		ok, wait := t.gate.wouldVote(term, transfer)
		if ok || wait <= 0 || until > first {
			return ok
		}
		if !t.sleep(wait, changed) {
			return false
		}
	}
}

// tookOver passes a request to take over to raft, if it is of the present term.
func (c *inbound) tookOver(term uint64) error {
	if term != c.engineTerm() || !c.gate.handedOver(term) {
		c.refused("handover")
		return &refusalError{msg: "the handover is of the past"}
	}
	_, err := c.ask(&hraft.TimeoutNowRequest{RPCHeader: c.header}, nil)
	return err
}

// installed passes a snapshot to raft, which reads it from the connection.
func (c *inbound) installed(m *hraft.InstallSnapshotRequest) (*hraft.InstallSnapshotResponse, error) {
	m.RPCHeader = c.header
	content := &patientReader{conn: c.Conn, r: io.LimitReader(c.r, m.Size), slice: c.timing.rpc, ctx: c.stop}
	reply, err := c.ask(m, content)
	if err != nil {
		return nil, err
	}
	resp, ok := reply.(*hraft.InstallSnapshotResponse)
	if !ok {
		return nil, errStopping
	}
	return resp, nil
}

// patientReader gives each read a time of its own.
type patientReader struct {
	conn  net.Conn
	r     io.Reader
	slice time.Duration
	ctx   context.Context
}

func (p *patientReader) Read(b []byte) (int, error) {
	if p.ctx.Err() != nil {
		return 0, errStopping
	}
	if err := p.conn.SetReadDeadline(time.Now().Add(p.slice)); err != nil {
		return 0, err
	}
	return p.r.Read(b)
}
