package forward

import "sync/atomic"

// Receive windows. A side of a connection grants its peer windows out of one budget, and what is
// received and not yet consumed never exceeds what was granted: so the budget bounds the memory that a
// connection can take, whatever the peer sends and however slow the readers are (P12).
//
// A stream starts with smallWindow or tinyWindow, the latter once half of the budget is granted, so
// that many idle streams do not use it up; a stream that is being read grows step by step to maxWindow
// while there is room.
const (
	maxWindow   = 1 << 20
	smallWindow = 32 << 10
	tinyWindow  = 2 << 10
	bodyWindow  = 16 << 10 // what a request's body may be sent of before the active node says more

	defaultBudget  = 64 << 20
	defaultStreams = 16 << 10
)

type budget struct {
	limit int64
	used  atomic.Int64
}

// reserve takes n from the budget if no more than the part share (of 4) of it is then in use.
func (b *budget) reserve(n int, share int64) bool {
	if b.used.Add(int64(n)) > b.limit/4*share {
		b.used.Add(-int64(n))
		return false
	}
	return true
}

func (b *budget) release(n int) { b.used.Add(-int64(n)) }

// first is the window that a new stream starts with; 0 when there is no room for another.
func (b *budget) first() int {
	switch {
	case b.reserve(smallWindow, 2):
		return smallWindow
	case b.reserve(tinyWindow, 4):
		return tinyWindow
	default:
		return 0
	}
}
