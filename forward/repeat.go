package forward

import "net/http"

// fate is what is known of a request whose attempt ended without a whole answer.
type fate struct {
	begun      bool // bytes of the answer went to the client
	delivered  bool // in this attempt or an earlier one, a handler may have seen it
	now        bool // in this attempt
	replayable bool // the body is still at hand, all of it
	mayRepeat  bool // safe, keyed by its slot, or of a method that the application allows
	repeats    int  // how often it was repeated although it may have been delivered
	breaks     int  // how often the application broke it off
}

// maxRepeats bounds how often a request is delivered again: one that ends every node that runs it must
// not end them all, one after the other.
const maxRepeats = 8

// maxBreaks is the same for an application: a request that ends it must not end it again and again.
const maxBreaks = 2

type verdict uint8

const (
	again   verdict = iota // as if it had just come
	repeat                 // once more, told so to the handler
	refuse                 // answer: certainly not processed
	unknown                // answer: nobody knows
	abort                  // break the client's connection: it has part of an answer
)

func (v verdict) String() string {
	return [...]string{"again", "repeat", "refuse", "unknown", "abort"}[v]
}

// decide is all of P6 for a single request.
func decide(f fate) verdict {
	switch {
	case f.begun:
		return abort
	case !f.delivered && f.replayable:
		return again
	case !f.delivered:
		return refuse
	case f.mayRepeat && f.replayable && (!f.now || f.repeats < maxRepeats) && f.breaks <= maxBreaks:
		return repeat
	default:
		return unknown
	}
}

// isSafe: RFC 9110, section 9.2.1.
func isSafe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}
