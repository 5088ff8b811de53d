// Package footprint keeps what a process occupies close to what it uses.
//
// # Design
//
// Starting touches far more of a program than running it does: the initialisation of every package that is linked, and of every
// type that is registered. The kernel maps those pages, sixteen around each one touched, and leaves them mapped as long as there is
// memory to spare, so the idle process is counted as three times the size that it works with. Trim lets go of all of them once;
// those in use come back within microseconds each, from the page cache.
package footprint

import (
	"context"
	"runtime/debug"
	"time"
)

const (
	// started is how long after its beginning a process is taken to have started.
	started = 5 * time.Second

	// settled is how long after that it has done what it does once: met the others, looked at its disk, written its first snapshot.
	settled = 10 * time.Second
)

// AfterStart waits until the process has started, and trims it, and once more when it has settled; or until ctx ends.
func AfterStart(ctx context.Context) {
	for _, wait := range []time.Duration{started, settled} {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
			Trim()
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// Trim returns free memory to the system and unmaps the pages of the program's file that were never written to. It is for the end
// of a start, and takes some milliseconds. Where it cannot be done, nothing happens.
func Trim() {
	debug.FreeOSMemory()
	unmapProgram()
}
