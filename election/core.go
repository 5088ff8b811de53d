package election

import (
	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
)

type instant = boottime.Instant

// never stands where a time is compared as the earliest of several.
const never = instant(1<<63 - 1)

// Role is what a node is to the lock.
type Role uint8

// The roles. A node holds the lock, or perhaps holds it, from Activating to Releasing.
const (
	Starting     Role = iota // Run has not begun
	Standby                  // somebody else holds the lock, or this node may not compete, or it is not known yet
	Campaigning              // the lock is free, and this node competes for it
	Activating               // it holds the lock, raises the fence, and runs Activate
	Active                   //
	Draining                 // a planned step-down: it runs Drain
	Deactivating             // the lease has ended; it runs Deactivate
	Releasing                // nothing runs any more; the lock is being given up
	BackingOff               // it could not activate, and lets others try
	Stopped                  // Run has returned
)

var roleNames = [...]string{"starting", "standby", "campaigning", "activating", "active", "draining",
	"deactivating", "releasing", "backing-off", "stopped"}

func (r Role) String() string { return roleNames[r] }

// holds reports whether a leadership exists in the role.
func (r Role) holds() bool { return r >= Activating && r <= Releasing }

// pending is a call whose answer is awaited; seq 0: none.
type pending struct {
	seq   uint64
	sent  instant // before it was sent
	limit instant // from here on its answer is not awaited any more
}

// callback is which of the server's functions is running.
type callback uint8

const (
	noCallback callback = iota
	inActivate
	inDrain
	inDeactivate
)

// state is all that decides what happens next. It is a value: a copy of it is another history. The invariants:
//
//   - lead.term != 0 exactly in the roles that hold, and only then may anything run under a lease;
//   - lead.open exactly from Activate's call to the lease's end: in Activating, Active and Draining;
//   - at most one callback runs; Deactivate's call comes at most once for each Activate's;
//   - a release is sent only when no callback runs and none is owed;
//   - the deadline never moves backwards, and never once it has passed.
type state struct {
	p    *params // never changes
	role Role
	seq  uint64 // of the last call
	rng  uint64 // jitter; the core has no other chance in it
	rev  uint64 // counts what a snapshot would show differently

	candidate, paused, stopping bool
	hurry                       bool // somebody waits for a leadership

	rival   int // highest priority among the other candidates believed up; -1 when nobody said
	rivalID string

	// What is known of the lock, as a node that does not hold it.
	record     physical.Record
	seen       bool     // record is what the store said last
	holder     string   // who was seen to hold the lock last, if it was another node
	heldSince  instant  // since when it was seen so, in the term that it was seen in
	freeSince  instant  // when the lock was first seen free as it is now; 0 while held
	bare       instant  // since when nobody is known to be active, however the record changed; 0 while somebody holds
	maxTerm    uint64   // highest term ever seen
	look       pending  // Holder or Watch
	watching   bool     // look is a Watch
	peek       bool     // the next look is a Holder
	lookAt     instant  // when to look next
	lookGap    duration // grows while looks fail or tell nothing new
	acquire    pending
	above      uint64  // what it was sent with
	careful    bool    // it was sent after the wait for a store that forgot
	tryAt      instant // no attempt to acquire, or to yield, before this
	lastTry    instant
	tries      int  // attempts to acquire or to hand on since the record changed
	refused    bool // one of them was to acquire
	yield      pending
	holdUntil  instant // after a step-down: stays out until this, or until a term above holdTerm is seen
	holdTerm   uint64
	favoured   string  // who goes first while the lock is free as it is now; "" whoever comes
	graceUntil instant // another node is favoured until this
	graceEnd   instant // when the favouring that began in graceTerm is over
	graceTerm  uint64
	backUntil  instant // backing off until this
	failures   int     // leaderships in a row that failed
	forgetFrom instant // the lock store forgot, and a TTL is waited out from here; 0: it did not
	confirm    bool    // that wait is over; the fence is read once more before the lock is tried

	// What is known of the fence.
	fence      physical.Fence
	fenceKnown bool
	fenceSent  instant // when the read that gave it was sent
	fenceRead  pending
	fenceAt    instant // when to read it next, if it is needed

	lead lead

	lastErr  error // what the stores answered last, nil once they answer well
	lossErr  error // why the last leadership ended
	lossTerm uint64
	since    instant // of the role
}

// lead is one leadership, from the grant until the lock is given up.
type lead struct {
	term     uint64
	grant    physical.Grant
	ttl      duration
	won      instant // when the grant came
	expiry   instant // before this the lock cannot run out: the last send that was answered well, plus the TTL
	deadline instant // of the lease: expiry less the margin
	activeAt instant
	renewing bool
	renewAt  instant
	renewSeq uint64     // the newest renewal whose grant was taken over
	renewals [4]pending // several can be under way: a lost message does not cost the lock

	strict   bool // the lock store forgot: no guess about the fence
	from, to physical.Fence
	raise    pending
	raiseAt  instant // when to raise, or to read what became of it
	raiseEnd instant
	raises   int
	unclear  bool // the fence has to be read before it is raised again
	raised   bool // the fence stands, and Activate is called as soon as the lease is worth it

	open    bool // the lease is open
	called  bool // Activate was called, and Deactivate is owed
	running callback
	endedAt instant
	drainTo instant
	stuckAt instant // a Deactivate that takes longer does not keep the lock

	cause   error // why it ends
	planned bool
	failed  bool   // it ends by this node's own failure: back off
	mine    bool   // the fence was raised under the grant, and it may still be ours: it is to be released
	next    string // named successor
	release pending
	relAt   instant
	waiters []uint64 // step-down requests to be answered
}
