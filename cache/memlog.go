package cache

import (
	"errors"
	"sync"

	hraft "github.com/hashicorp/raft"
)

// memLog is raft's log, term and vote in memory: it ends with the incarnation. Entries lie in a slice; what
// was cut off at the front is given back from time to time.
type memLog struct {
	stored func(entries []*hraft.Log) // told before StoreLogs returns; nil for none

	mu     sync.RWMutex
	first  uint64 // index of logs[0]
	logs   []hraft.Log
	bytes  int64
	config hraft.Configuration // the latest in the log, or in what came before it
	cfgAt  uint64
	older  []configAt // those before, still in the log
	seen   uint64     // index of the last entry that the state will see: a command or a configuration

	stable map[string][]byte
	number map[string]uint64
}

type configAt struct {
	index  uint64
	config hraft.Configuration
}

func newMemLog() *memLog {
	return &memLog{stable: map[string][]byte{}, number: map[string]uint64{}}
}

// logCost is what an entry costs beyond its data.
const logCost = 128

// FirstIndex returns the first index kept, 0 for none.
func (l *memLog) FirstIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if len(l.logs) == 0 {
		return 0, nil
	}
	return l.first, nil
}

// LastIndex returns the last index kept, 0 for none.
func (l *memLog) LastIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if len(l.logs) == 0 {
		return 0, nil
	}
	return l.first + uint64(len(l.logs)) - 1, nil
}

// GetLog reads an entry.
func (l *memLog) GetLog(index uint64, log *hraft.Log) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if len(l.logs) == 0 || index < l.first || index >= l.first+uint64(len(l.logs)) {
		return hraft.ErrLogNotFound
	}
	*log = l.logs[index-l.first]
	return nil
}

// StoreLog appends an entry.
func (l *memLog) StoreLog(log *hraft.Log) error { return l.StoreLogs([]*hraft.Log{log}) }

// StoreLogs appends entries.
func (l *memLog) StoreLogs(logs []*hraft.Log) error {
	l.mu.Lock()
	for _, e := range logs {
		switch next := l.first + uint64(len(l.logs)); {
		case len(l.logs) == 0:
			l.first = e.Index
		case e.Index != next:
			l.mu.Unlock()
			return errors.New("a gap in the log")
		}
		l.logs = append(l.logs, *e)
		l.bytes += int64(len(e.Data)) + logCost
		if e.Type == hraft.LogCommand || e.Type == hraft.LogConfiguration {
			l.seen = e.Index
		}
		if e.Type == hraft.LogConfiguration {
			l.older = append(l.older, configAt{l.cfgAt, l.config})
			l.config, l.cfgAt = hraft.DecodeConfiguration(e.Data), e.Index
		}
	}
	l.mu.Unlock()
	if l.stored != nil {
		l.stored(logs)
	}
	return nil
}

// since fills a message with the entries after from, up to last, and returns their size; false if they are not all there.
func (l *memLog) since(from, last uint64, m *hraft.AppendEntriesRequest) (size int, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if from < l.first || last <= from || last >= l.first+uint64(len(l.logs)) {
		return 0, false
	}
	m.PrevLogTerm = l.logs[from-l.first].Term
	part := l.logs[from+1-l.first : last+1-l.first]
	m.Entries = make([]*hraft.Log, len(part))
	for i := range part {
		if part[i].Type != hraft.LogCommand || part[i].Term != m.Term {
			return 0, false
		}
		m.Entries[i] = &part[i]
		size += len(part[i].Data) + 32
	}
	return size, true
}

// DeleteRange drops entries from the front or from the end.
func (l *memLog) DeleteRange(from, to uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.logs) == 0 {
		return nil
	}
	last := l.first + uint64(len(l.logs)) - 1
	from, to = max(from, l.first), min(to, last)
	if from > to {
		return nil
	}
	for i := from; i <= to; i++ {
		l.bytes -= int64(len(l.logs[i-l.first].Data)) + logCost
	}
	switch {
	case from == l.first:
		kept := l.logs[to-l.first+1:]
		l.logs = append(make([]hraft.Log, 0, len(kept)+len(kept)/4+64), kept...)
		l.first = to + 1
		for len(l.older) > 1 && l.older[1].index <= to {
			l.older = l.older[1:]
		}
	case to == last:
		clear(l.logs[from-l.first:])
		l.logs = l.logs[:from-l.first]
		l.seen = min(l.seen, from-1)
		for i := len(l.logs) - 1; i >= 0; i-- {
			if t := l.logs[i].Type; t == hraft.LogCommand || t == hraft.LogConfiguration {
				l.seen = l.logs[i].Index
				break
			}
		}
		for l.cfgAt >= from && len(l.older) > 0 {
			n := len(l.older) - 1
			l.cfgAt, l.config = l.older[n].index, l.older[n].config
			l.older = l.older[:n]
		}
	default:
		return errors.New("a hole in the log")
	}
	return nil
}

// IsMonotonic says that gaps are not possible: raft empties the log before a snapshot takes its place.
func (l *memLog) IsMonotonic() bool { return true }

// latest returns the configuration that the log ends with, and its index.
func (l *memLog) latest() (hraft.Configuration, uint64) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.config, l.cfgAt
}

// last returns the index of the last entry that the state will see.
func (l *memLog) last() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.seen
}

// begin sets the configuration that a snapshot brought.
func (l *memLog) begin(config hraft.Configuration, index uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if index >= l.cfgAt {
		l.config, l.cfgAt, l.older = config, index, nil
	}
}

// usage returns entries and bytes kept.
func (l *memLog) usage() (entries, bytes int64) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return int64(len(l.logs)), l.bytes
}

// keepable returns how many of the last entries fit into so many bytes.
func (l *memLog) keepable(bytes int64) uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for i := len(l.logs) - 1; i >= 0; i-- {
		if bytes -= int64(len(l.logs[i].Data)) + logCost; bytes < 0 {
			return uint64(len(l.logs) - 1 - i)
		}
	}
	return uint64(len(l.logs))
}

var errNoValue = errors.New("not found") // raft compares the text

// Set keeps a value of raft's.
func (l *memLog) Set(key, val []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stable[string(key)] = append([]byte(nil), val...)
	return nil
}

// Get returns it.
func (l *memLog) Get(key []byte) ([]byte, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if v, ok := l.stable[string(key)]; ok {
		return v, nil
	}
	return nil, errNoValue
}

// SetUint64 keeps a number of raft's.
func (l *memLog) SetUint64(key []byte, val uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.number[string(key)] = val
	return nil
}

// GetUint64 returns it.
func (l *memLog) GetUint64(key []byte) (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if v, ok := l.number[string(key)]; ok {
		return v, nil
	}
	return 0, errNoValue
}
