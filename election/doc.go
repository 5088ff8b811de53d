// Package election decides who is active.
//
// One node at a time holds the HA lock of a [physical.HABackend]. The [Election] of a node follows the lock,
// competes for it when it is free, raises the [physical.Fence] in storage, and calls Activate; while the
// leadership lasts it renews the lock, and when it ends (as planned, or lost) it sees to it that everything
// that ran under it has ended before the lock is given up.
//
//	e, err := election.New(election.Config{ID: id, Lock: store, Store: store, Activate: up, Drain: drain, Deactivate: down})
//	err = e.Run(ctx) // until ctx ends: then a planned step-down, and the lock released
//
// What runs while the node is active runs under [Lease.Context], and whoever answers from local state asks
// [Lease.Valid] after it has read and before it answers (P4).
//
// # Design
//
// The decisions are one function without clock and without I/O: step(state, event) (state, []effect). Time is
// a number in every event; what the world should do is an effect, a value. Run is the thin shell around it: it
// carries effects out, each store call in a goroutine of its own with a deadline, and feeds back what came of
// them. So a store call that hangs never blocks the loop, and a hundred thousand random histories of delays,
// losses, frozen nodes and store errors are simulated in a minute (sim_test.go). The core is not told of timers either:
// state.wake says when it wants to be looked at next, and whatever is due by then is found by comparing.
//
// Every call carries a number. An answer whose number is not awaited any more is late or double and
// changes nothing.
//
// A lease's deadline is the instant before the renewal (or the acquisition) was sent, plus the TTL, less a margin:
// TTL/10 within 10 ms and 1 s. The margin pays for clocks that run at different speeds (it covers a difference of a
// few per cent, real clocks differ by a thousandth of that) and for the time that it takes to kill what runs under the
// lease. A deadline that has passed is never revived, also when a renewal turns out to have been in time.
//
// The fence is known before the lock is free: a standby reads it ahead, raises from what it knows, and reads again only
// if that was old. So a switch costs one Acquire and one RaiseFence. A lock record with a term below the fence's, or below one that
// this node has seen, is that of a store that forgot: it costs a full TTL of waiting, and then no guess about the
// fence is made. For the same reason a lock under which the fence could not be raised is not released but left to run out.
//
// Callbacks never overlap: Deactivate is called once Activate or Drain has returned, both of which see their
// context end first. The lock is renewed until Deactivate has returned, except after its loss, and only then released (P2).
// If that takes longer than Config.DeactivateTimeout, renewing stops, and the lock runs out: a guardian with the same
// deadline has killed the application by then.
package election
