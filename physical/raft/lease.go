package raft

import (
	"sync"

	"github.com/locum-ha/locum/internal/boottime"
)

// lease is what this node knows of the lock that it gave out itself while it led raft: until when that
// is held. It is not shared: on every other node the lock is the leader's until another leads.
//
// A lock that is not renewed runs out one TTL after its deadline, and not at it: while the node leads in
// the same raft term and the record stands, nobody else can have held it, and a renewal that comes a little
// late costs nothing. What the holder may do after its deadline is for the holder to know.
type lease struct {
	mu       sync.Mutex
	raftTerm uint64           // the raft term that it was given out in
	deadline boottime.Instant // it runs out then
	epoch    uint64           // counts who the lock was given out to, or taken from
}

// begin gives the lock out anew: renewals of what was given out before come too late from here on.
func (l *lease) begin(raftTerm uint64, deadline boottime.Instant) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.raftTerm, l.deadline = raftTerm, deadline
	l.epoch++
}

// end gives the lease up.
func (l *lease) end() { l.begin(0, 0) }

// mark returns the epoch, for extend.
func (l *lease) mark() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch
}

// extend moves the deadline, never back; false if the lock was given out anew since mark.
func (l *lease) extend(epoch uint64, deadline boottime.Instant) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoch != epoch {
		return false
	}
	l.deadline = max(l.deadline, deadline)
	return true
}

// until returns the deadline, 0 if nothing was given out in the raft term.
func (l *lease) until(raftTerm uint64) boottime.Instant {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.raftTerm != raftTerm {
		return 0
	}
	return l.deadline
}

// live reports whether the deadline has not passed.
func (l *lease) live(raftTerm uint64) bool { return boottime.Now().Before(l.until(raftTerm)) }
