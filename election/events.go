package election

import (
	"time"

	"github.com/locum-ha/locum/physical"
)

type duration = time.Duration

// eventKind says what happened.
type eventKind uint8

const (
	evTick eventKind = iota // nothing but time; every event is also a tick
	evStart
	evRecord    // Holder or Watch answered: seq, record, err
	evFence     // Fence answered: seq, fence, err
	evAcquired  // Acquire answered: seq, grant, err; nonce and lineage are fresh
	evRenewed   // seq, grant, err
	evRaised    // seq, err
	evReleased  // seq, err
	evYielded   // seq, err
	evActivated // term, err
	evDrained   // term, err
	evDeactivated
	evAbort     // term, err
	evStepDown  // id, next
	evSkipDrain //
	evPause     // on
	evCandidate // on
	evRival     // next (who), n (priority)
	evHurry     // on
	evStop
)

// event is something that happened, and when.
type event struct {
	kind    eventKind
	now     instant
	seq     uint64
	err     error
	record  physical.Record
	grant   physical.Grant
	fence   physical.Fence
	nonce   [16]byte
	lineage string
	term    uint64
	id      uint64
	next    string
	on      bool
	n       int
}

// effectKind says what is to be done.
type effectKind uint8

const (
	// Calls of a store, answered by an event with the same seq, and abandoned at limit.
	doHolder  effectKind = iota // → evRecord
	doWatch                     // record (seen) → evRecord
	doAcquire                   // above → evAcquired
	doRenew                     // grant → evRenewed
	doRelease                   // grant, next; auto: ask Successor → evReleased
	doFence                     // → evFence
	doRaise                     // fence (from), to → evRaised
	doYield                     // next → evYielded
	doCancel                    // the call seq is not wanted any more

	// Callbacks, each answered by an event with the same term.
	doActivate   // opens the lease: term, grant, fence, deadline → evActivated
	doDrain      // limit → evDrained
	doSkipDrain  // ends Drain's context
	doDeactivate // err (cause) → evDeactivated

	// The lease.
	doExtend // deadline
	doEnd    // err (cause)
	doGuard  // grant, deadline: all that Activate began must have ended by then; 0: it has

	// To tell others.
	doReply   // id, err: a step-down request is answered
	doLog     // role (from), to, err: the role has changed
	doWarn    // msg, err: worth a line, changes nothing
	doObserve // what, d, err
	doStop    // Run returns
)

// observation is which func of the Observer is meant.
type observation uint8

const (
	obRenewed observation = iota
	obFenced
	obActivated
	obEnded
	obLost
	obLeaderless
)

// effect is something to be done.
type effect struct {
	kind     effectKind
	what     observation
	from     Role
	role     Role
	auto     bool
	planned  bool
	seq      uint64
	limit    instant
	deadline instant
	term     uint64
	id       uint64
	above    uint64
	d        duration
	record   physical.Record
	grant    physical.Grant
	fence    physical.Fence
	to       physical.Fence
	next     string
	msg      string
	err      error
}
