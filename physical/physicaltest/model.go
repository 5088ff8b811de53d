package physicaltest

import (
	"fmt"
	"math"

	"github.com/anishathalye/porcupine"
)

type lockOpKind uint8

const (
	opAcquire lockOpKind = iota + 1
	opRenew
	opRelease
)

type lockOutcome uint8

const (
	outcomeOK lockOutcome = iota + 1
	outcomeHeld
	outcomeLost
	outcomeUnknown
)

// lockInput is a call on the lock, made at the instant at (nanoseconds on the history's clock).
type lockInput struct {
	kind  lockOpKind
	term  uint64 // renew, release: of the grant
	above uint64 // acquire
	ttl   int64  // acquire, renew: nanoseconds in force
	at    int64
}

// lockOutput is what the call returned, at the instant at.
type lockOutput struct {
	outcome lockOutcome
	term    uint64 // acquire: the term granted, or the holder's
	at      int64
}

// lockState is a lock with rising terms. It is comparable.
type lockState struct {
	term  uint64 // the last term given, or a lower bound of it
	exact bool   // term is not only a lower bound
	held  bool
	until int64 // held: nobody else may get it before
}

// lockModel is the sequential specification of an HA lock: a lock is granted only while it is free or its
// TTL has passed since the last call that extended it was made; the term granted is greater than above and than every
// term before; only the grant of the present term renews; a release frees only that. Calls with an unknown outcome
// were carried out or not. Where the refusal of an Acquire may come from a node that knows little
// (lenient), it proves nothing.
func lockModel(lenient bool) porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{lockState{exact: true}} },
		Step: func(state, input, output any) []any {
			return lockStep(state.(lockState), input.(lockInput), output.(lockOutput), lenient)
		},
		Hash: func(state any) uint64 {
			st := state.(lockState)
			h := st.term*0x9e3779b97f4a7c15 ^ uint64(st.until)*0xbf58476d1ce4e5b9
			if st.held {
				h = ^h
			}
			return h
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v → %+v", input, output) },
	}
	return m.ToModel()
}

func lockStep(st lockState, in lockInput, out lockOutput, lenient bool) []any {
	returned := out.at
	if out.outcome == outcomeUnknown {
		returned = math.MaxInt64
	}
	free := !st.held || returned >= st.until
	mine := st.held && st.exact && st.term == in.term
	freed := st
	freed.held, freed.until = false, 0
	switch in.kind {
	case opAcquire:
		return acquireStep(st, in, out, free, lenient)
	case opRenew:
		extended := st
		extended.until = max(st.until, in.at+in.ttl)
		switch {
		case out.outcome == outcomeOK && mine:
			return []any{extended}
		case out.outcome == outcomeLost && !mine:
			return []any{st}
		case out.outcome == outcomeLost && free:
			return []any{freed}
		}
	case opRelease:
		switch {
		case out.outcome == outcomeUnknown && mine:
			return []any{st, freed}
		case mine:
			return []any{freed}
		default:
			return []any{st}
		}
	}
	return nil
}

func acquireStep(st lockState, in lockInput, out lockOutput, free, lenient bool) []any {
	taken := lockState{term: out.term, exact: true, held: true, until: in.at + in.ttl}
	switch out.outcome {
	case outcomeOK:
		if free && out.term > st.term && out.term > in.above {
			return []any{taken}
		}
	case outcomeHeld:
		if lenient || st.held && (!st.exact || out.term == st.term) {
			return []any{st}
		}
	case outcomeUnknown:
		if !free {
			return []any{st}
		}
		taken.term, taken.exact = max(st.term, in.above)+1, false
		return []any{st, taken}
	}
	return nil
}
