package cache

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
)

// EventKind is what happened to an entry.
type EventKind uint8

const (
	Changed EventKind = iota + 1 // written; Key, Value and Version are the new ones
	Removed                      // by an operation
	Expired
	Evicted
	Cleared   // all entries of the cache are gone
	Published // a message; Key is its channel, Value its content
	Missed    // changes were lost here: the subscriber was too slow, or the node received the state as a whole, or emptied itself
)

// Event is one change, as this node applied it. Events come in the order of the log.
type Event struct {
	Kind    EventKind
	Cache   string
	Key     string
	Value   []byte // shared: do not change it
	Version uint64
}

// bufferBytes is how many bytes of keys and values may wait for a subscriber (P12).
const bufferBytes = 64 << 20

func (ev *Event) size() int { return len(ev.Key) + len(ev.Value) }

// Filter says which events a subscription gets. Missed comes to all.
type Filter struct {
	Cache    string // changes in this cache; "" for none
	Prefix   string // of the keys
	Messages bool   // published messages too
	Buffer   int    // events that may wait. Default: 4096. Of keys and values at most 64 MiB wait, but one event always may
}

// Subscription is a queue of events. A subscriber that is too slow loses all that waits and gets one Missed.
type Subscription struct {
	filter Filter
	owner  *events

	mu     sync.Mutex
	queue  []Event
	bytes  int // of what is in it
	missed bool
	ready  chan struct{} // one token when something waits
	closed chan struct{}
	once   sync.Once
}

// Next returns the next event. It waits for one, at most until ctx ends; [ErrClosed] after Close.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		if ev, ok := s.take(); ok {
			return ev, nil
		}
		select {
		case <-s.ready:
		case <-s.closed:
			return Event{}, ErrClosed
		case <-ctx.Done():
			return Event{}, context.Cause(ctx)
		}
	}
}

func (s *Subscription) take() (Event, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.missed {
		s.missed = false
		return Event{Kind: Missed}, true
	}
	if len(s.queue) == 0 {
		return Event{}, false
	}
	ev := s.queue[0]
	s.queue[0] = Event{}
	s.bytes -= ev.size()
	if s.queue = s.queue[1:]; len(s.queue) == 0 {
		s.queue = nil
	}
	return ev, true
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.once.Do(func() {
		s.owner.remove(s)
		close(s.closed)
	})
}

func (s *Subscription) put(ev Event) {
	s.mu.Lock()
	switch {
	case ev.Kind == Missed || len(s.queue) >= s.filter.Buffer || len(s.queue) > 0 && s.bytes+ev.size() > bufferBytes:
		s.queue, s.bytes, s.missed = nil, 0, true
	default:
		s.queue = append(s.queue, ev)
		s.bytes += ev.size()
	}
	s.mu.Unlock()
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

func (f *Filter) wants(cache, key string) bool {
	return f.Cache == cache && f.Cache != "" && strings.HasPrefix(key, f.Prefix)
}

// events is all subscriptions of a node.
type events struct {
	count atomic.Int32
	mu    sync.Mutex
	subs  map[*Subscription]struct{}
}

func newEvents() *events { return &events{subs: map[*Subscription]struct{}{}} }

func (e *events) add(f Filter) *Subscription {
	if f.Buffer <= 0 {
		f.Buffer = 4096
	}
	s := &Subscription{filter: f, owner: e, ready: make(chan struct{}, 1), closed: make(chan struct{})}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.subs[s] = struct{}{}
	e.count.Store(int32(len(e.subs)))
	return s
}

func (e *events) remove(s *Subscription) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.subs, s)
	e.count.Store(int32(len(e.subs)))
}

func (e *events) change(cache string, kind EventKind, en *entry) {
	if e == nil || e.count.Load() == 0 {
		return
	}
	ev := Event{Kind: kind, Cache: cache}
	if en != nil {
		ev.Key, ev.Version = en.key, en.version
		if kind == Changed {
			ev.Value = en.bytes()
		} else {
			ev.Key = strings.Clone(en.key) // en.key keeps the value, too
		}
	}
	e.send(ev, func(f *Filter) bool { return f.wants(cache, ev.Key) || kind == Cleared && f.Cache == cache })
}

func (e *events) message(channel string, content []byte) {
	if e == nil || e.count.Load() == 0 {
		return
	}
	ev := Event{Kind: Published, Key: channel, Value: append([]byte(nil), content...)}
	e.send(ev, func(f *Filter) bool { return f.Messages })
}

func (e *events) missed() {
	e.send(Event{Kind: Missed}, func(*Filter) bool { return true })
}

func (e *events) send(ev Event, wants func(*Filter) bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for s := range e.subs {
		if wants(&s.filter) {
			s.put(ev)
		}
	}
}
