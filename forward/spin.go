package forward

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locum-ha/locum/internal/quickio"
)

// To be woken can take longer than all that the active node does for a short request: some 30 µs where the processor has gone to
// sleep in the meantime, in a virtual machine at least, and what Go's scheduler spends on waking more threads. So whoever waits for
// the only answer that is outstanding on a connection looks for it for a while before it sleeps, as a hypervisor does before
// it halts a processor (docs/adr/0024).
//
// That is bounded (P12): by spinMost for a request, by one goroutine in a process, and by what came of it lately, see spinner. Where
// no request is under way nobody spins.
const (
	spinMost = 150 * time.Microsecond
	// spinPause is how many requests in a row may be waited for without spinning.
	spinPause = 1023
)

// spinning is held by the goroutine that spins.
var spinning atomic.Bool

// spinner decides whether the next answer of a connection is worth spinning for. With each time in a row that it was not, twice as many
// requests are waited for without.
type spinner struct {
	mu    sync.Mutex
	pause int
	left  int // of the pause
}

func (s *spinner) worthwhile() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left > 0 {
		s.left--
		return false
	}
	return true
}

func (s *spinner) result(good bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if good {
		s.pause /= 2
	} else {
		s.pause = min(2*s.pause+1, spinPause)
	}
	s.left = s.pause
}

// look reads the connection until something has arrived for a stream, for a while. Whoever calls it waits properly afterwards.
func (c *conn) look(st *stream) {
	if c.polled == nil || !c.spin.worthwhile() || runtime.GOMAXPROCS(0) == 1 || !spinning.CompareAndSwap(false, true) {
		return
	}
	defer spinning.Store(false)
	begun := time.Now()
	good := func() bool { return time.Since(begun) <= spinMost && c.w.crowd.Load() <= 1 } // others have use for the processor
	for len(st.readable) == 0 && good() {
		quickio.Yield() // the active node may be about to run on this very one
		if !c.reading.TryLock() {
			continue
		}
		err := c.readFrames()
		c.reading.Unlock()
		if !errors.Is(err, quickio.ErrAgain) {
			c.fail(err)
			return
		}
	}
	c.spin.result(good())
}
