package raft

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	hraft "github.com/hashicorp/raft"

	"github.com/locum-ha/locum/internal/boottime"
)

var (
	errPromised = errors.New("a promise to the leader holds")
	errStopping = errors.New("stopping")
)

// transport carries raft's messages and puts the gate around them: every acknowledgement and every vote
// passes it on its way out. It also keeps book of what each peer acknowledged, from which leases and
// promotions are decided.
type transport struct {
	*hraft.NetworkTransport
	gate    *gate
	peers   *peerBook
	timing  timing
	refused func(what string)

	voteDelay atomic.Int64 // nanoseconds, see Config.VoteDelay

	handMu   sync.Mutex
	handover uint64 // the raft term that this leader is handing over, 0 for none
	tainted  uint64 // the last raft term in which a peer was asked to take over

	ready      chan struct{} // closed once engineTerm is set
	engineTerm func() uint64 // raft's current term

	consumer chan hraft.RPC
	stop     chan struct{}
	work     sync.WaitGroup
	streams  *streamLayer
}

func newTransport(s *Store, layer Layer, g *gate) *transport {
	t := &transport{
		gate: g, peers: s.peers, timing: s.timing, refused: s.refused,
		consumer: make(chan hraft.RPC),
		stop:     make(chan struct{}),
		ready:    make(chan struct{}),
		streams:  &streamLayer{layer: layer, local: s.local(), conns: map[net.Conn]struct{}{}},
	}
	t.NetworkTransport = hraft.NewNetworkTransportWithConfig(&hraft.NetworkTransportConfig{
		ServerAddressProvider: s.peers,
		Logger:                s.engineLog,
		Stream:                t.streams,
		MaxPool:               4,
		MaxRPCsInFlight:       1, // requests are never pipelined: the commits in them are grouped already
		Timeout:               s.timing.rpc,
	})
	t.work.Add(1)
	go t.pump()
	return t
}

// Consumer gives raft the messages that passed the gate.
func (t *transport) Consumer() <-chan hraft.RPC { return t.consumer }

// Close ends all traffic and waits for what was under way.
func (t *transport) Close() error {
	select {
	case <-t.stop:
		return nil
	default:
	}
	close(t.stop)
	err := t.NetworkTransport.Close()
	t.NetworkTransport.CloseStreams()
	t.streams.closeAll()
	t.work.Wait()
	return err
}

// pump takes messages in.
func (t *transport) pump() {
	defer t.work.Done()
	select {
	case <-t.ready:
	case <-t.stop:
		return
	}
	for {
		select {
		case rpc := <-t.NetworkTransport.Consumer():
			t.work.Add(1)
			go func() {
				defer t.work.Done()
				t.receive(rpc)
			}()
		case <-t.stop:
			return
		}
	}
}

// SetHeartbeatHandler puts the gate around the fast path too.
func (t *transport) SetHeartbeatHandler(handle func(hraft.RPC)) {
	t.NetworkTransport.SetHeartbeatHandler(func(rpc hraft.RPC) {
		out, replies := rpc.RespChan, make(chan hraft.RPCResponse, 1)
		rpc.RespChan = replies
		t.learn(rpc.Command)
		handle(rpc)
		select {
		case reply := <-replies:
			out <- t.admitAck(rpc.Command, reply)
		default: // raft is shutting down and answers nothing
			out <- hraft.RPCResponse{Error: errStopping}
		}
	})
}

// receive passes one message on to raft, and its answer through the gate.
func (t *transport) receive(rpc hraft.RPC) {
	out, replies := rpc.RespChan, make(chan hraft.RPCResponse, 1)
	rpc.RespChan = replies
	t.learn(rpc.Command)
	admit := func(r hraft.RPCResponse) hraft.RPCResponse { return r }
	switch cmd := rpc.Command.(type) {
	case *hraft.AppendEntriesRequest:
		admit = func(r hraft.RPCResponse) hraft.RPCResponse { return t.admitAck(cmd, r) }
	case *hraft.RequestVoteRequest:
		if !t.awaitVote(cmd.Term, cmd.LeadershipTransfer) {
			t.refused("vote")
			out <- hraft.RPCResponse{Response: &hraft.RequestVoteResponse{RPCHeader: t.header(), Term: t.engineTerm()}}
			return
		}
		admit = func(r hraft.RPCResponse) hraft.RPCResponse { return t.admitVote(cmd, r) }
	case *hraft.RequestPreVoteRequest:
		if !t.awaitVote(cmd.Term, false) {
			t.refused("pre-vote")
			out <- hraft.RPCResponse{Response: &hraft.RequestPreVoteResponse{RPCHeader: t.header(), Term: t.engineTerm()}}
			return
		}
	case *hraft.TimeoutNowRequest:
		if !t.admitHandover(cmd) {
			t.refused("handover")
			out <- hraft.RPCResponse{Response: &hraft.TimeoutNowResponse{RPCHeader: t.header()}, Error: errors.New("the handover is of the past")}
			return
		}
	}
	select {
	case t.consumer <- rpc:
	case <-t.stop:
		out <- hraft.RPCResponse{Error: errStopping}
		return
	}
	select {
	case reply := <-replies:
		out <- admit(reply)
	case <-t.stop:
		out <- hraft.RPCResponse{Error: errStopping}
	}
}

func (t *transport) header() hraft.RPCHeader {
	return hraft.RPCHeader{ProtocolVersion: hraft.ProtocolVersionMax, ID: []byte(t.streams.local.id)}
}

// admitAck makes an acknowledgement a promise, or a refusal if this node has moved on.
func (t *transport) admitAck(cmd any, reply hraft.RPCResponse) hraft.RPCResponse {
	req, isAppend := cmd.(*hraft.AppendEntriesRequest)
	resp, isReply := reply.Response.(*hraft.AppendEntriesResponse)
	if !isAppend || !isReply || !resp.Success || reply.Error != nil {
		return reply
	}
	if newer, ok := t.gate.acknowledge(req.Term); !ok {
		t.refused("ack")
		held := *resp
		held.Success, held.Term = false, max(resp.Term, newer)
		reply.Response = &held
	}
	return reply
}

// admitVote lets a granted vote out only while no promise stands against it.
func (t *transport) admitVote(req *hraft.RequestVoteRequest, reply hraft.RPCResponse) hraft.RPCResponse {
	resp, ok := reply.Response.(*hraft.RequestVoteResponse)
	if !ok || !resp.Granted {
		return reply
	}
	if !t.gate.vote(req.Term, req.LeadershipTransfer) {
		t.refused("vote")
		held := *resp
		held.Granted = false
		reply.Response = &held
	}
	return reply
}

// admitHandover accepts a TimeoutNow only from the leader of the present term.
func (t *transport) admitHandover(cmd *hraft.TimeoutNowRequest) bool {
	term, err := strconv.ParseUint(strings.TrimPrefix(string(cmd.Addr), handoverMark), 10, 64)
	return err == nil && term == t.engineTerm() && t.gate.handedOver(term)
}

// awaitVote waits for a promise that is about to end: whoever asks heard the leader last a little earlier
// than this node did. Any other promise refuses at once.
func (t *transport) awaitVote(term uint64, transfer bool) bool {
	for {
		_, renewed := t.gate.promise()
		ok, wait := t.gate.wouldVote(term, transfer)
		if ok || wait <= 0 || wait > t.timing.heartbeat/2 {
			return ok
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-renewed:
			timer.Stop()
			return false
		case <-t.stop:
			timer.Stop()
			return false
		}
	}
}

// AppendEntries sends entries or a heartbeat, and notes from when on the peer's promise counts.
func (t *transport) AppendEntries(id hraft.ServerID, target hraft.ServerAddress, args *hraft.AppendEntriesRequest, resp *hraft.AppendEntriesResponse) error {
	sent := boottime.Now()
	*resp = hraft.AppendEntriesResponse{}
	if err := t.NetworkTransport.AppendEntries(id, target, args, resp); err != nil {
		t.peers.failed(string(id))
		return err
	}
	t.peers.answered(string(id), args, resp, sent)
	return nil
}

// RequestPreVote asks once no promise of this node's own stands against it and its delay has passed.
func (t *transport) RequestPreVote(id hraft.ServerID, target hraft.ServerAddress, args *hraft.RequestPreVoteRequest, resp *hraft.RequestPreVoteResponse) error {
	if err := t.awaitCandidacy(); err != nil {
		return err
	}
	return t.NetworkTransport.RequestPreVote(id, target, args, resp)
}

// awaitCandidacy waits until this node may ask for votes, at most one heartbeat timeout and its delay.
func (t *transport) awaitCandidacy() error {
	until, renewed := t.gate.promise()
	wait := boottime.Until(until.Add(time.Duration(t.voteDelay.Load())))
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-renewed:
		return errPromised
	case <-t.stop:
		return errStopping
	}
}

// RequestVote asks for a vote unless a promise stands against it.
func (t *transport) RequestVote(id hraft.ServerID, target hraft.ServerAddress, args *hraft.RequestVoteRequest, resp *hraft.RequestVoteResponse) error {
	ok, transfer := t.gate.ask(args.Term, args.LeadershipTransfer)
	if !ok {
		t.refused("candidacy")
		return errPromised
	}
	req := *args
	req.LeadershipTransfer = transfer
	return t.NetworkTransport.RequestVote(id, target, &req, resp)
}

// handoverMark stands before the term in a TimeoutNow. The message has no field of its own for it, and
// raft does not read the one it is put in.
const handoverMark = "term/"

// TimeoutNow asks a peer to take over. It names the term, and from here on this node acquires no lock in
// it any more: the message may arrive at any time.
func (t *transport) TimeoutNow(id hraft.ServerID, target hraft.ServerAddress, args *hraft.TimeoutNowRequest, resp *hraft.TimeoutNowResponse) error {
	term := t.engineTerm()
	t.handMu.Lock()
	if t.handover != term {
		t.handMu.Unlock()
		return errors.New("leadership is not to be handed over in this term")
	}
	t.tainted = term
	t.handMu.Unlock()
	req := *args
	req.Addr = []byte(handoverMark + strconv.FormatUint(term, 10))
	return t.NetworkTransport.TimeoutNow(id, target, &req, resp)
}

// beginHandover allows the leadership of term to be handed over until endHandover.
func (t *transport) beginHandover(term uint64) {
	t.handMu.Lock()
	t.handover = term
	t.handMu.Unlock()
}

func (t *transport) endHandover() { t.beginHandover(0) }

// handed reports whether a peer was asked to take over in term.
func (t *transport) handed(term uint64) bool {
	t.handMu.Lock()
	defer t.handMu.Unlock()
	return t.tainted == term && term != 0
}

// stepDown makes raft give up the leadership of term, by a request for votes in the next term that no
// server grants: the engine has no call for it.
func (t *transport) stepDown(term uint64) {
	self := []byte(joinTarget(t.streams.local.id, t.streams.local.addr))
	replies := make(chan hraft.RPCResponse, 1)
	rpc := hraft.RPC{RespChan: replies, Command: &hraft.RequestVoteRequest{
		RPCHeader: hraft.RPCHeader{ProtocolVersion: hraft.ProtocolVersionMax, ID: []byte(t.streams.local.id), Addr: self},
		Term:      term + 1,
		Candidate: self,
	}}
	select {
	case t.consumer <- rpc:
		<-replies
	case <-t.stop:
	}
}

// learn takes the sender's address from a message: a peer that came back elsewhere says so itself.
func (t *transport) learn(cmd any) {
	h, ok := cmd.(hraft.WithRPCHeader)
	if !ok {
		return
	}
	header := h.GetRPCHeader()
	if id, addr, ok := splitTarget(string(header.Addr)); ok && id == string(header.ID) {
		t.peers.learn(id, addr)
	}
}

// A target is an address that says who must answer there: id@host:port.
func joinTarget(id, addr string) string { return id + "@" + addr }

func splitTarget(target string) (id, addr string, ok bool) {
	id, addr, ok = strings.Cut(target, "@")
	return id, addr, ok && id != "" && addr != ""
}

// identity is who this node is and where it is reached.
type identity struct{ id, addr string }

// streamLayer makes the library's StreamLayer from a Layer.
type streamLayer struct {
	layer Layer
	local identity

	mu     sync.Mutex
	conns  map[net.Conn]struct{} // accepted and open
	closed bool
}

func (s *streamLayer) Accept() (net.Conn, error) {
	conn, err := s.layer.Accept()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	tracked := &trackedConn{Conn: conn, layer: s}
	s.conns[tracked] = struct{}{}
	return tracked, nil
}

type trackedConn struct {
	net.Conn
	layer *streamLayer
}

func (c *trackedConn) Close() error {
	c.layer.mu.Lock()
	delete(c.layer.conns, c)
	c.layer.mu.Unlock()
	return c.Conn.Close()
}

func (s *streamLayer) Dial(target hraft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, addr, ok := splitTarget(string(target))
	if !ok {
		return nil, fmt.Errorf("no address is known for %q", string(target))
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), timeout, errors.New("dial timed out"))
	defer cancel()
	return s.layer.Dial(ctx, id, addr)
}

func (s *streamLayer) Close() error { return s.layer.Close() }

func (s *streamLayer) closeAll() {
	s.mu.Lock()
	s.closed = true
	conns := s.conns
	s.conns = map[net.Conn]struct{}{}
	s.mu.Unlock()
	for conn := range conns {
		_ = conn.(*trackedConn).Conn.Close()
	}
}

// Addr is what raft calls this node's address: with its identity, like everybody's.
func (s *streamLayer) Addr() net.Addr { return targetAddr(joinTarget(s.local.id, s.local.addr)) }

type targetAddr string

func (targetAddr) Network() string  { return "locum" }
func (a targetAddr) String() string { return string(a) }
