package cache

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	hraft "github.com/hashicorp/raft"
)

// transport carries raft's messages and the leader's pulse between the incarnations of one cluster. It
// implements hraft.Transport.
type transport struct {
	self    string // identity
	host    string
	cluster string
	dialer  *dialer
	limit   time.Duration // for one message and its answer
	book    *book
	log     *memLog
	applied *progress

	engine    atomic.Pointer[hraft.Raft]
	pulsed    func(from string, p pulse) (ok bool, applied uint64)
	ended     func(peer string)        // a connection that it had made is over
	gone      func(leader string) bool // its process has ended
	heartbeat atomic.Pointer[func(hraft.RPC)]
	consumer  chan hraft.RPC
	arrivals  arrivals
	carry     func(term, index uint64) // the log is committed up to there: apply it
	hurries   atomic.Int32
	lanes     atomic.Pointer[lanes]

	stop context.Context
	end  context.CancelFunc
	work sync.WaitGroup

	mu     sync.Mutex
	idle   map[string][]*wireConn // by identity
	open   map[net.Conn]struct{}
	closed bool
}

var errStopping = errors.New("stopping")

func newTransport(self, host, cluster string, d *dialer, limit time.Duration, b *book, log *memLog, applied *progress) *transport {
	t := &transport{
		self: self, host: host, cluster: cluster, dialer: d, limit: limit, book: b, log: log, applied: applied,
		consumer: make(chan hraft.RPC), idle: map[string][]*wireConn{}, open: map[net.Conn]struct{}{},
	}
	t.stop, t.end = context.WithCancel(context.Background())
	return t
}

// A server's address for raft is identity@host, so that two incarnations on one host are never taken for
// one another, in votes least of all.
func joinTarget(id, host string) hraft.ServerAddress { return hraft.ServerAddress(id + "@" + host) }

// hostOf returns the host in a server's address.
func hostOf(addr hraft.ServerAddress) string {
	_, host, _ := strings.Cut(string(addr), "@")
	return host
}

// Consumer gives raft the messages.
func (t *transport) Consumer() <-chan hraft.RPC { return t.consumer }

// LocalAddr is this incarnation's address.
func (t *transport) LocalAddr() hraft.ServerAddress { return joinTarget(t.self, t.host) }

// EncodePeer returns the address, which has the identity in it.
func (t *transport) EncodePeer(_ hraft.ServerID, addr hraft.ServerAddress) []byte {
	return []byte(addr)
}

// DecodePeer is the other way.
func (t *transport) DecodePeer(b []byte) hraft.ServerAddress { return hraft.ServerAddress(b) }

// SetHeartbeatHandler takes raft's way to answer heartbeats beside its main loop.
func (t *transport) SetHeartbeatHandler(handle func(hraft.RPC)) { t.heartbeat.Store(&handle) }

// AppendEntriesPipeline is not supported: an entry holds many writes already, and one message that waits for
// its answer gathers all entries that come meanwhile.
func (t *transport) AppendEntriesPipeline(hraft.ServerID, hraft.ServerAddress) (hraft.AppendPipeline, error) {
	return nil, hraft.ErrPipelineReplicationNotSupported
}

// Close ends all traffic and waits for what was under way.
func (t *transport) Close() error {
	t.mu.Lock()
	t.closed = true
	t.end()
	for conn := range t.open {
		_ = conn.Close()
	}
	clear(t.idle)
	t.mu.Unlock()
	t.work.Wait()
	return nil
}

// AppendEntries sends entries or a heartbeat. A message that would be too large is shortened: raft sends the
// rest next.
func (t *transport) AppendEntries(id hraft.ServerID, addr hraft.ServerAddress, args *hraft.AppendEntriesRequest, resp *hraft.AppendEntriesResponse) error {
	size := 0
	for i, e := range args.Entries {
		if size += len(e.Data) + 32; size > maxMessage && i > 0 {
			args.Entries = args.Entries[:i]
			break
		}
	}
	var way *lane
	if len(args.Entries) > 0 {
		if way = t.laneTo(string(id), addr); way.attach(args, resp) {
			return nil
		}
	}
	var applied uint64
	err := t.call(string(id), addr, t.limit+transferTime(size), func(b []byte) []byte { return appendAppend(b, args) }, nil,
		func(body []byte) (err error) {
			applied, err = decodeAppendAnswer(body, resp)
			return err
		})
	if err != nil {
		return err
	}
	if resp.Success && resp.Term == args.Term {
		match := args.PrevLogEntry
		if n := len(args.Entries); n > 0 {
			match = args.Entries[n-1].Index
		}
		if way == nil { // a heartbeat, which waits for nothing that is applied, or a leadership would end by a large entry
			t.book.appended(string(id), args.Term, match, applied)
			return nil
		}
		t.has(string(id), args.Term, match, applied)
		if !t.rest(string(id), match) {
			way.open(args.Term, match)
		}
	}
	return nil
}

// lag is how long a follower that nobody waits for is left without the next entries.
const lag = 2 * time.Millisecond

// rest holds the next entries back that a follower is sent, if a majority has the log without it, and no client of its own waits for
// it: the less often it is sent something, the less it costs, itself and the leader. The slower of two followers comes to rest, and
// stands in at once when the quicker one does not answer.
func (t *transport) rest(id string, match uint64) bool {
	if last, err := t.log.LastIndex(); err != nil || last > match+64 || !t.book.rest(id, t.self, match) {
		return false
	}
	timer := time.NewTimer(lag)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.stop.Done():
	}
	return true
}

// background runs f until the transport is closed.
func (t *transport) background(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.work.Go(f)
	}
	return !t.closed
}

// transferTime is how long n bytes may take on a slow network.
func transferTime(n int) time.Duration { return time.Duration(n) * time.Second / (4 << 20) }

// RequestPreVote asks whether a peer would vote for this node.
func (t *transport) RequestPreVote(id hraft.ServerID, addr hraft.ServerAddress, args *hraft.RequestPreVoteRequest, resp *hraft.RequestPreVoteResponse) error {
	return t.call(string(id), addr, t.limit,
		func(b []byte) []byte {
			return appendVote(b, msgPreVote, args.Term, args.LastLogIndex, args.LastLogTerm, false)
		}, nil,
		func(body []byte) (err error) {
			resp.Term, resp.Granted, err = decodeVoteAnswer(body)
			return err
		})
}

// RequestVote asks for a vote.
func (t *transport) RequestVote(id hraft.ServerID, addr hraft.ServerAddress, args *hraft.RequestVoteRequest, resp *hraft.RequestVoteResponse) error {
	return t.call(string(id), addr, t.limit,
		func(b []byte) []byte {
			return appendVote(b, msgVote, args.Term, args.LastLogIndex, args.LastLogTerm, args.LeadershipTransfer)
		}, nil,
		func(body []byte) (err error) {
			resp.Term, resp.Granted, err = decodeVoteAnswer(body)
			return err
		})
}

// InstallSnapshot sends the state as a whole. Each part has a time of its own.
func (t *transport) InstallSnapshot(id hraft.ServerID, addr hraft.ServerAddress, args *hraft.InstallSnapshotRequest, resp *hraft.InstallSnapshotResponse, data io.Reader) error {
	if t.laneTo(string(id), addr).covers(args.Term, args.LastLogIndex) {
		resp.Term, resp.Success = args.Term, true
		return nil
	}
	return t.call(string(id), addr, 10*time.Minute, func(b []byte) []byte { return appendSnapshotRequest(b, args) }, data,
		func(body []byte) error {
			d := decoder{b: body}
			resp.Term, resp.Success = d.uvarint(), d.bool()
			return d.end("snapshot answer")
		})
}

// TimeoutNow asks a peer to take leadership over.
func (t *transport) TimeoutNow(id hraft.ServerID, addr hraft.ServerAddress, _ *hraft.TimeoutNowRequest, _ *hraft.TimeoutNowResponse) error {
	return t.call(string(id), addr, t.limit, func(b []byte) []byte { return endFrame(beginFrame(b, msgTakeOver)) }, nil,
		func([]byte) error { return nil })
}

// pulse sends the leader's pulse, over a connection that is dialled for so long at most if there is none.
func (t *transport) pulse(id string, addr hraft.ServerAddress, dial time.Duration, p pulse) (a pulseAnswer, err error) {
	err = t.callDialling(id, addr, dial, t.limit, func(b []byte) []byte { return appendPulse(b, p) }, nil, func(body []byte) (err error) {
		a, err = decodePulseAnswer(body)
		return err
	})
	return a, err
}

// asksGone asks a peer whether it, too, knows that a leader's process has ended.
func (t *transport) asksGone(id string, addr hraft.ServerAddress, limit time.Duration, leader string) (gone bool) {
	err := t.callDialling(id, addr, limit, limit, func(b []byte) []byte { return endFrame(appendBytes(beginFrame(b, msgGone), leader)) }, nil,
		func(body []byte) error {
			d := decoder{b: body}
			gone = d.bool()
			return d.end("answer")
		})
	return gone && err == nil
}

// wireConn is a connection on which this node asks and the peer answers, one request at a time.
type wireConn struct {
	net.Conn
	r       *bufio.Reader
	out, in []byte
	used    time.Time
}

const (
	keepConn    = 60 * time.Second  // an unused connection is kept for so long by who dialled
	dropConn    = 150 * time.Second // and by who was dialled
	keepConns   = 4                 // per peer: entries, heartbeats, pulse, a vote
	keepMessage = 1 << 20           // bytes of a buffer that is kept for the next message
)

// refusalError is the peer's own error.
type refusalError struct{ msg string }

func (e *refusalError) Error() string { return e.msg }

// call sends a request and reads the answer. A kept connection that turns out to be dead is replaced once:
// every message may be sent twice.
func (t *transport) call(id string, addr hraft.ServerAddress, limit time.Duration, request func([]byte) []byte, content io.Reader, answer func([]byte) error) error {
	return t.callDialling(id, addr, t.limit, limit, request, content, answer)
}

// callDialling is call with a limit of its own for a connection that must be made first.
func (t *transport) callDialling(id string, addr hraft.ServerAddress, dial, limit time.Duration, request func([]byte) []byte, content io.Reader, answer func([]byte) error) error {
	deadline := time.Now().Add(limit)
	for {
		conn, kept, err := t.conn(id, addr, dial)
		if err != nil {
			return err
		}
		err = conn.exchange(deadline, request, content, answer)
		var refusal *refusalError
		if err == nil || errors.As(err, &refusal) {
			t.keep(id, conn)
			return err
		}
		t.drop(conn.Conn)
		if !kept || content != nil || errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

func (c *wireConn) exchange(deadline time.Time, request func([]byte) []byte, content io.Reader, answer func([]byte) error) error {
	if err := c.SetDeadline(deadline); err != nil {
		return err
	}
	c.out = request(c.out)
	if _, err := c.Write(c.out); err != nil {
		return err
	}
	if cap(c.out) > keepMessage {
		c.out = nil
	}
	if content != nil {
		if err := c.send(content); err != nil {
			return err
		}
	}
	var err error
	if c.in, err = readFrame(c.r, c.in); err != nil {
		return err
	}
	if c.in[0] != 0 {
		return &refusalError{msg: string(c.in[1:])}
	}
	return answer(c.in[1:])
}

// send writes content in chunks; the last one is empty.
func (c *wireConn) send(content io.Reader) error {
	chunk := make([]byte, 5+256<<10)
	for {
		n, err := io.ReadFull(content, chunk[5:])
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		frame := beginFrame(chunk, msgChunk)[:5+n]
		if err := c.SetDeadline(time.Now().Add(snapshotPatience)); err != nil {
			return err
		}
		if _, werr := c.Write(endFrame(frame)); werr != nil {
			return werr
		}
		if n == 0 {
			// The peer makes the state its own before it answers.
			return c.SetDeadline(time.Now().Add(6 * snapshotPatience))
		}
	}
}

// conn returns a kept connection to a peer, or a new one.
func (t *transport) conn(id string, addr hraft.ServerAddress, limit time.Duration) (conn *wireConn, kept bool, err error) {
	t.mu.Lock()
	for n := len(t.idle[id]); n > 0; n = len(t.idle[id]) {
		c := t.idle[id][n-1]
		t.idle[id] = t.idle[id][:n-1]
		if time.Since(c.used) < keepConn {
			t.mu.Unlock()
			return c, true, nil
		}
		delete(t.open, c.Conn)
		_ = c.Close()
	}
	t.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(t.stop, limit, errors.New("dial timed out"))
	defer cancel()
	raw, err := t.dialer.dial(ctx, hostOf(addr), hello{purpose: forRaft, cluster: t.cluster, from: t.self, to: id, host: t.host})
	if err != nil {
		return nil, false, err
	}
	if !t.track(raw) {
		return nil, false, errors.Join(errStopping, raw.Close())
	}
	return &wireConn{Conn: raw, r: bufio.NewReaderSize(raw, 16<<10)}, false, nil
}

// keep puts a connection back for the next call.
func (t *transport) keep(id string, c *wireConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || len(t.idle[id]) >= keepConns {
		delete(t.open, c.Conn)
		_ = c.Close()
		return
	}
	c.used = time.Now()
	t.idle[id] = append(t.idle[id], c)
}

// track has a connection closed when the transport is; false if it is already.
func (t *transport) track(conn net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.open[conn] = struct{}{}
	return true
}

func (t *transport) drop(conn net.Conn) {
	t.mu.Lock()
	delete(t.open, conn)
	t.mu.Unlock()
	_ = conn.Close()
}

// stand makes raft stand for election at once.
func (t *transport) stand() error {
	replies := make(chan hraft.RPCResponse, 1)
	header := hraft.RPCHeader{ProtocolVersion: hraft.ProtocolVersionMax, ID: []byte(t.self), Addr: []byte(t.LocalAddr())}
	select {
	case t.consumer <- hraft.RPC{Command: &hraft.TimeoutNowRequest{RPCHeader: header}, RespChan: replies}:
		return nil
	case <-t.stop.Done():
		return errStopping
	}
}

var (
	_ hraft.Transport   = (*transport)(nil)
	_ hraft.WithPreVote = (*transport)(nil)
	_ hraft.WithClose   = (*transport)(nil)
	_                   = fmt.Sprint
)
