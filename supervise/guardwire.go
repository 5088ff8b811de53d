package supervise

import (
	"encoding/json"
	"syscall"

	"github.com/locum-ha/locum/internal/boottime"
	"github.com/locum-ha/locum/physical"
)

// message is one line between node and guardian, or guardian and init: JSON over a socket that only the two of them have. Secrets
// (tokens in a command's environment, passwords in how to release the lock) travel here, and never in an argument.
type message struct {
	Op string `json:"op"`
	ID uint64 `json:"id,omitempty"`

	Command *Command         `json:"command,omitempty"` // start
	Signal  syscall.Signal   `json:"signal,omitempty"`  // signal
	Grant   *physical.Grant  `json:"grant,omitempty"`   // lease
	At      boottime.Instant `json:"at,omitempty"`      // lease: when to kill; 0: there is none
	Plan    json.RawMessage  `json:"plan,omitempty"`    // plan: how to release the lock

	Contained string `json:"contained,omitempty"` // ready, started
	PID       int    `json:"pid,omitempty"`       // started: the command's
	Init      int    `json:"init,omitempty"`      // started: the tree's init's
	Exit      *Exit  `json:"exit,omitempty"`      // ended
	Error     string `json:"error,omitempty"`     // failed, log
	Why       string `json:"why,omitempty"`       // ready: why nothing better
}

// What node and guardian say to each other.
const (
	opStart  = "start"  // → guardian → init
	opSignal = "signal" // → guardian → init
	opKill   = "kill"   // → guardian → init
	opLease  = "lease"  // → guardian
	opPlan   = "plan"   // → guardian
	opBye    = "bye"    // → guardian

	opReady   = "ready"   // guardian →: it is there
	opStarted = "started" // init → guardian →
	opFailed  = "failed"  // init → guardian →: not started
	opEnded   = "ended"   // guardian →: nothing is left of the tree
	opExited  = "exited"  // init → guardian: the same, from the init that is about to exit
)
