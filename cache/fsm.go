package cache

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	hraft "github.com/hashicorp/raft"
)

// fsm is raft's view of the state.
type fsm struct {
	order  sync.Mutex // held from choosing what is applied next until it is
	mu     sync.Mutex // with order: held while a batch is applied, or the state is captured as a whole
	st     *state
	log    *memLog
	over   *overlays
	agreed func([]string) // told of the list of hosts that was declared
	index  uint64         // of the last entry applied
	term   uint64

	config   hraft.Configuration // committed
	configAt uint64

	names    map[string]string // of caches, each once
	room     []Op              // for the operations of a batch; with order
	progress progress
	next     atomic.Int64 // when the next entry expires, in the log's milliseconds; 0 for never

	replaced func(*state)                                 // the state was replaced as a whole
	failed   func(error)                                  // an entry cannot be understood
	carried  func(term, id, index uint64, out []response) // a batch was carried out
	received map[string]*parcel                           // states that arrived, by snapshot id
}

// roomOps is how many operations of a batch are decoded without memory of their own.
const roomOps = 64

func newFSM(ev *events, log *memLog) *fsm {
	f := &fsm{st: newState(ev), log: log, names: map[string]string{}, room: make([]Op, roomOps), received: map[string]*parcel{}}
	f.progress.changed = make(chan struct{})
	f.carried = func(uint64, uint64, uint64, []response) {}
	return f
}

// Apply carries out a log entry, unless that was done early: then it has no answer.
func (f *fsm) Apply(log *hraft.Log) any {
	f.order.Lock()
	defer f.order.Unlock()
	if log.Index > f.index {
		f.apply(log)
	}
	return nil
}

// carry carries out the log up to index, which is known to be committed in a term before raft says so.
func (f *fsm) carry(term, index uint64) {
	if index <= f.progress.at.Load() {
		return
	}
	f.order.Lock()
	defer f.order.Unlock()
	if index <= f.index {
		return
	}
	var e hraft.Log
	if f.log.GetLog(index, &e) != nil || e.Term != term {
		return
	}
	for i := f.index + 1; i <= index; i++ {
		if f.log.GetLog(i, &e) != nil {
			return // raft brings it
		}
		switch e.Type {
		case hraft.LogCommand:
			if !f.apply(&e) {
				return
			}
		case hraft.LogConfiguration:
			f.storeConfiguration(i, hraft.DecodeConfiguration(e.Data))
		}
	}
}

func (f *fsm) apply(log *hraft.Log) bool {
	b, err := decodeBatch(log.Data, f.names, f.room)
	if err != nil {
		f.failed(fmt.Errorf("entry %d: %w", log.Index, err))
		return false
	}
	f.mu.Lock()
	out := f.st.apply(b)
	f.st.applied.Store(log.Index)
	f.index, f.term = log.Index, log.Term
	f.next.Store(f.st.nextExpiry())
	f.mu.Unlock()
	used := 0
	for i := range b.requests {
		used += len(b.requests[i].ops)
	}
	clear(f.room[:min(used, len(f.room))]) // what they pointed to is not kept for them
	f.progress.advance(log.Index)
	f.carried(log.Term, b.id, log.Index, out)
	return true
}

// StoreConfiguration notes a committed configuration: a captured state goes with it.
func (f *fsm) StoreConfiguration(index uint64, config hraft.Configuration) {
	f.order.Lock()
	defer f.order.Unlock()
	if index > f.index {
		f.storeConfiguration(index, config)
	}
}

func (f *fsm) storeConfiguration(index uint64, config hraft.Configuration) {
	f.mu.Lock()
	f.config, f.configAt = config, index
	var entry hraft.Log
	if f.log.GetLog(index, &entry) == nil {
		f.index, f.term = index, entry.Term
	}
	f.mu.Unlock()
	f.progress.advance(index)
}

// Snapshot costs nothing: the state that it stands for is captured when somebody needs it.
func (f *fsm) Snapshot() (hraft.FSMSnapshot, error) { return marker{}, nil }

// Restore puts the state that has arrived in the place of the present one.
func (f *fsm) Restore(content io.ReadCloser) error {
	id, err := io.ReadAll(content)
	if err != nil {
		return err
	}
	f.order.Lock()
	defer f.order.Unlock()
	f.mu.Lock()
	p := f.received[string(id)]
	clear(f.received)
	if p == nil {
		f.mu.Unlock()
		return fmt.Errorf("snapshot %s is not here", id)
	}
	f.st, f.config, f.configAt = p.st, p.meta.Configuration, p.meta.ConfigurationIndex
	f.index, f.term = p.meta.Index, p.meta.Term
	f.log.begin(f.config, f.configAt)
	f.st.over, f.st.agreed = f.over, f.agreed
	if f.agreed != nil && len(f.st.hosts) > 0 {
		f.agreed(f.st.hosts)
	}
	f.st.applied.Store(f.index)
	f.next.Store(f.st.nextExpiry())
	f.mu.Unlock()
	f.replaced(p.st)
	f.progress.advance(f.index)
	return nil
}

// marker is a snapshot that holds nothing.
type marker struct{}

// Persist closes the sink.
func (marker) Persist(sink hraft.SnapshotSink) error { return sink.Close() }

// Release does nothing.
func (marker) Release() {}

// progress is how far the log is applied.
type progress struct {
	at      atomic.Uint64
	waiting atomic.Int32
	mu      sync.Mutex
	changed chan struct{}
}

func (p *progress) advance(index uint64) {
	p.at.Store(index)
	if p.waiting.Load() > 0 {
		p.mu.Lock()
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
	}
}

// wait returns when the log is applied up to index.
func (p *progress) wait(ctx context.Context, index uint64) error {
	if p.at.Load() >= index {
		return nil
	}
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	for {
		p.mu.Lock()
		changed := p.changed
		p.mu.Unlock()
		if p.at.Load() >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// A state travels as blocks: a length and the content, which begins with its kind. The entries of a table
// come in the order of their last write.
const (
	blockHead    byte = 'H' // format, clock, version, declaration
	blockTable   byte = 'T' // name, tombs, evictions, expirations
	blockEntries byte = 'E'
	blockEnd     byte = 'Z' // number of entries, all tables together

	stateFormat = 1
	blockSize   = 64 << 10
)

// capture is the state at one moment. The entries are shared; they do not change.
type capture struct {
	meta   hraft.SnapshotMeta
	head   []byte
	tables []capturedTable
	total  uint64
}

type capturedTable struct {
	head    []byte
	entries []*entry
}

// capture takes the state as it is now. Nothing is applied meanwhile.
func (f *fsm) capture() *capture {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &capture{meta: hraft.SnapshotMeta{
		Version: hraft.SnapshotVersionMax, Index: f.index, Term: f.term, Configuration: f.config.Clone(), ConfigurationIndex: f.configAt,
	}}
	st := f.st
	c.head = append(c.head, blockHead, stateFormat)
	c.head = binary.AppendVarint(c.head, st.clock.Load())
	c.head = binary.AppendUvarint(c.head, st.rev.Load())
	c.head = appendBytes(c.head, st.declaration())
	for _, t := range st.order {
		h := appendBytes([]byte{blockTable}, t.name)
		h = binary.AppendUvarint(h, t.tombs.floor)
		tombs := t.tombs.all()
		h = binary.AppendUvarint(h, uint64(len(tombs)))
		for _, tomb := range tombs {
			h = binary.AppendUvarint(appendBytes(h, tomb.key), tomb.version)
		}
		h = binary.AppendUvarint(binary.AppendUvarint(h, t.evictions.Load()), t.expired.Load())
		entries := make([]*entry, 0, t.count.Load())
		for e := t.oldest; e != nil; e = e.newer {
			entries = append(entries, e)
		}
		c.tables = append(c.tables, capturedTable{head: h, entries: entries})
		c.total += uint64(len(entries))
	}
	return c
}

// capturedReader turns a capture into blocks as it is read.
type capturedReader struct {
	*capture
	table, entry int
	state        int // 0: the head is next, 1: tables, 2: all is said
	out, rest    []byte
	block        []byte
	bytes        int64
	began        time.Time
	taken        func(c *capture, bytes int64, took time.Duration) // told at the end, once; may be nil
}

// Read implements io.Reader.
func (r *capturedReader) Read(b []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.state == 2 {
			if r.taken != nil {
				r.taken(r.capture, r.bytes, time.Since(r.began))
				r.taken = nil
			}
			return 0, io.EOF
		}
		r.next()
	}
	n := copy(b, r.rest)
	r.rest, r.bytes = r.rest[n:], r.bytes+int64(n)
	return n, nil
}

// Close implements io.Closer.
func (r *capturedReader) Close() error { return nil }

func (r *capturedReader) next() {
	block := r.block[:0]
	switch {
	case r.state == 0:
		block, r.state, r.entry = append(block, r.head...), 1, -1
	case r.table == len(r.tables):
		block, r.state = binary.AppendUvarint(append(block, blockEnd), r.total), 2
	case r.entry < 0:
		block, r.entry = append(block, r.tables[r.table].head...), 0
	default:
		entries := r.tables[r.table].entries
		block = append(block, blockEntries)
		for r.entry < len(entries) && len(block) < blockSize {
			e := entries[r.entry]
			block = appendBytes(appendBytes(block, e.key), e.value)
			block = binary.AppendUvarint(block, e.version)
			block = binary.AppendVarint(block, e.expires)
			block = binary.AppendUvarint(block, uint64(e.origin))
			r.entry++
		}
		if r.entry == len(entries) {
			r.table, r.entry = r.table+1, -1
		}
	}
	r.block = block
	r.out = append(binary.AppendUvarint(r.out[:0], uint64(len(block))), block...)
	r.rest = r.out
}
