package raft

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	hraft "github.com/hashicorp/raft"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/internal/enginelog"
)

var (
	errPromised = errors.New("a promise to the leader holds")
	errStopping = errors.New("stopping")
)

// transport carries raft's messages and puts the gate around them: every acknowledgement and every vote
// passes it on its way out. It also keeps book of what each peer acknowledged, from which leases and
// promotions are decided. It implements hraft.Transport.
type transport struct {
	self    identity
	layer   Layer
	gate    *gate
	peers   *peerBook
	timing  timing
	logger  *enginelog.Log
	refused func(what string)

	voteDelay atomic.Int64 // nanoseconds, see Config.VoteDelay
	unfit     func() bool  // this node should not ask for votes now

	handMu   sync.Mutex
	handover uint64 // the raft term that this leader is handing over, 0 for none
	tainted  uint64 // the last raft term in which a peer was asked to take over

	ready        chan struct{}              // closed once the next three are set
	engineTerm   func() uint64              // raft's current term
	engineLeader func() hraft.ServerAddress // whom raft takes for the leader
	isMember     func(id string) bool       // whether raft's configuration has a node, or is empty
	heartbeat    atomic.Pointer[func(hraft.RPC)]
	consumer     chan hraft.RPC

	stop context.Context
	end  context.CancelFunc
	work sync.WaitGroup

	poolMu sync.Mutex
	idle   map[string][]*wireConn // by identity
	open   map[net.Conn]struct{}  // all connections, in either direction
}

func newTransport(s *Store, layer Layer, g *gate) *transport {
	t := &transport{
		self: s.local(), layer: layer, gate: g, peers: s.peers, timing: s.timing, logger: s.engineLog, refused: s.refused,
		unfit: s.log.broken.Load,
		ready: make(chan struct{}), consumer: make(chan hraft.RPC),
		idle: map[string][]*wireConn{}, open: map[net.Conn]struct{}{},
	}
	t.stop, t.end = context.WithCancel(context.Background())
	t.work.Go(t.accept)
	return t
}

// Consumer gives raft the messages that passed the gate.
func (t *transport) Consumer() <-chan hraft.RPC { return t.consumer }

// LocalAddr is what raft calls this node's address: with its identity, like everybody's.
func (t *transport) LocalAddr() hraft.ServerAddress {
	return hraft.ServerAddress(joinTarget(t.self.id, t.self.addr))
}

// EncodePeer puts identity and address together. Raft remembers by it whom it voted for, and an address
// alone can be another node's tomorrow.
func (t *transport) EncodePeer(id hraft.ServerID, addr hraft.ServerAddress) []byte {
	if strings.Contains(string(addr), "@") {
		return []byte(addr)
	}
	return []byte(joinTarget(string(id), string(addr)))
}

// DecodePeer is the other way.
func (t *transport) DecodePeer(b []byte) hraft.ServerAddress { return hraft.ServerAddress(b) }

// SetHeartbeatHandler takes raft's way to answer heartbeats beside its main loop.
func (t *transport) SetHeartbeatHandler(handle func(hraft.RPC)) { t.heartbeat.Store(&handle) }

// AppendEntriesPipeline is not supported: the commits in an entry are grouped already, and one message
// that waits for its answer gathers all entries that come meanwhile.
func (t *transport) AppendEntriesPipeline(hraft.ServerID, hraft.ServerAddress) (hraft.AppendPipeline, error) {
	return nil, hraft.ErrPipelineReplicationNotSupported
}

// Close ends all traffic and waits for what was under way.
func (t *transport) Close() error {
	t.poolMu.Lock()
	if t.stop.Err() != nil {
		t.poolMu.Unlock()
		return nil
	}
	t.end()
	for conn := range t.open {
		_ = conn.Close()
	}
	clear(t.idle)
	t.poolMu.Unlock()
	err := t.layer.Close()
	t.work.Wait()
	return err
}

// AppendEntries sends entries or a heartbeat, and notes from when on the peer's promise counts. A message
// that would be too large is shortened: raft sends the rest next.
func (t *transport) AppendEntries(id hraft.ServerID, _ hraft.ServerAddress, args *hraft.AppendEntriesRequest, resp *hraft.AppendEntriesResponse) error {
	size := 0
	for i, e := range args.Entries {
		if size += len(e.Data) + len(e.Extensions); size > maxMessage && i > 0 {
			args.Entries = args.Entries[:i]
			break
		}
	}
	sent := boottime.Now()
	err := t.call(string(id), t.timing.rpc+transferTime(int64(size)),
		func(b []byte) []byte { return appendAppend(b, args) },
		nil,
		func(body []byte) error { return decodeAppendAnswer(body, resp) })
	if err != nil {
		t.peers.failed(string(id))
		return err
	}
	t.peers.answered(string(id), args, resp, sent)
	return nil
}

// transferTime is how long n bytes may take on a slow network.
func transferTime(n int64) time.Duration { return time.Duration(n) * time.Second / (4 << 20) }

// RequestPreVote asks once no promise of this node's own stands against it and its delay has passed.
func (t *transport) RequestPreVote(id hraft.ServerID, _ hraft.ServerAddress, args *hraft.RequestPreVoteRequest, resp *hraft.RequestPreVoteResponse) error {
	if err := t.awaitCandidacy(); err != nil {
		return err
	}
	err := t.call(string(id), t.timing.rpc,
		func(b []byte) []byte {
			return appendVote(b, msgPreVote, args.Term, args.LastLogIndex, args.LastLogTerm, false)
		},
		nil,
		func(body []byte) (err error) {
			resp.Term, resp.Granted, err = decodeVoteAnswer(body)
			return err
		})
	var refusal *refusalError
	t.peers.disowned(string(id), errors.As(err, &refusal) && refusal.msg == notMember)
	return err
}

// awaitCandidacy waits until this node may ask for votes, at most one heartbeat timeout and its delay.
func (t *transport) awaitCandidacy() error {
	if t.unfit() {
		return errors.New("the log cannot be written")
	}
	until, _ := t.gate.promise()
	first := until
	for {
		now, changed := t.gate.promise()
		if now > first {
			return errPromised
		}
		wait := boottime.Until(now.Add(time.Duration(t.voteDelay.Load())))
		if wait <= 0 {
			return nil
		}
		if !t.sleep(wait, changed) {
			return errStopping
		}
	}
}

// sleep waits for d or until changed is closed; false if the transport is closed meanwhile.
func (t *transport) sleep(d time.Duration, changed <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-changed:
		return true
	case <-t.stop.Done():
		return false
	}
}

// RequestVote asks for a vote unless a promise stands against it.
func (t *transport) RequestVote(id hraft.ServerID, _ hraft.ServerAddress, args *hraft.RequestVoteRequest, resp *hraft.RequestVoteResponse) error {
	ok, transfer := t.gate.ask(args.Term, args.LeadershipTransfer)
	if !ok {
		t.refused("candidacy")
		return errPromised
	}
	return t.call(string(id), t.timing.rpc,
		func(b []byte) []byte {
			return appendVote(b, msgVote, args.Term, args.LastLogIndex, args.LastLogTerm, transfer)
		},
		nil,
		func(body []byte) (err error) {
			resp.Term, resp.Granted, err = decodeVoteAnswer(body)
			return err
		})
}

// InstallSnapshot sends a snapshot. Each write has the time of a call; the answer comes when the peer has
// made the state its own.
func (t *transport) InstallSnapshot(id hraft.ServerID, _ hraft.ServerAddress, args *hraft.InstallSnapshotRequest, resp *hraft.InstallSnapshotResponse, data io.Reader) error {
	return t.call(string(id), 15*t.timing.rpc+transferTime(args.Size),
		func(b []byte) []byte { return appendSnapshotRequest(b, args) },
		data,
		func(body []byte) error { return decodeSnapshotAnswer(body, resp) })
}

// TimeoutNow asks a peer to take over. It names the term, and from here on this node acquires no lock in
// it any more: the message may arrive at any time.
func (t *transport) TimeoutNow(id hraft.ServerID, _ hraft.ServerAddress, _ *hraft.TimeoutNowRequest, _ *hraft.TimeoutNowResponse) error {
	term := t.engineTerm()
	t.handMu.Lock()
	if t.handover != term {
		t.handMu.Unlock()
		return errors.New("leadership is not to be handed over in this term")
	}
	t.tainted = term
	t.handMu.Unlock()
	return t.call(string(id), t.timing.rpc,
		func(b []byte) []byte { return endFrame(appendUvarint(beginFrame(b, msgHandover), term)) },
		nil,
		func([]byte) error { return nil })
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
	self := []byte(t.LocalAddr())
	replies := make(chan hraft.RPCResponse, 1)
	rpc := hraft.RPC{RespChan: replies, Command: &hraft.RequestVoteRequest{
		RPCHeader: hraft.RPCHeader{ProtocolVersion: hraft.ProtocolVersionMax, ID: []byte(t.self.id), Addr: self},
		Term:      term + 1,
	}}
	select {
	case t.consumer <- rpc:
		<-replies
	case <-t.stop.Done():
	}
}

// rest makes a candidate a follower again, by a message of a leader whose log nobody has. So it can be
// made to ask anew at once: left to itself it waits one to two election timeouts.
func (t *transport) rest() {
	replies := make(chan hraft.RPCResponse, 1)
	rpc := hraft.RPC{RespChan: replies, Command: &hraft.AppendEntriesRequest{
		RPCHeader: hraft.RPCHeader{ProtocolVersion: hraft.ProtocolVersionMax},
		Term:      t.engineTerm(), PrevLogEntry: math.MaxUint64,
	}}
	select {
	case t.consumer <- rpc:
		<-replies
	case <-t.stop.Done():
	}
}

// stand makes raft stand for election at once, without asking first whether it would win: for when the
// leader is known to be gone and not merely silent, which raft itself cannot be told.
func (t *transport) stand() {
	replies := make(chan hraft.RPCResponse, 1)
	header := hraft.RPCHeader{ProtocolVersion: hraft.ProtocolVersionMax, ID: []byte(t.self.id), Addr: []byte(t.LocalAddr())}
	select {
	case t.consumer <- hraft.RPC{RespChan: replies, Command: &hraft.TimeoutNowRequest{RPCHeader: header}}:
		<-replies
	case <-t.stop.Done():
	}
}

// A target is an address that says who must answer there: id@host:port.
func joinTarget(id, addr string) string { return id + "@" + addr }

// identity is who a node is and where it is reached.
type identity struct{ id, addr string }

var _ hraft.Transport = (*transport)(nil)
var _ hraft.WithPreVote = (*transport)(nil)
var _ hraft.WithClose = (*transport)(nil)
