package history

import (
	"fmt"

	"github.com/anishathalye/porcupine"
)

// Kind is what an operation does.
type Kind uint8

// The operations on an entry.
const (
	Read  Kind = iota
	Write      // unconditional
	CAS        // only if the current version is the one expected
)

// Input is what was asked.
type Input struct {
	Kind   Kind
	Key    string
	Value  string // Write, CAS: never used twice
	Expect int    // CAS: the version
}

// Output is what was answered.
type Output struct {
	Unknown  bool   // Write, CAS: nobody knows
	Conflict bool   // CAS: refused, the version is another
	Version  int    // Read: 0 if there is no entry; Write, CAS: the version made
	Value    string // Read
}

type state struct {
	version int
	value   string
}

// model is one entry. Unknown operations stand at the end of the history (their return is the last instant),
// where taking effect contradicts nothing: so they need no second branch for "never".
var model = porcupine.Model{
	Init: func() any { return state{} },
	Step: func(s, in, out any) (bool, any) { return step(s.(state), in.(Input), out.(Output)) },
	DescribeOperation: func(in, out any) string {
		return describe(in.(Input), out.(Output))
	},
	DescribeState: func(s any) string { return fmt.Sprintf("v%d %q", s.(state).version, s.(state).value) },
}

func step(s state, in Input, out Output) (bool, any) {
	switch in.Kind {
	case Read:
		return out.Version == s.version && out.Value == s.value, s
	case CAS:
		matches := in.Expect == s.version
		switch {
		case out.Unknown && !matches:
			return true, s
		case out.Conflict:
			return !matches, s
		case !matches:
			return false, s
		}
	}
	next := state{version: s.version + 1, value: in.Value}
	return out.Unknown || out.Version == next.version, next
}

func describe(in Input, out Output) string {
	result := fmt.Sprintf("v%d", out.Version)
	switch {
	case out.Unknown:
		result = "unknown"
	case out.Conflict:
		result = "conflict"
	case in.Kind == Read:
		result += fmt.Sprintf(" %q", out.Value)
	}
	switch in.Kind {
	case Read:
		return "read: " + result
	case CAS:
		return fmt.Sprintf("cas v%d → %q: %s", in.Expect, in.Value, result)
	default:
		return fmt.Sprintf("write %q: %s", in.Value, result)
	}
}
