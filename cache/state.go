package cache

import (
	"encoding/json"
	"errors"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// state is all caches, as the log made them: the same log gives the same state on every node, evictions,
// expiries and versions included. One goroutine applies; any number read.
type state struct {
	tables atomic.Pointer[map[string]*table] // copied when a cache is added

	txn     sync.RWMutex  // held while a batch is applied; by reads of several keys too
	clock   atomic.Int64  // the log's time, milliseconds: it never goes back
	rev     atomic.Uint64 // the last version given
	applied atomic.Uint64 // index of the last entry applied
	ahead   atomic.Int64  // add now() in milliseconds for an estimate of the log's time at this moment

	declared atomic.Pointer[declaredOptions] // by the leader
	hosts    []string                        // declared: the list by which a majority is counted
	hostsAt  uint64                          // the version at which it was
	agreed   func([]string)                  // told of a new list; may be nil
	order    []*table                        // by name: what is done to all is done in the same order everywhere
	events   *events
	over     *overlays // told of what is removed; may be nil
}

// declaredOptions are the options of the caches, and of those that have none of their own. They do not change.
type declaredOptions struct {
	caches   map[string]Options
	fallback Options
}

func newState(ev *events) *state {
	s := &state{events: ev}
	s.tables.Store(&map[string]*table{})
	s.setOptions(nil, Options{}.withDefaults())
	s.ahead.Store(math.MinInt64 / 2) // nothing is known of the log's time
	return s
}

func (s *state) setOptions(caches map[string]Options, fallback Options) {
	s.declared.Store(&declaredOptions{caches, fallback})
}

func (s *state) table(name string) *table { return (*s.tables.Load())[name] }

// make returns the table, a new one if need be; nil if there are too many.
func (s *state) make(name string) *table {
	if t := s.table(name); t != nil {
		return t
	}
	old := *s.tables.Load()
	if len(old) >= maxCaches || checkName(name) != nil {
		return nil
	}
	next := maps.Clone(old)
	t := newTable(name, s.optionsOf(name))
	next[name] = t
	s.tables.Store(&next)
	at, _ := slices.BinarySearchFunc(s.order, name, func(t *table, name string) int { return strings.Compare(t.name, name) })
	s.order = slices.Insert(s.order, at, t)
	return t
}

// boundsOf returns a cache's options, from any goroutine.
func (s *state) boundsOf(name string) Options {
	if t := s.table(name); t != nil {
		return t.bounds()
	}
	return s.optionsOf(name)
}

func (s *state) optionsOf(name string) Options {
	d := s.declared.Load()
	if o, ok := d.caches[name]; ok {
		return o
	}
	return d.fallback
}

// live returns the entry unless it has expired by the log's time.
func (s *state) live(t *table, key string) *entry {
	if t == nil {
		return nil
	}
	e := t.get(key)
	if e == nil || e.expires != 0 && e.expires <= s.clock.Load() {
		return nil
	}
	return e
}

// request is what goes into the log as one: an operation, or a transaction.
type request struct {
	watch []Watch
	ops   []Op
}

// size is about how many bytes it takes in the log.
func (r *request) size() int {
	n := 16
	for i := range r.watch {
		n += len(r.watch[i].Cache) + len(r.watch[i].Key) + 16
	}
	for i := range r.ops {
		n += len(r.ops[i].Cache) + len(r.ops[i].Key) + len(r.ops[i].Value) + len(r.ops[i].Expect) + 32
	}
	return n
}

// response is what came of it. conflict: a watched key has changed, and nothing was done.
type response struct {
	conflict bool
	results  []Result
}

// values is how many bytes of values there are.
func (r *response) values() int {
	n := 0
	for i := range r.results {
		n += len(r.results[i].Value)
	}
	return n
}

// batch is the content of one log entry.
type batch struct {
	id       uint64
	stamp    int64 // the leader's time, milliseconds
	requests []request
}

// expireStep is how many expired entries are taken out before a batch at most; the others are invisible
// until their turn comes.
const expireStep = 4096

// apply carries a batch out. Nothing in it may depend on anything but the state and the batch.
func (s *state) apply(b *batch) []response {
	s.txn.Lock()
	defer s.txn.Unlock()
	s.clock.Store(max(s.clock.Load(), b.stamp))
	if a := s.clock.Load() - now()/int64(time.Millisecond); a > s.ahead.Load() { // never back: the entry may have been on its way for long
		s.ahead.Store(a)
	}
	s.expire()
	out := make([]response, len(b.requests))
	results := make([]Result, 0, len(b.requests))
	for i := range b.requests {
		r := &b.requests[i]
		if len(r.ops) == 1 && len(r.watch) == 0 {
			results = append(results, s.op(&r.ops[0]))
			out[i].results = results[len(results)-1 : len(results) : len(results)]
			continue
		}
		out[i] = s.transaction(r)
	}
	return out
}

func (s *state) transaction(r *request) response {
	for _, w := range r.watch {
		var version uint64
		if e := s.live(s.table(w.Cache), w.Key); e != nil {
			version = e.version
		}
		if version != w.Version {
			return response{conflict: true}
		}
	}
	out := response{results: make([]Result, len(r.ops))}
	room := maxTxn // bytes of the values that are answered (P12)
	for i := range r.ops {
		op, result := &r.ops[i], &out.results[i]
		if op.Kind == OpGet || op.WantOld {
			if e := s.live(s.table(op.Cache), op.Key); e != nil && len(e.value) > room {
				*result = Result{Found: true, Version: e.version, Err: ErrTooLarge}
				continue
			}
		}
		if *result = s.op(op); len(result.Value) > room { // nobody asked for it
			result.Value = nil
		}
		room -= len(result.Value)
	}
	return out
}

func (s *state) op(op *Op) Result {
	switch op.Kind {
	case opTick:
		return Result{Done: true}
	case opDeclare:
		return s.declare(op.Value)
	case OpPublish:
		s.events.message(op.Key, op.Value)
		return Result{Done: true}
	case OpGet, OpDelete, OpTouch, OpClear:
		t := s.table(op.Cache)
		if t == nil && op.removes() {
			t = s.make(op.Cache)
		}
		if t == nil {
			return Result{Done: op.removes()}
		}
		return s.onTable(t, op)
	}
	t := s.make(op.Cache)
	if t == nil {
		return Result{Err: ErrTooLarge}
	}
	return s.onTable(t, op)
}

// removes reports whether an operation removes what is not there. A direct put of it that was made before may yet come: the table, a new
// one if need be, remembers it.
func (op *Op) removes() bool {
	return op.Kind == OpClear || op.Kind == OpDelete && (op.If == Always || op.If == IfAbsent || op.If == IfVersion && op.Version == 0)
}

func (s *state) onTable(t *table, op *Op) Result {
	if op.Kind == OpClear {
		return s.clearTable(t)
	}
	old := s.live(t, op.Key)
	var r Result
	if old != nil {
		r.Found, r.Version = true, old.version
	}
	if !s.holds(t, op, old) {
		s.describe(&r, old)
		return r
	}
	switch op.Kind {
	case OpGet:
		s.describe(&r, old)
		r.Done = r.Found
	case OpPut:
		s.put(t, op, old, &r)
	case OpDelete:
		if op.WantOld {
			s.describe(&r, old)
		}
		r.Done = true
		if old != nil {
			s.drop(t, old, Removed)
		} else {
			s.over.removed(t.name, op.Key)
		}
		t.tombs.add(op.Key, s.rev.Add(1)) // also of a key that was not there: a direct put of it may be on its way
	case OpTouch:
		if op.WantOld {
			s.describe(&r, old)
		}
		if old != nil {
			r.Done = true
			r.Version = s.store(t, old, &entry{key: old.key, value: old.value, expires: s.expires(t, op.TTL, old), place: -1})
		}
	case OpIncrement:
		s.increment(t, op, old, &r)
	case OpAppend:
		s.append(t, op, old, &r)
	default:
		r.Err = ErrInvalid
	}
	return r
}

// holds reports whether the operation's condition does.
func (s *state) holds(t *table, op *Op, old *entry) bool {
	switch op.If {
	case IfAbsent:
		return old == nil
	case IfPresent:
		return old != nil
	case IfVersion:
		return old != nil && old.version == op.Version || old == nil && op.Version == 0
	case IfValue:
		return old != nil && old.value == string(op.Expect)
	case IfExpires, IfLasting:
		return old != nil && (old.expires != 0) == (op.If == IfExpires)
	case IfLonger:
		ends := s.expires(t, op.TTL, old)
		return old != nil && old.expires != 0 && (ends == 0 || ends > old.expires)
	case IfShorter, IfSooner:
		ends := s.expires(t, op.TTL, old)
		return old != nil && (old.expires == 0 && op.If == IfShorter || old.expires != 0 && ends != 0 && ends < old.expires)
	}
	return true
}

func (s *state) describe(r *Result, e *entry) {
	if e == nil {
		return
	}
	r.Value, r.TTL = e.bytes(), s.left(e)
}

// left returns what is left of an entry's time.
func (s *state) left(e *entry) time.Duration {
	if e.expires == 0 {
		return NoExpiry
	}
	return max(time.Duration(e.expires-s.clock.Load())*time.Millisecond, time.Millisecond)
}

// expires returns when an entry that is written now expires.
func (s *state) expires(t *table, ttl time.Duration, old *entry) int64 {
	if ttl == KeepTTL && old != nil {
		return old.expires
	}
	if ttl == KeepTTL {
		return 0
	}
	if ttl == DefaultTTL {
		ttl = t.bounds().DefaultTTL
	}
	if ttl <= 0 {
		return 0
	}
	ms := max(int64(ttl/time.Millisecond), 1)
	if ms > math.MaxInt64-s.clock.Load() {
		return 0
	}
	return s.clock.Load() + ms
}

func (s *state) put(t *table, op *Op, old *entry, r *Result) {
	var origin uint32
	if op.from != "" {
		origin = hashOrigin(op.from)
		if !fits(t, op, t.get(op.Key), origin) { // one that has expired is newer all the same
			s.describe(r, old)
			return
		}
		if op.ends != 0 && op.ends <= s.clock.Load() {
			s.passed(t, op, r)
			return
		}
	}
	if op.WantOld {
		s.describe(r, old)
	}
	e := newEntry(op.Key, op.Value)
	e.expires, e.origin = op.ends, origin
	if origin == 0 {
		e.expires = s.expires(t, op.TTL, old)
	}
	if e.size() > t.bounds().MaxBytes {
		r.Err = ErrTooLarge
		return
	}
	r.Version, r.Done = s.store(t, old, e), true
}

// passed carries a direct put out that has expired on its way: what it replaces is gone as it is itself, and was on its node.
func (s *state) passed(t *table, op *Op, r *Result) {
	if old := t.get(op.Key); old != nil {
		s.drop(t, old, Expired)
	}
	r.Version, r.Done = s.rev.Add(1), true
	t.tombs.add(op.Key, r.Version)
}

// fits reports whether a direct put may take its place: no write is in the log that its writer had not seen.
func fits(t *table, op *Op, old *entry, origin uint32) bool {
	if old != nil {
		return old.version <= op.base || old.origin == origin
	}
	return t.tombs.last(op.Key) <= op.base
}

func hashOrigin(id string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))
	return h.Sum32() | 1
}

func (s *state) increment(t *table, op *Op, old *entry, r *Result) {
	var n int64
	ttl := op.TTL
	if old != nil {
		var err error // digits as they would be written here, and no others, as Redis has it: no "+1", no "01"
		if n, err = strconv.ParseInt(old.value, 10, 64); err != nil || strconv.FormatInt(n, 10) != old.value {
			r.Err = ErrNotNumber
			return
		}
		ttl = KeepTTL
	}
	if op.Delta > 0 && n > math.MaxInt64-op.Delta || op.Delta < 0 && n < math.MinInt64-op.Delta {
		r.Err = ErrOverflow
		return
	}
	n += op.Delta
	e := newEntry(op.Key, strconv.AppendInt(nil, n, 10))
	e.expires = s.expires(t, ttl, old)
	r.Version, r.Number, r.Done = s.store(t, old, e), n, true
}

func (s *state) append(t *table, op *Op, old *entry, r *Result) {
	value, ttl := op.Value, op.TTL
	if old != nil {
		value, ttl = append(append(make([]byte, 0, len(old.value)+len(op.Value)), old.value...), op.Value...), KeepTTL
	}
	e := newEntry(op.Key, value)
	if len(value) > maxValue || e.size() > t.bounds().MaxBytes {
		r.Err = ErrTooLarge
		return
	}
	e.expires = s.expires(t, ttl, old)
	r.Version, r.Number, r.Done = s.store(t, old, e), int64(len(value)), true
}

// store puts e in the place of old and makes room for it.
func (s *state) store(t *table, old, e *entry) uint64 {
	e.version = s.rev.Add(1)
	if old == nil {
		if stale := t.get(e.key); stale != nil { // expired, and not taken out yet
			s.drop(t, stale, Expired)
		}
	}
	t.set(e, old)
	s.events.change(t.name, Changed, e)
	for t.count.Load() > t.bounds().MaxEntries || t.size.Load() > t.bounds().MaxBytes {
		victim := t.oldest
		if len(t.expiry) > 0 && t.expiry[0].expires <= s.clock.Load() {
			victim = t.expiry[0]
		}
		if victim == nil || victim == e {
			break
		}
		s.drop(t, victim, Evicted)
	}
	return e.version
}

func (s *state) drop(t *table, e *entry, kind EventKind) {
	t.remove(e)
	switch kind {
	case Removed:
		s.over.removed(t.name, e.key)
	case Evicted, Expired: // a direct put that is older than it may be on its way
		t.tombs.add(strings.Clone(e.key), e.version) // e.key keeps the value, too
		if kind == Evicted {
			t.evictions.Add(1)
		} else {
			t.expired.Add(1)
		}
	}
	s.events.change(t.name, kind, e)
}

func (s *state) clearTable(t *table) Result {
	n := t.count.Load()
	t.clear()
	t.tombs.reset(s.rev.Add(1))
	s.over.cleared(t.name)
	s.events.change(t.name, Cleared, nil)
	return Result{Done: true, Number: n}
}

// expire takes out what has expired by the log's time, up to expireStep entries.
func (s *state) expire() {
	now, left := s.clock.Load(), expireStep
	for _, t := range s.order {
		for left > 0 && len(t.expiry) > 0 && t.expiry[0].expires <= now {
			s.drop(t, t.expiry[0], Expired)
			left--
		}
	}
}

// nextExpiry returns when the next entry expires, 0 if none does. For the goroutine that applies.
func (s *state) nextExpiry() int64 {
	var next int64
	for _, t := range s.order {
		if len(t.expiry) > 0 && (next == 0 || t.expiry[0].expires < next) {
			next = t.expiry[0].expires
		}
	}
	return next
}

// declaration is what the leader says when it begins: how the caches are bounded.
type declaration struct {
	Caches  map[string]Options `json:"caches"`
	Default Options            `json:"default"`
	Hosts   []string           `json:"hosts"`
	Base    uint64             `json:"base,omitempty"`     // versions begin above it
	HostsAt uint64             `json:"hosts_at,omitempty"` // in a state that travels: the version at which they were declared
}

func (s *state) declare(data []byte) Result {
	var d declaration
	if err := json.Unmarshal(data, &d); err != nil {
		return Result{Err: errors.Join(ErrInvalid, err)}
	}
	s.setOptions(d.Caches, d.Default)
	s.rev.Store(max(s.rev.Load(), d.Base))
	if len(d.Hosts) > 0 && !slices.Equal(d.Hosts, s.hosts) {
		s.hosts, s.hostsAt = d.Hosts, s.rev.Add(1)
		if d.HostsAt != 0 {
			s.hostsAt = d.HostsAt
		}
		if s.agreed != nil {
			s.agreed(d.Hosts)
		}
	}
	for _, t := range s.order {
		o := s.optionsOf(t.name)
		t.options.Store(&o)
	}
	return Result{Done: true}
}
