package supervise

import (
	"encoding/json"
	"log/slog"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
)

// GuardianConfig is what a node's guardian needs.
type GuardianConfig struct {
	Logger   *slog.Logger // default: nowhere
	Observer GuardianObserver
}

// GuardianObserver is told of what is worth a metric. Every function may be nil; none may block.
type GuardianObserver struct {
	Ended func(err error) // the guardian died, and every tree with it
	Late  func()          // it did not end a tree in time, and was killed for that
}

// Guard is what a node tells a guardian beside what to run.
type Guard interface {
	Runner
	// Lease hands on until when everything that runs must have ended; 0: there is no lease any more. The grant is what is
	// released if the node dies. It never blocks.
	Lease(g physical.Grant, deadline boottime.Instant)
	// Plan says how to release the lock: what the program's Release gets.
	Plan(plan json.RawMessage)
	// Containment says what a tree is held together with, and why with nothing better.
	Containment() (kind, why string)
	// Done is closed when the guardian has ended.
	Done() <-chan struct{}
	// Close lets it go: all trees end, the lock is left alone.
	Close() error
}
