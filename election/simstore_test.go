package election

import (
	"encoding/binary"

	"github.com/locum-ha/locum/physical"
)

// The stores of the simulation: a lock and a fence that do what their contracts say, in real time, which no node knows.

type storeKind int

const (
	watchedLock storeKind = iota // the store's own expiry, and it wakes standbys
	polledLock                   // the store's own expiry, and nothing else
	rowLock                      // no expiry: each client has to see the row unchanged for a TTL on its own clock
	raftLock                     // chooses a leader, who alone can hold the lock; it yields
	storeKinds
)

func (k storeKind) String() string {
	return [...]string{"watched lock", "polled lock", "row lock", "raft lock"}[k]
}

type simStore struct {
	w    *world
	kind storeKind

	rec     physical.Record
	token   uint64           // of the grant in force
	tokens  uint64           // given so far
	until   int64            // real time at which the lock runs out
	ends    map[uint64]int64 // until, of every grant
	version uint64           // of the row: renewals change it too
	rows    []rowSeen

	leader int   // raft: which node; -1: none
	beat   int64 // raft: nobody else is elected before this

	fence    physical.Fence
	watchers []watcher
}

// rowSeen is what a client of the row lock remembers.
type rowSeen struct {
	version uint64
	since   instant
}

type watcher struct {
	node, life int
	eff        effect
}

func tokenOf(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// view is the record as node i's client sees it.
func (s *simStore) view(i int) physical.Record {
	r := s.rec
	if r.Holder == "" {
		return r
	}
	free := false
	switch s.kind {
	case watchedLock, polledLock:
		free = s.w.now >= s.until
	case rowLock:
		c := &s.rows[i]
		local := s.w.nodes[i].local()
		if c.since == 0 || c.version != s.version {
			*c = rowSeen{s.version, local}
		}
		free = local.Sub(c.since) >= simTTL
	case raftLock:
		free = s.leader == i && s.w.nodes[i].id != r.Holder || s.leader == i && s.w.now >= s.until
	}
	if free {
		r.Holder, r.Next, r.Name = "", "", ""
	}
	return r
}

// holds reports whether the grant is in force.
func (s *simStore) holds(i int, g physical.Grant) bool {
	if s.rec.Holder == "" || binary.BigEndian.Uint64(g.Token) != s.token {
		return false
	}
	switch s.kind {
	case watchedLock, polledLock:
		return s.w.now < s.until
	case raftLock:
		return s.leader == i && s.w.now < s.until
	}
	return true // a row: until somebody overwrites it
}

// do carries out a call and returns its answer; answered is false for a watch that waits.
func (s *simStore) do(i, life int, e *effect) (ev event, answered bool) {
	switch e.kind {
	case doHolder:
		ev.record = s.view(i)
		if ev.record.Holder == "" {
			ev.err = physical.ErrNoHolder
		}
	case doWatch:
		r := s.view(i)
		if r == e.record && !(s.kind == raftLock && r.Holder == "" && s.leader == i && s.w.chance(0.5)) {
			s.watchers = append(s.watchers, watcher{i, life, *e})
			return ev, false
		}
		ev.record = r
	case doAcquire:
		ev.grant, ev.err = s.acquire(i, e)
	case doRenew:
		ev.grant, ev.err = e.grant, s.renew(i, e.grant)
	case doRelease:
		if s.holds(i, e.grant) {
			s.rec.Holder, s.rec.Name, s.rec.Next = "", "", ev.next
			s.rec.Next = e.next
			s.version++
			s.changed()
		}
		ev.next = e.next
	case doFence:
		ev.fence = s.fence
	case doRaise:
		ev.err = s.raise(i, e)
	case doYield:
		if s.kind == raftLock && s.leader == i && (s.rec.Holder == "" || s.w.now >= s.until) {
			s.elect(s.w.rng.IntN(len(s.w.nodes)))
		}
	}
	return ev, true
}

func (s *simStore) acquire(i int, e *effect) (physical.Grant, error) {
	if s.kind == raftLock && s.leader != i {
		return physical.Grant{}, physical.ErrUnavailable
	}
	if r := s.view(i); r.Holder != "" {
		return physical.Grant{}, &physical.HeldError{Record: r}
	}
	r := e.record
	r.Term = max(s.rec.Term, e.above) + 1
	s.tokens++
	s.rec, s.token = r, s.tokens
	s.version++
	s.prolong()
	s.changed()
	return physical.Grant{Record: r, TTL: simTTL, Token: tokenOf(s.token)}, nil
}

func (s *simStore) renew(i int, g physical.Grant) error {
	if !s.holds(i, g) {
		if s.w.mut == mutRevive {
			s.rec, s.token = g.Record, binary.BigEndian.Uint64(g.Token)
			s.version++
			s.prolong()
			s.changed()
			return nil
		}
		return physical.ErrLost
	}
	s.version++
	s.prolong()
	return nil
}

// prolong lets the lock last for a TTL from now, never less, sometimes a little more.
func (s *simStore) prolong() {
	s.until = s.w.now + int64(simTTL)
	if s.kind != raftLock && s.w.chaos && s.w.chance(0.2) {
		s.until += s.w.upTo(simTTL / 5)
	}
	s.beat = s.until
	s.ends[s.token] = s.until
	if s.kind == watchedLock {
		s.w.at(s.until, item{kind: itExpiry})
	}
}

func (s *simStore) raise(i int, e *effect) error {
	if s.fence != e.fence || !e.fence.Below(e.to) {
		return physical.ErrFenced
	}
	s.fence = e.to
	s.w.raised(i, e.to)
	return nil
}

// elect makes node i the raft leader: possible only when no lease can be in force.
func (s *simStore) elect(i int) {
	s.leader = i
	s.changed()
}

// changed wakes those who watch.
func (s *simStore) changed() {
	waiting := s.watchers
	s.watchers = nil
	for _, c := range waiting {
		r := s.view(c.node)
		if r == c.eff.record && !(s.kind == raftLock && s.leader == c.node) {
			s.watchers = append(s.watchers, c)
			continue
		}
		s.w.reply(c.node, c.life, &c.eff, event{record: r})
	}
}

// forget loses the lock and the last term: what the contract forbids and what a wiped store does.
func (s *simStore) forget() {
	s.rec, s.token, s.until = physical.Record{}, 0, 0
	s.version++
	s.changed()
}
