package cache

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	hraft "github.com/hashicorp/raft"
)

// snapshots is raft's snapshot store, which stores none: the newest "snapshot" is the state itself, captured
// at the moment when it is opened to be sent. One that arrives is made a state while it arrives.
type snapshots struct {
	fsm      *fsm
	events   *events
	sent     func(c *capture)
	taken    func(c *capture, bytes int64, took time.Duration)
	arrived  func(p *parcel)
	mu       sync.Mutex
	newest   *hraft.SnapshotMeta
	sequence uint64
}

// parcel is a state that arrives.
type parcel struct {
	meta    hraft.SnapshotMeta
	store   *snapshots
	st      *state
	table   *table
	buf     []byte
	entries uint64
	bytes   int64
	began   time.Time
	whole   bool
}

// Create begins a snapshot: raft's own marker, or one that arrives.
func (s *snapshots) Create(version hraft.SnapshotVersion, index, term uint64, config hraft.Configuration, configIndex uint64, _ hraft.Transport) (hraft.SnapshotSink, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sequence++
	return &parcel{store: s, st: newState(s.events), began: time.Now(), meta: hraft.SnapshotMeta{
		Version: version, ID: fmt.Sprint(s.sequence), Index: index, Term: term, Configuration: config, ConfigurationIndex: configIndex,
	}}, nil
}

// List returns the newest snapshot.
func (s *snapshots) List() ([]*hraft.SnapshotMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.newest == nil {
		return nil, nil
	}
	return []*hraft.SnapshotMeta{s.newest}, nil
}

// Open opens the snapshot that has just arrived, for [fsm.Restore], or else the state as it is now.
func (s *snapshots) Open(id string) (*hraft.SnapshotMeta, io.ReadCloser, error) {
	s.fsm.mu.Lock()
	p := s.fsm.received[id]
	s.fsm.mu.Unlock()
	if p != nil {
		return &p.meta, io.NopCloser(strings.NewReader(id)), nil
	}
	c := s.fsm.capture()
	s.sent(c)
	return &c.meta, &capturedReader{capture: c, began: time.Now(), taken: s.taken}, nil
}

// ID implements hraft.SnapshotSink.
func (p *parcel) ID() string { return p.meta.ID }

// Cancel implements hraft.SnapshotSink.
func (p *parcel) Cancel() error { return nil }

// Write takes a part of a state in.
func (p *parcel) Write(b []byte) (int, error) {
	p.bytes += int64(len(b))
	p.buf = append(p.buf, b...)
	rest := p.buf
	for {
		n, size := binary.Uvarint(rest)
		if size < 0 || n > maxFrame {
			return 0, fmt.Errorf("%w state", errFormat)
		}
		if size == 0 || n > uint64(len(rest)-size) {
			break
		}
		if err := p.block(rest[size : size+int(n)]); err != nil {
			return 0, err
		}
		rest = rest[size+int(n):]
	}
	p.buf = append(p.buf[:0], rest...)
	return len(b), nil
}

// Close makes the snapshot the newest.
func (p *parcel) Close() error {
	if p.bytes > 0 && (!p.whole || len(p.buf) > 0) {
		return errors.New("the state has not arrived as a whole")
	}
	p.store.mu.Lock()
	p.store.newest = &p.meta
	p.store.mu.Unlock()
	if p.bytes > 0 {
		p.store.fsm.mu.Lock()
		p.store.fsm.received[p.meta.ID] = p
		p.store.fsm.mu.Unlock()
		p.store.arrived(p)
	}
	return nil
}

func (p *parcel) block(b []byte) error {
	d := decoder{b: b}
	switch kind := d.byte(); kind {
	case blockHead:
		if format := d.byte(); format != stateFormat {
			return fmt.Errorf("a state of format %d, this version knows %d", format, stateFormat)
		}
		p.st.clock.Store(d.varint())
		p.st.ahead.Store(p.st.clock.Load() - now()/int64(time.Millisecond))
		rev := d.uvarint()
		if r := p.st.declare(d.bytes()); r.Err != nil {
			return r.Err
		}
		p.st.rev.Store(rev)
	case blockTable:
		if p.table = p.st.make(d.string()); p.table == nil {
			return fmt.Errorf("%w state", errFormat)
		}
		p.table.tombs.floor = d.uvarint()
		for range d.count(2) {
			key := d.string()
			p.table.tombs.add(key, d.uvarint())
		}
		p.table.evictions.Store(d.uvarint())
		p.table.expired.Store(d.uvarint())
	case blockEntries:
		for len(d.b) > 0 && p.table != nil {
			key, value := d.bytes(), d.bytes()
			e := newEntry(string(key), value)
			e.version, e.expires, e.origin = d.uvarint(), d.varint(), uint32(d.uvarint())
			if !d.bad {
				p.table.set(e, p.table.get(e.key))
				p.entries++
			}
		}
	case blockEnd:
		p.whole = d.uvarint() == p.entries
	default:
		return fmt.Errorf("%w state", errFormat)
	}
	return d.end("state")
}

// declaration returns what was declared, as it goes with a state.
func (s *state) declaration() []byte {
	d := s.declared.Load()
	b, err := json.Marshal(declaration{Caches: d.caches, Default: d.fallback, Hosts: s.hosts, HostsAt: s.hostsAt})
	if err != nil { // numbers and strings: it cannot fail
		return nil
	}
	return b
}
