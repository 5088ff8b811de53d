package forward

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// P6, P12: a store may not tell what became of a write although the node stays active, after a connection broke say. What may be
// repeated is tried again there soon; it does not wait for another active node until the hold time-out.
func TestUnsureIsRepeatedInPlace(t *testing.T) {
	for _, via := range []string{"local", "forwarded"} {
		t.Run(via, func(t *testing.T) {
			checkLeaks(t)
			n := newTrio(t)
			var calls atomic.Int64
			n.a.Lead(1, newLease(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if calls.Add(1) == 1 {
					Disown(r.Context())
				}
				_, _ = io.WriteString(w, "done")
			}))
			n.s.Follow(n.a.target(1, n.s))
			n.s.waitUp()
			from := n.s
			if via == "local" {
				from = n.a
			}
			start := time.Now()
			rec := <-ask(from, httptest.NewRequest("GET", "/", nil))
			if rec.Code != 200 || rec.Body.String() != "done" || calls.Load() != 2 {
				t.Errorf("after %d calls: %d %s", calls.Load(), rec.Code, rec.Body)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}
