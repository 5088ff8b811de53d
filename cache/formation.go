package cache

import (
	"fmt"
	"math/rand/v2"
)

// How a cluster forms, and when a node gives its data up, is decided here, without clock and network: step
// takes what a node knows and what happened, and returns what it knows then and what it is to do.
//
// A node is seeking or bound. Seeking, it asks all hosts how things are, and
//   - joins a cluster that is open, that is: whose leader has a majority of the hosts with it;
//   - else joins the founder with the lowest place in the list that waits for others;
//   - else founds, if it has the lowest place among those that seek, and they are a majority of the hosts with
//     the same list: the others cannot have an open cluster then.
//
// Bound to a cluster, a node takes part in no other, until it empties itself: then it seeks again, under a
// new identity. A cluster acknowledges nothing before a majority of the hosts is bound to it; hence at most
// one cluster can, whoever founded how many. A bound node empties itself when it has not heard of an open
// leader of its cluster for long, or learns that there cannot be one any more.
//
// Invariants: a node's identity is bound to one cluster at most; a node that hears of an open leader of its
// own cluster stays.

// formation is what a node knows of itself and of the others.
type formation struct {
	self    int // place in the list
	quorum  int
	list    uint64 // hash of the list
	patient int64  // milliseconds without an open leader after which a bound node empties itself
	grace   int64  // milliseconds that a founder waits for the hosts that do not answer
	fresh   int64  // milliseconds for which an answer counts

	bound    bool
	cluster  string
	founder  bool
	opened   bool  // its cluster was open
	silent   int64 // milliseconds of running without an open leader, since bound
	several  int64 // when a majority of seekers was seen first, 0 for not
	last     int64 // the last tick
	views    []view
	mismatch string // a host with another list
}

// view is what a host answered last.
type view struct {
	at      int64 // when it answered, milliseconds; 0 if it does not
	id      string
	list    uint64
	bound   bool
	cluster string
	founder bool // it waits for others to join
	open    bool // it hears of an open leader now
	leader  string
	host    string // the leader's
}

// Events.
type (
	// evTick: time has passed. open tells whether an open leader of the own cluster is heard of.
	evTick struct {
		now  int64
		open bool
	}
	// evView: a host answered, or did not (at is 0).
	evView struct {
		host int
		view view
	}
)

// Effects.
type (
	effFound struct{}
	effJoin  struct{ cluster string }
	effEmpty struct{ reason string }
)

// maxTick is how much one tick may count, in milliseconds: a process that was frozen is given the time to
// hear of the others before it drops what it has. (It shows nothing of it meanwhile, see Node.view.)
const maxTick = 250

func step(s formation, ev any) (formation, []any) {
	switch ev := ev.(type) {
	case evView:
		if ev.host != s.self && ev.host >= 0 && ev.host < len(s.views) {
			views := append([]view(nil), s.views...)
			views[ev.host] = ev.view
			s.views = views
		}
		return s, nil
	case evTick:
		passed := min(max(ev.now-s.last, 0), maxTick)
		s.last = ev.now
		if s.bound {
			return s.stay(passed, ev.open)
		}
		return s.seek()
	}
	return s, nil
}

// live reports whether a host's answer is recent.
func (s *formation) live(v view) bool { return v.at != 0 && s.last-v.at <= s.fresh }

// stay decides whether a bound node stays bound.
func (s formation) stay(passed int64, open bool) (formation, []any) {
	if open {
		s.opened, s.silent = true, 0
		return s, nil
	}
	s.silent += passed
	elsewhere, lower := 0, false
	for i, v := range s.views {
		if i == s.self || !s.live(v) {
			continue
		}
		if v.open && v.cluster != s.cluster {
			return s.empty("another cluster has a majority of the hosts")
		}
		if !v.bound || v.cluster != s.cluster {
			elsewhere++
		}
		lower = lower || v.founder && v.cluster != s.cluster && i < s.self
	}
	switch {
	case s.opened && len(s.views)-elsewhere < s.quorum:
		return s.empty("a majority of the hosts has been restarted")
	case s.founder && !s.opened && lower:
		return s.empty("another host founds a cluster too")
	case s.silent >= s.patience():
		return s.empty("no contact to a leader that has a majority of the hosts")
	}
	return s, nil
}

// patience is a little different on each host, so that founders that block each other do not go on to.
func (s *formation) patience() int64 {
	if s.opened {
		return s.patient
	}
	return s.patient + s.patient*int64(s.self)/int64(2*len(s.views))
}

func (s formation) empty(reason string) (formation, []any) {
	s.bound, s.cluster, s.founder, s.opened, s.silent, s.several = false, "", false, false, 0, 0
	return s, []any{effEmpty{reason}}
}

// seek decides what a node that is not bound does.
func (s formation) seek() (formation, []any) {
	founder, open := -1, ""
	seekers, lowest := 1, true
	s.mismatch = ""
	for i, v := range s.views {
		if i == s.self || !s.live(v) {
			continue
		}
		if v.open && (open == "" || v.cluster < open) {
			open = v.cluster
		}
		if v.list != s.list {
			s.mismatch = fmt.Sprint(i)
			continue
		}
		if v.founder && !v.open && founder < 0 {
			founder = i
		}
		if !v.bound {
			seekers++
			lowest = lowest && i > s.self
		}
	}
	switch {
	case open != "":
		return s.bind(open, false, effJoin{open})
	case s.mismatch != "":
		s.several = 0
		return s, nil // founding would make a cluster of half of each list
	case founder >= 0:
		return s.bind(s.views[founder].cluster, false, effJoin{s.views[founder].cluster})
	case seekers < s.quorum:
		s.several = 0
		return s, nil
	}
	if s.several == 0 {
		s.several = max(s.last, 1)
	}
	if lowest && (seekers == len(s.views) || s.last-s.several >= s.grace) {
		return s.bind("", true, effFound{})
	}
	return s, nil
}

func (s formation) bind(cluster string, founder bool, effect any) (formation, []any) {
	s.bound, s.cluster, s.founder, s.opened, s.silent, s.several = true, cluster, founder, false, 0, 0
	return s, []any{effect}
}

// seat is one server of raft's configuration, as the leader sees it.
type seat struct {
	id     string
	host   int // place in the list, -1 if it is not listed
	voter  bool
	ready  bool // it has caught up and answers
	latest bool // the host's newest incarnation
}

// change is what a leader does next about the seats.
type change struct {
	promote, remove string
}

// nextSeat says which seat to give or to take away next, if any. A seat is stale when its host runs a newer
// incarnation or is not listed any more. One stale seat is taken away at once, which lets the others decide
// among themselves; a second one only after a newcomer got one: so there are always at least as many seats as
// hosts, but one, and a commit is on a majority of the hosts.
func nextSeat(seats []seat, hosts int, self string) change {
	voters := 0
	for _, s := range seats {
		if s.voter {
			voters++
		}
	}
	for _, s := range seats {
		if s.id == self || s.latest && s.host >= 0 {
			continue
		}
		if !s.voter || voters >= hosts {
			return change{remove: s.id}
		}
	}
	for _, s := range seats {
		if !s.voter && s.latest && s.host >= 0 && s.ready && voters < hosts {
			return change{promote: s.id}
		}
	}
	return change{}
}

// jitter spreads polls a little.
func jitter(d int64) int64 { return d - d/4 + rand.Int64N(d/2+1) }
