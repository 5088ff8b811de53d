package forward

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/locum-ha/locum/internal/quickio"
)

// P12: what spinning costs is bounded by what comes of it.
func TestSpinner(t *testing.T) {
	var s spinner
	tried := 0
	for range 100_000 { // answers that all take long
		if s.worthwhile() {
			tried++
			s.result(false)
		}
	}
	if tried > 110 {
		t.Errorf("spun for %d answers of 100 000 that never came in time", tried)
	}
	waited := 0
	for range 20 { // answers that all come in time
		for ; !s.worthwhile(); waited++ {
		}
		s.result(true)
	}
	if waited > 2*spinPause {
		t.Errorf("%d answers until it spins at each again", waited)
	}
	if !s.worthwhile() || !s.worthwhile() {
		t.Error("a pause without a failure")
	}
}

// P12: who spins gives up, and then waits as ever.
func TestSpinningEnds(t *testing.T) {
	checkLeaks(t)
	before := runtime.GOMAXPROCS(max(2, runtime.GOMAXPROCS(0)))
	defer runtime.GOMAXPROCS(before)
	begun, finish := make(chan struct{}, 2), make(chan struct{})
	_, standby, _ := pair(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		begun <- struct{}{}
		<-finish
		_, _ = io.WriteString(w, "late")
	}))
	var wg sync.WaitGroup
	defer wg.Wait()
	for range 2 {
		wg.Go(func() {
			if _, body := get(t, standby.http.URL); body != "late" {
				t.Errorf("answer %q", body)
			}
		})
	}
	<-begun
	<-begun
	eventually(t, func() bool { return !spinning.Load() })
	close(finish)
}

// dripping writes in pieces, so that what is read ends anywhere: within a TLS record, a frame's head, a frame.
type dripping struct{ net.Conn }

func (d dripping) NetConn() net.Conn { return d.Conn }

func (d dripping) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		n := min(len(p)-done, 1+rand.IntN(3000))
		if rand.IntN(4) == 0 {
			n = min(len(p)-done, 1+rand.IntN(20))
		}
		if _, err := d.Conn.Write(p[done : done+n]); err != nil {
			return done, err
		}
		done += n
		quickio.Yield()
	}
	return len(p), nil
}

// Frames of every size are put together from whatever pieces they come in, by the reader and by those who spin.
func TestFramesInPieces(t *testing.T) {
	checkLeaks(t)
	active, standby := newNode(t, "a").serve(), newNode(t, "b").serve()
	active.Lead(1, newLease(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("X-Echo", r.Header.Get("X-Long"))
		fmt.Fprintf(w, "%s %s", r.URL.Path, body)
	}))
	target := active.target(1, standby)
	target.Dial = active.dialOver(standby, func() (a, b net.Conn) {
		a, b = tcpPair(t)
		return shakeHands(t, dripping{a}, dripping{b})
	})
	standby.Follow(target)
	standby.waitUp()
	var wg sync.WaitGroup
	for _, clients := range []int{1, 4} {
		for c := range clients {
			wg.Go(func() {
				for i := range 10 {
					long, body := strings.Repeat("h", rand.IntN(150<<10)), strings.Repeat("b", rand.IntN(40<<10))
					req := mustRequest(t, http.MethodPost, fmt.Sprintf("%s/%d/%d", standby.http.URL, c, i), strings.NewReader(body))
					req.Header.Set("X-Long", long)
					res, got := do(t, req)
					if want := fmt.Sprintf("/%d/%d %s", c, i, body); res.StatusCode != http.StatusOK || got != want || res.Header.Get("X-Echo") != long {
						t.Errorf("status %d, %d bytes of %d, header %d of %d", res.StatusCode, len(got), len(want), len(res.Header.Get("X-Echo")), len(long))
					}
				}
			})
		}
		wg.Wait()
	}
}
