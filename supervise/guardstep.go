package supervise

import (
	"slices"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
)

// guard is what the guardian knows. Invariants: a release happens only when no tree is left and the node is gone; nothing but what goes
// beyond the lease is started at or after killAt, and nothing once the node is gone.
type guard struct {
	trees    []guardTree      // that run or are being started, in the order of their start
	grant    *physical.Grant  // to be released if the node dies; nil while it holds no lock
	killAt   boottime.Instant // 0 while there is no lease
	orphaned bool             // the node is gone
	planned  bool             // it said that it would go, with its lock given up
	began    bool             // the release was begun
}

type guardTree struct {
	id     uint64
	beyond bool // it may outlive the lease
}

type guardEventKind int

const (
	guardStart    guardEventKind = iota // id: the node wants a tree started
	guardEnded                          // id: nothing is left of the tree, or it was not started
	guardKill                           // id: the node wants a tree ended
	guardLease                          // grant, at: the node's lease; at 0: it has none any more
	guardBye                            // the node goes, as planned
	guardNodeGone                       // the node's socket is closed
	guardTick                           // the timer went off
	guardReleased                       // the release is over, successful or not
)

type guardEvent struct {
	kind  guardEventKind
	now   boottime.Instant
	id    uint64
	grant *physical.Grant
	at    boottime.Instant

	beyond bool // guardStart: whatever the lease
}

type guardEffectKind int

const (
	doStart   guardEffectKind = iota // id
	doRefuse                         // id: not started, the lease is over
	doKill                           // id, cause
	doArm                            // at: the timer; 0: none
	doRelease                        // grant
	doExit
)

type guardEffect struct {
	kind  guardEffectKind
	id    uint64
	cause string
	at    boottime.Instant
	grant *physical.Grant
}

// stepGuard is the guardian's whole judgement: no clock, no I/O.
func stepGuard(g guard, ev guardEvent) (guard, []guardEffect) {
	g.trees = slices.Clone(g.trees)
	var out []guardEffect
	do := func(e guardEffect) { out = append(out, e) }
	killAll := func(cause string) {
		for _, t := range g.trees {
			if cause != causeLease || !t.beyond {
				do(guardEffect{kind: doKill, id: t.id, cause: cause})
			}
		}
	}
	over := g.killAt != 0 && ev.now >= g.killAt
	switch ev.kind {
	case guardStart:
		if g.orphaned || over && !ev.beyond {
			do(guardEffect{kind: doRefuse, id: ev.id})
			break
		}
		g.trees = append(g.trees, guardTree{ev.id, ev.beyond})
		do(guardEffect{kind: doStart, id: ev.id})
	case guardEnded:
		g.trees = slices.DeleteFunc(g.trees, func(t guardTree) bool { return t.id == ev.id })
	case guardKill:
		if slices.ContainsFunc(g.trees, func(t guardTree) bool { return t.id == ev.id }) {
			do(guardEffect{kind: doKill, id: ev.id, cause: causeAsked})
		}
	case guardLease:
		// One that is over by now kills, too, but not at once: the next one may have come with it. The timer, set to an instant that has passed,
		// goes off when that has been looked for.
		g.grant, g.killAt = ev.grant, ev.at
		do(guardEffect{kind: doArm, at: g.killAt})
	case guardTick:
		if over {
			killAll(causeLease)
		} else {
			do(guardEffect{kind: doArm, at: g.killAt})
		}
	case guardBye:
		g.planned = true
	case guardNodeGone:
		g.orphaned = true
		killAll(causeNode)
	case guardReleased:
		do(guardEffect{kind: doExit})
		return g, out
	}
	// Ended, and seen to be ended; only then the lock is free (P2).
	if g.orphaned && len(g.trees) == 0 && !g.began {
		g.began = true
		if g.grant == nil || g.planned {
			do(guardEffect{kind: doExit})
		} else {
			do(guardEffect{kind: doRelease, grant: g.grant})
		}
	}
	return g, out
}
