package election

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/locum-ha/locum/physical"
)

// The world of the simulation: a queue of what happens when, nodes with clocks of their own, and a network that
// loses, delays and repeats. Everything follows from the seed.

const simTTL = time.Second

type itemKind uint8

const (
	itArrive   itemKind = iota // a call reaches the store
	itAnswer                   // an answer reaches a node
	itTick                     // a node's timer
	itThaw                     // a frozen node goes on
	itCallback                 // a callback returns
	itAppStart                 // within Activate the application is started
	itGuardian                 // the guardian looks at the deadline
	itAppEnd                   // the application's processes have ended
	itWork                     // the active node does something
	itWrite                    // a write reaches the store
	itExpiry                   // the lock may have run out
	itRestart                  // a crashed or stopped node comes back
	itChaos                    // something is done to the world
)

// item is something that will happen.
type item struct {
	at    int64
	order uint64
	kind  itemKind
	node  int
	life  int    // of the node for which it is meant
	term  uint64 // of the leadership, or of the application
	eff   *effect
	ev    event
	fence physical.Fence
}

type world struct {
	seed  uint64
	mut   mutation
	rng   *rand.Rand
	now   int64
	order uint64
	queue []*item
	spare []*item
	nodes []*simNode
	store simStore
	chaos bool
	ends  int64 // of the chaos

	pace                               time.Duration // at most between two disturbances
	loss, slow, fault, freeze, forgets float64

	owner    map[uint64]int // who raised the fence to a term
	topTerm  uint64         // of all activations
	written  uint64         // term of the last write accepted
	actives  int
	failure  error
	log      []string
	tracing  bool
	steps    int
	cutLock  []int64 // per node: until when its calls to the lock are lost
	cutStore []int64
}

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

func (w *world) upTo(d time.Duration) int64 { return w.rng.Int64N(int64(d)) + 1 }

func (w *world) trace(format string, args ...any) {
	if w.tracing {
		w.log = append(w.log, fmt.Sprintf("%9.3f ", float64(w.now)/1e6)+fmt.Sprintf(format, args...))
	}
}

func (w *world) fail(format string, args ...any) {
	if w.failure == nil {
		w.failure = fmt.Errorf(format, args...)
		w.trace("FAILED: %v", w.failure)
	}
}

// errPromise marks a failure that a user would suffer from; others are the simulation's own checks.
var errPromise = errors.New("promise broken")

func (w *world) broken(format string, args ...any) {
	w.fail("%w: "+format, append([]any{errPromise}, args...)...)
}

// at puts an item into the queue.
func (w *world) at(t int64, it item) {
	var p *item
	if n := len(w.spare); n > 0 {
		p, w.spare = w.spare[n-1], w.spare[:n-1]
	} else {
		p = new(item)
	}
	*p = it
	w.order++
	p.at, p.order = max(t, w.now), w.order
	q := append(w.queue, p)
	i := len(q) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !p.before(q[up]) {
			break
		}
		q[i] = q[up]
		i = up
	}
	q[i] = p
	w.queue = q
}

func (p *item) before(o *item) bool { return p.at < o.at || p.at == o.at && p.order < o.order }

func (w *world) pop() *item {
	q := w.queue
	top, last := q[0], q[len(q)-1]
	q = q[:len(q)-1]
	i := 0
	for {
		c := 2*i + 1
		if c >= len(q) {
			break
		}
		if c+1 < len(q) && q[c+1].before(q[c]) {
			c++
		}
		if !q[c].before(last) {
			break
		}
		q[i] = q[c]
		i = c
	}
	if len(q) > 0 {
		q[i] = last
	}
	w.queue = q
	return top
}

// runUntil lets the world go on until t, or until a promise is broken.
func (w *world) runUntil(t int64) {
	for w.failure == nil && len(w.queue) > 0 && w.queue[0].at <= t {
		it := w.pop()
		w.now = it.at
		w.handle(it)
		*it = item{}
		w.spare = append(w.spare, it)
	}
	w.now = max(w.now, t)
}

func (w *world) handle(it *item) {
	var n *simNode
	if it.kind != itExpiry && it.kind != itChaos {
		n = w.nodes[it.node]
		if it.kind != itArrive && it.kind != itWrite && it.kind != itAppEnd && it.kind != itRestart && it.life != n.life {
			return // meant for an earlier life
		}
	}
	switch it.kind {
	case itArrive:
		w.arrive(it)
	case itAnswer:
		n.deliver(it.ev)
	case itTick:
		if n.tickAt == it.at {
			n.tickAt = 0
			n.deliver(event{kind: evTick})
		}
	case itThaw:
		n.thaw()
	case itCallback:
		n.callbackEnds(it)
	case itAppStart:
		n.startApp(it.term)
	case itGuardian:
		n.guard(it.term)
	case itAppEnd:
		if n.app == it.term {
			n.app = 0
		}
	case itWork:
		n.work(it.term)
	case itWrite:
		w.write(it)
	case itExpiry:
		w.store.changed()
	case itRestart:
		n.boot()
	case itChaos:
		w.disturb()
	}
}

// send lets a call travel to the store.
func (w *world) send(n *simNode, e effect) {
	d := w.latency()
	lost := w.chaos && w.chance(w.loss)
	if e.kind == doFence || e.kind == doRaise {
		lost = lost || w.now < w.cutStore[n.index]
	} else {
		lost = lost || w.now < w.cutLock[n.index]
	}
	if lost {
		w.trace("%s: lost on the way: %s", n.id, effectNames[e.kind])
		return
	}
	w.at(w.now+d, item{kind: itArrive, node: n.index, life: n.life, eff: &e})
}

// latency is short, except in chaos now and then: then it can be longer than the lock lasts.
func (w *world) latency() int64 {
	d := w.upTo(2 * time.Millisecond)
	if w.chaos && w.chance(w.slow) {
		d += w.upTo(time.Duration(1) << (20 + w.rng.IntN(11))) // 1 ms … 1 s
	}
	return d
}

var storeFaults = []error{physical.ErrUnavailable, physical.ErrUnknown, errors.New("some other error")}

func (w *world) arrive(it *item) {
	e := it.eff
	if w.chaos && w.chance(w.fault) {
		err := storeFaults[w.rng.IntN(len(storeFaults))]
		if errors.Is(err, physical.ErrUnknown) && w.chance(0.7) {
			w.store.do(it.node, it.life, e) // carried out all the same
		}
		w.reply(it.node, it.life, e, event{err: err})
		return
	}
	if ev, answered := w.store.do(it.node, it.life, e); answered {
		w.reply(it.node, it.life, e, ev)
	}
}

// reply lets an answer travel back: perhaps not at all, perhaps twice.
func (w *world) reply(node, life int, e *effect, ev event) {
	ev = answerOf(e, ev)
	if e.kind == doAcquire {
		w.order++
		ev.nonce[0], ev.nonce[1], ev.nonce[2], ev.nonce[3] = byte(node), byte(w.order), byte(w.order>>8), byte(w.order>>16)
		ev.lineage = "sim"
	}
	if w.tracing {
		w.trace("%s: %s → %v %v", w.nodes[node].id, effectNames[e.kind], show(ev), ev.err)
	}
	if w.chaos && w.chance(w.loss) {
		return
	}
	if w.chaos && (w.now < w.cutStore[node] && (e.kind == doFence || e.kind == doRaise) || w.now < w.cutLock[node] && e.kind != doFence && e.kind != doRaise) {
		return
	}
	w.at(w.now+w.latency(), item{kind: itAnswer, node: node, life: life, ev: ev})
	twice := 0.1
	if w.mut == mutStaleAnswers {
		twice = 0.5
	}
	if w.chaos && w.chance(twice) {
		w.at(w.now+w.latency()+w.upTo(simTTL/2), item{kind: itAnswer, node: node, life: life, ev: ev})
	}
}

func show(ev event) string {
	switch ev.kind {
	case evAcquired, evRenewed:
		return fmt.Sprintf("term %d", ev.grant.Term())
	case evFence:
		return fmt.Sprintf("fence %d", ev.fence.Term)
	case evRecord:
		return fmt.Sprintf("{%s %d next=%s}", ev.record.Holder, ev.record.Term, ev.record.Next)
	}
	return ""
}

// The promises.

// raised checks P4: whoever still has a lease while another raises the fence would answer with what may be old.
func (w *world) raised(by int, to physical.Fence) {
	if _, taken := w.owner[to.Term]; taken {
		w.broken("P1: the fence was raised to term %d twice", to.Term)
	}
	w.owner[to.Term] = by
	w.trace("fence raised to %d by %s", to.Term, w.nodes[by].id)
	for _, n := range w.nodes {
		if n.valid() && n.lease.term != to.Term {
			w.broken("P4: %s has a valid lease of term %d while the fence is raised to %d", n.id, n.lease.term, to.Term)
		}
	}
}

// write checks P1: accepted are only writes of the term that the fence stands at, by the node that raised it.
func (w *world) write(it *item) {
	if it.fence != w.store.fence {
		return // refused
	}
	if o, ok := w.owner[it.fence.Term]; !ok || o != it.node {
		w.broken("P1: a write of term %d by %s, who did not raise the fence to it", it.fence.Term, w.nodes[it.node].id)
	}
	if it.fence.Term < w.written {
		w.broken("P1: a write of term %d after one of term %d", it.fence.Term, w.written)
	}
	w.written = it.fence.Term
}

// opened checks P2 and P4 when a lease begins.
func (w *world) opened(n *simNode, term uint64) {
	if !n.valid() {
		return
	}
	if term <= w.topTerm {
		w.broken("terms: %s activates in term %d after %d", n.id, term, w.topTerm)
	}
	w.topTerm = max(w.topTerm, term)
	if w.owner[term] != n.index {
		w.broken("P1: %s activates in term %d without having raised the fence", n.id, term)
	}
	for _, o := range w.nodes {
		if o != n && o.valid() {
			w.broken("P2: leases of %s (term %d) and %s (term %d) are valid at once", n.id, term, o.id, o.lease.term)
		}
	}
}

// bounded checks P2 and P4 at their root: a lease never outlasts the lock, in real time, as its holder's clock goes.
func (w *world) bounded(n *simNode) {
	if n.lease.deadline == never || n.real(n.lease.deadline) > w.store.ends[binary.BigEndian.Uint64(n.s.lead.grant.Token)] {
		w.broken("P2: the lease of %s (term %d) outlasts its lock", n.id, n.lease.term)
	}
}

// started checks P2 when an application begins.
func (w *world) started(n *simNode) {
	for _, o := range w.nodes {
		if o != n && o.app != 0 {
			w.broken("P2: the application runs on %s (term %d) and %s (term %d) at once", n.id, n.app, o.id, o.app)
		}
	}
}
