package physicaltest

import (
	"testing"

	"github.com/anishathalye/porcupine"
)

// history builds operations from calls that follow one another, unless they say when they were made.
type history struct {
	ops []porcupine.Operation
	now int64
}

// at adds an operation called at and returned at the instants given.
func (h *history) at(call, returned int64, in lockInput, out lockOutput) {
	in.at, out.at = call, returned
	if out.outcome == outcomeUnknown {
		returned = 1 << 62
	}
	h.ops = append(h.ops, porcupine.Operation{ClientId: len(h.ops), Input: in, Call: call, Output: out, Return: returned})
	h.now = max(h.now, out.at)
}

func (h *history) next(in lockInput, out lockOutput) { h.at(h.now+1, h.now+2, in, out) }

func (h *history) acquire(term uint64) {
	h.next(lockInput{kind: opAcquire, ttl: 100}, lockOutput{outcome: outcomeOK, term: term})
}

func (h *history) refused(term uint64) {
	h.next(lockInput{kind: opAcquire, ttl: 100}, lockOutput{outcome: outcomeHeld, term: term})
}

func (h *history) renew(term uint64, outcome lockOutcome) {
	h.next(lockInput{kind: opRenew, term: term, ttl: 100}, lockOutput{outcome: outcome})
}

func (h *history) release(term uint64, outcome lockOutcome) {
	h.next(lockInput{kind: opRelease, term: term}, lockOutput{outcome: outcome})
}

// The model takes the histories of a lock with rising terms, and no others.
func TestLockModel(t *testing.T) {
	for name, c := range map[string]struct {
		legal bool
		make  func(h *history)
	}{
		"a lock's life": {true, func(h *history) {
			h.acquire(1)
			h.refused(1)
			h.renew(1, outcomeOK)
			h.release(1, outcomeOK)
			h.acquire(5)
			h.renew(1, outcomeLost)
			h.release(1, outcomeOK)
			h.renew(5, outcomeOK)
		}},
		"two holders":                {false, func(h *history) { h.acquire(1); h.acquire(2) }},
		"a term twice":               {false, func(h *history) { h.acquire(1); h.release(1, outcomeOK); h.acquire(1) }},
		"a term falls":               {false, func(h *history) { h.acquire(7); h.release(7, outcomeOK); h.acquire(6) }},
		"refused while free":         {false, func(h *history) { h.refused(0) }},
		"refused by an older holder": {false, func(h *history) { h.acquire(1); h.release(1, outcomeOK); h.acquire(2); h.refused(1) }},
		"renewed after release":      {false, func(h *history) { h.acquire(1); h.release(1, outcomeOK); h.renew(1, outcomeOK) }},
		"lost within the TTL":        {false, func(h *history) { h.acquire(1); h.renew(1, outcomeLost) }},
		"renewed under a successor":  {false, func(h *history) { h.acquire(1); h.now = 200; h.acquire(2); h.renew(1, outcomeOK) }},
		"an old release frees":       {false, func(h *history) { h.acquire(1); h.now = 200; h.acquire(2); h.release(1, outcomeOK); h.acquire(3) }},
		"taken over after the TTL":   {true, func(h *history) { h.acquire(1); h.now = 102; h.acquire(2); h.renew(1, outcomeLost) }},
		"renewed late, not taken":    {true, func(h *history) { h.acquire(1); h.now = 500; h.renew(1, outcomeOK); h.refused(1) }},
		"lost late, then free":       {true, func(h *history) { h.acquire(1); h.now = 500; h.renew(1, outcomeLost); h.acquire(2) }},
		"a renewal extends": {false, func(h *history) {
			h.acquire(1)
			h.now = 90
			h.renew(1, outcomeOK)
			h.now = 120
			h.acquire(2)
		}},
		"above": {true, func(h *history) {
			h.next(lockInput{kind: opAcquire, above: 40, ttl: 100}, lockOutput{outcome: outcomeOK, term: 41})
		}},
		"not above": {false, func(h *history) {
			h.next(lockInput{kind: opAcquire, above: 40, ttl: 100}, lockOutput{outcome: outcomeOK, term: 40})
		}},
		"unknown acquire, carried out": {true, func(h *history) {
			h.next(lockInput{kind: opAcquire, ttl: 100}, lockOutput{outcome: outcomeUnknown})
			h.refused(9)
			h.now = 200
			h.acquire(10)
		}},
		"unknown acquire, not carried out": {true, func(h *history) {
			h.next(lockInput{kind: opAcquire, ttl: 100}, lockOutput{outcome: outcomeUnknown})
			h.acquire(1)
		}},
		"unknown release": {true, func(h *history) {
			h.acquire(1)
			h.release(1, outcomeUnknown)
			h.refused(1)
			h.acquire(2)
		}},
		"overlapping calls": {true, func(h *history) {
			h.at(1, 50, lockInput{kind: opAcquire, ttl: 100}, lockOutput{outcome: outcomeHeld, term: 1})
			h.at(2, 40, lockInput{kind: opAcquire, ttl: 100}, lockOutput{outcome: outcomeOK, term: 1})
		}},
	} {
		h := &history{}
		c.make(h)
		if legal := porcupine.CheckOperations(lockModel(false), h.ops); legal != c.legal {
			t.Errorf("%s: legal is %v, want %v", name, legal, c.legal)
		}
	}
}
