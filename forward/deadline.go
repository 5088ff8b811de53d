package forward

import (
	"os"
	"sync"
	"time"
)

var (
	errDeadline  = os.ErrDeadlineExceeded
	aLongTimeAgo = time.Unix(1, 0)
)

// deadline is a point in time after which waiting ends, as in net.Conn: zero is never, and it can be
// set at any time, also while somebody waits.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	turn  int           // of the last set, so that a late timer of an earlier one does nothing
	done  chan struct{} // closed when over; nil until somebody waits or sets
	ended bool
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turn++
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if d.done == nil || d.ended {
		d.done, d.ended = make(chan struct{}), false
	}
	if t.IsZero() {
		return
	}
	if left := time.Until(t); left > 0 {
		turn := d.turn
		d.timer = time.AfterFunc(left, func() { d.expire(turn) })
		return
	}
	d.ended = true
	close(d.done)
}

func (d *deadline) expire(turn int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.turn == turn && !d.ended {
		d.ended = true
		close(d.done)
	}
}

// expired is closed once the deadline is over.
func (d *deadline) expired() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.done == nil {
		d.done = make(chan struct{})
	}
	return d.done
}

// over reports whether the deadline has passed.
func (d *deadline) over() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ended
}

// stop gives up the timer.
func (d *deadline) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turn++
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}
