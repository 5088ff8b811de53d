package raft

import (
	"sync"
	"time"

	"github.com/locum-ha/locum/internal/boottime"
)

// gate keeps this node's promises, on which the leases of the lock rest.
//
// A node that acknowledges a message of the leader of raft term T promises to help nobody to lead a
// higher term for one heartbeat timeout. A leader whose lease began before it asked a majority of the
// voters therefore knows that no other can lead before the lease has run out: any other majority has a
// node in common with that one. Raft alone does not keep the promise:
//
//   - heartbeats are answered beside the main loop, so an answer for T can pass a vote for T+1;
//   - a node that was restarted has forgotten whom it heard from;
//   - a vote asked for in a leadership transfer is given at once, also when the request is old.
//
// The invariant, under one mutex: after an acknowledgement for T was let out, no vote for a term above T
// is let out for one heartbeat timeout, unless the leader of T has given its lease up; and after a vote
// for a term above T was let out, no acknowledgement for T is. Instants are of the boot clock (P4).
type gate struct {
	now     func() boottime.Instant
	timeout time.Duration // how long a promise holds

	mu       sync.Mutex
	ackTerm  uint64           // highest term acknowledged
	until    boottime.Instant // the promise holds until then
	voteTerm uint64           // highest term that this node voted for, or asked votes for

	// A leader that was asked to hand over sends TimeoutNow. The receiver may then ask for votes at once,
	// but only in the term right after the one that is being handed over.
	transferTerm uint64 // the term that was handed over to this node; 0 for none

	vacated uint64        // the term whose leader is known to be dead; 0 for none
	changed chan struct{} // closed and replaced whenever a promise is made or ended
}

// newGate makes a gate. With held the node promises at once: it may have promised before it was started.
func newGate(now func() boottime.Instant, timeout time.Duration, held bool) *gate {
	g := &gate{now: now, timeout: timeout, changed: make(chan struct{})}
	if held {
		g.until = now().Add(timeout)
	}
	return g
}

// acknowledge lets an acknowledgement for a leader of term out, or not: then it returns the term that
// this node has helped into being since.
func (g *gate) acknowledge(term uint64) (newer uint64, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.voteTerm > term {
		return g.voteTerm, false
	}
	if term >= g.ackTerm {
		g.ackTerm = term
		g.until = g.now().Add(g.timeout)
		g.wake()
	}
	return 0, true
}

// vote lets a vote for term out, or not. A vote in a leadership transfer waits for nothing: the leader
// has given its lease up before it asked for the transfer.
func (g *gate) vote(term uint64, transfer bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.free(term, transfer) {
		return false
	}
	g.voteTerm = max(g.voteTerm, term)
	return true
}

// wouldVote reports what vote would say now, without voting; and if only time stands against it, how long.
func (g *gate) wouldVote(term uint64, transfer bool) (ok bool, wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.free(term, transfer) {
		return true, 0
	}
	if term < g.ackTerm {
		return false, 0
	}
	return false, g.until.Sub(g.now())
}

func (g *gate) free(term uint64, transfer bool) bool {
	if term < g.ackTerm {
		return false
	}
	return transfer || term <= g.voteTerm || !g.now().Before(g.until)
}

// ask lets this node's own request for votes for term out, or not. It counts as a vote for itself. The
// request may claim to be part of a transfer only if it is of the one that this node was asked for.
func (g *gate) ask(term uint64, claimed bool) (ok, transfer bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	transfer = claimed && g.transferTerm != 0 && term == g.transferTerm+1
	if !g.free(term, transfer) {
		return false, false
	}
	g.voteTerm = max(g.voteTerm, term)
	return true, transfer
}

// handedOver notes that the leader of term asked this node to take over at once. It returns false if the
// message is from the past.
func (g *gate) handedOver(term uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if term < g.ackTerm || term < g.voteTerm {
		return false
	}
	g.transferTerm = term
	return true
}

// waive ends the promise for term: its leader has given the lease up.
func (g *gate) waive(term uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ackTerm != term {
		return false
	}
	g.until = min(g.until, g.now())
	g.wake()
	return true
}

// wake tells those who wait for the promise. The caller holds mu.
func (g *gate) wake() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// vacate ends the promise for term because its leader is dead. It must be known: a leader that lives would
// not know that its lease is gone.
func (g *gate) vacate(term uint64) bool {
	if !g.waive(term) {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.vacated = term
	return true
}

// vacant reports whether the leader that this node last acknowledged is known to be dead.
func (g *gate) vacant() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.vacated != 0 && g.vacated == g.ackTerm && g.voteTerm <= g.vacated
}

// promise returns until when the promise holds, and a channel that is closed when that changes.
func (g *gate) promise() (boottime.Instant, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.until, g.changed
}
