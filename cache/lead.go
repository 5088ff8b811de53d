package cache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	hraft "github.com/hashicorp/raft"
)

// lead is this node's leadership of one term: it puts the requests that wait into one log entry, while those
// before are on their way (see flight.go).
type lead struct {
	m       *member
	term    uint64
	ctx     context.Context
	cancel  context.CancelCauseFunc
	base    int64         // the log's time when the leadership began, milliseconds
	began   int64         // see now
	ready   atomic.Uint64 // index of the declaration, once it is applied
	open    atomic.Bool   // a majority of the hosts is there and has applied the declaration
	pulses  map[string]context.CancelFunc
	wake    chan struct{} // pulses now; closed and replaced
	wakeMu  sync.Mutex
	reading sync.Mutex
	reads   *readRound // that has not begun

	mu      sync.Mutex
	queue   []*pending
	bytes   int
	stopped bool
	more    sync.Cond // on mu: the lane has something to do
	waits   bool      // the lane does, for that

	aloft    []*flight
	expected int          // the next entry waits for so many requests,
	patience int64        // until then, if no other is on its way; see now
	order    sync.Mutex   // held from taking requests until their entry has its place in the log
	flying   chan *flight // all that took off, to be asked how they ended
	alarm    *time.Timer  // wakes the lane when patience ends

	early earlyAnswers
	work  sync.WaitGroup
}

const (
	batchBytes = 1 << 20 // an entry may grow so far by gathering
	// Requests that wait are bounded (P12).
	queueEntries = 64 << 10
	queueBytes   = 128 << 20
)

// pending is a request on its way.
type pending struct {
	data  []byte // the request as it goes into an entry
	level Level
	done  chan outcome // of a local caller; has room for one
	id    uint64       // of a forwarded one
	conn  *writeServer
	taken atomic.Bool // it has been answered
}

// outcome is the answer to a request.
type outcome struct {
	resp  response
	index uint64
	err   error
}

func (p *pending) finish(out outcome) {
	if !p.taken.CompareAndSwap(false, true) {
		return
	}
	if p.done != nil {
		p.done <- out
		return
	}
	p.conn.answer(p.id, out)
}

// errNotLeader: certainly not done; the new leader may be asked.
var errNotLeader = fmt.Errorf("%w: this node does not lead the cache", ErrNotDone)

// submit takes a request in; its finish will be called.
func (l *lead) submit(p *pending) {
	l.mu.Lock()
	switch {
	case l.stopped || !l.open.Load():
		l.mu.Unlock()
		p.finish(outcome{err: errNotLeader})
		return
	case len(l.queue) >= queueEntries || l.bytes+len(p.data) > queueBytes && len(l.queue) > 0:
		l.mu.Unlock()
		p.finish(outcome{err: fmt.Errorf("%w: %w", ErrNotDone, ErrBusy)})
		return
	}
	l.queue = append(l.queue, p)
	l.bytes += len(p.data)
	due := l.due()
	if due && p.done == nil && l.waits { // who sent this one may have sent more
		l.more.Signal()
	}
	l.mu.Unlock()
	if due && p.done != nil {
		l.fly()
	}
}

// withdraw takes a request out of the queue, if it is still there.
func (l *lead) withdraw(p *pending) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, q := range l.queue {
		if q == p {
			l.queue = append(l.queue[:i], l.queue[i+1:]...)
			l.bytes -= len(p.data)
			return true
		}
	}
	return false
}

// stop refuses what waits. What is on its way is answered by raft.
func (l *lead) stop() {
	l.mu.Lock()
	l.stopped = true
	queue := l.queue
	l.queue, l.bytes = nil, 0
	l.more.Broadcast()
	l.mu.Unlock()
	for _, p := range queue {
		p.finish(outcome{err: errNotLeader})
	}
}

func (l *lead) applied(index uint64) (bool, <-chan struct{}) {
	hosts := l.m.hostList()
	return l.m.book.appliedBy(l.m.id, hosts, len(hosts)/2+1, index)
}

// failure translates raft's errors.
func (l *lead) failure(err error) error {
	switch {
	case errors.Is(err, hraft.ErrNotLeader), errors.Is(err, hraft.ErrEnqueueTimeout), errors.Is(err, hraft.ErrLeadershipTransferInProgress):
		return errNotLeader
	}
	return fmt.Errorf("%w: %w", ErrUnknown, err)
}

// time is the log's time by this leader's clock.
func (l *lead) time() int64 { return l.base + (now()-l.began)/int64(time.Millisecond) }

// command puts a request of the leader's own through the log.
func (l *lead) command(op Op) (uint64, error) {
	r := request{ops: []Op{op}}
	defer l.m.trans.hurry()()
	f := l.m.raft.Apply(appendRequest(l.entry(l.m.batchID.Add(1), 1, 64), &r), l.m.cfg.ElectionTimeout)
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return f.Index(), err
	case <-l.m.quiet: // see watch
		return 0, errStopping
	}
}

// earlyAnswers answers the requests that are content with less than a quorum, from the log.
type earlyAnswers struct {
	mu      sync.Mutex
	batches map[uint64]*earlyBatch // by id
	once    []*earlyBatch          // in the log, by index
}

type earlyBatch struct {
	index    uint64
	requests []*pending
}

func (e *earlyAnswers) begin(id uint64, batch []*pending) {
	var b *earlyBatch
	for _, p := range batch {
		if p.level == Once || p.level == Leader || p.level == Direct {
			if b == nil {
				b = &earlyBatch{}
			}
			b.requests = append(b.requests, p)
		}
	}
	if b == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.batches == nil {
		e.batches = map[uint64]*earlyBatch{}
	}
	e.batches[id] = b
}

func (e *earlyAnswers) end(id uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.batches[id]
	if b == nil {
		return
	}
	delete(e.batches, id)
	for i, o := range e.once {
		if o == b {
			e.once = append(e.once[:i], e.once[i+1:]...)
			break
		}
	}
}

// stored: the leader's own log has these entries now.
func (e *earlyAnswers) stored(logs []*hraft.Log) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.batches) == 0 {
		return
	}
	for _, log := range logs {
		if log.Type != hraft.LogCommand || len(log.Data) < batchHead {
			continue
		}
		b := e.batches[binary.LittleEndian.Uint64(log.Data[1:])]
		if b == nil || b.index != 0 {
			continue
		}
		b.index = log.Index
		e.once = append(e.once, b)
		b.answer(Leader)
	}
}

// acked: another voter has the log up to index.
func (e *earlyAnswers) acked(index uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.once) > 0 && e.once[0].index <= index {
		e.once[0].answer(Once)
		e.once = e.once[1:]
	}
}

// answer answers the requests of one level. The results are not known yet.
func (b *earlyBatch) answer(level Level) {
	for _, p := range b.requests {
		if p.level == level {
			p.finish(outcome{index: b.index})
		}
	}
}

// readRound is one confirmation of the leadership, for all reads that came before it began.
type readRound struct {
	done  chan struct{}
	index uint64
	err   error
}

// readIndex returns up to where a node must have applied the log for a read that begins now, this one too: after a
// majority of the hosts has confirmed that they know of no later leader.
func (l *lead) readIndex(ctx context.Context) (uint64, error) {
	l.reading.Lock()
	r := l.reads
	if r == nil {
		r = &readRound{done: make(chan struct{})}
		if !l.m.background(func() { l.confirm(r) }) {
			l.reading.Unlock()
			return 0, errNotLeader
		}
		l.reads = r
	}
	l.reading.Unlock()
	select {
	case <-r.done:
		return r.index, r.err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

func (l *lead) confirm(r *readRound) {
	defer close(r.done)
	l.reading.Lock()
	l.reads = nil // who comes from here on needs another round
	l.reading.Unlock()
	if !l.open.Load() {
		r.err = errNotLeader
		return
	}
	begin := now()
	// Not what is applied here: a follower may have applied an entry before this node knows that it is
	// committed (see commitEarly), and who has read it there must read it everywhere. It is in this node's log.
	r.index = l.m.log.last()
	if next := l.m.fsm.next.Load(); next != 0 && next <= l.time() {
		if r.index, r.err = l.command(Op{Kind: opTick}); r.err != nil {
			r.err = errNotLeader
			return
		}
	}
	l.nudge()
	ctx, cancel := context.WithTimeoutCause(l.ctx, l.m.cfg.ElectionTimeout, errTimeout)
	defer cancel()
	r.err = l.m.book.await(ctx, func() (bool, <-chan struct{}) {
		l.m.book.mu.Lock()
		changed := l.m.book.changed
		l.m.book.mu.Unlock()
		hosts := l.m.hostList()
		return l.m.book.since(l.m.id, hosts, len(hosts)/2+1) >= begin, changed
	})
	if r.err != nil {
		r.err = errNotLeader
	}
}
