package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locum-ha/locum/examples/internal/trio"
)

func TestMain(m *testing.M) { trio.Main(m, main) }

// receiver is what the jobs call: it does what it is asked to once per key, and refuses a term lower than it has seen.
type receiver struct {
	mu    sync.Mutex
	term  uint64
	calls map[string]int
	done  map[string]int
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var term uint64
	fmt.Sscan(req.Header.Get("X-Fencing-Token"), &term)
	key := req.Header.Get("Idempotency-Key")
	r.calls[key]++
	if term < r.term {
		http.Error(w, "an old term", http.StatusConflict)
		return
	}
	r.term = term
	if r.done[key] == 0 {
		r.done[key]++
	}
	w.WriteHeader(http.StatusNoContent)
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.done)
}

// "A job scheduler that runs each job once": while jobs come in at every node and are run, the active node is killed, comes back,
// and the next one is killed. Every job has one outcome, and its receiver was asked for every one.
func TestEachJobOnce(t *testing.T) {
	nodes := trio.Start(t)
	rec := &receiver{calls: map[string]int{}, done: map[string]int{}}
	target := httptest.NewServer(rec)
	defer target.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	const jobs = 150
	var wg sync.WaitGroup
	var enough atomic.Bool
	var next [3]int // the first number of each client that it did not put
	for client := range 3 {
		wg.Go(func() {
			pace := time.NewTicker(20 * time.Millisecond)
			defer pace.Stop()
			for i := client; i < jobs || !enough.Load(); i += 3 {
				if i >= jobs {
					<-pace.C
				}
				body := fmt.Sprintf(`{"at": %q, "url": %q}`, time.Now().Add(time.Duration(i%5)*100*time.Millisecond).Format(time.RFC3339Nano), target.URL)
				for try := 0; ; try++ {
					// Each try at another node, as a load balancer does.
					once, stop := context.WithTimeout(ctx, 20*time.Second)
					_, err := trio.Send(once, "PUT", fmt.Sprintf("http://%s/jobs/%d", nodes[(i+try)%3].Listen, i), body, nil)
					stop()
					if err == nil {
						next[client] = i + 3
						break
					}
					if ctx.Err() != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	for kills := 0; ; kills++ {
		ran := rec.count() // by the nodes that were active before
		trio.Until(t, func() bool { return rec.count() > ran+jobs/4 })
		if kills == 2 {
			break
		}
		first := trio.Active(t, nodes)
		first.Kill()
		var left []*trio.Process
		for _, n := range nodes {
			if n != first {
				left = append(left, n)
			}
		}
		trio.Active(t, left)
		first.Start()
		first.Ready()
	}
	enough.Store(true)
	wg.Wait()
	var put []int
	for client, end := range next {
		for i := client; i < end; i += 3 {
			put = append(put, i)
		}
	}
	trio.Until(t, func() bool { return rec.count() == len(put) })
	terms := map[uint64]int{}
	for _, i := range put {
		trio.Until(t, func() bool {
			resp, err := http.Get(fmt.Sprintf("http://%s/jobs/%d", nodes[i%3].Listen, i))
			if err != nil {
				return false
			}
			defer resp.Body.Close()
			var o outcome
			if resp.StatusCode != http.StatusOK || json.NewDecoder(resp.Body).Decode(&o) != nil {
				return false
			}
			if o.Status != http.StatusNoContent {
				t.Errorf("job %d: %+v", i, o)
			}
			terms[o.Term]++
			return true
		})
	}
	again := 0
	for _, n := range rec.calls {
		again += n - 1
	}
	t.Logf("%d jobs, outcomes by term: %v; calls that were repeated under their key: %d", len(put), terms, again)
	if len(terms) < 3 {
		t.Errorf("%d active nodes ran the jobs, three should have", len(terms))
	}
	if again > 10 {
		t.Errorf("%d calls were repeated: a job is called again only if its node was killed in between", again)
	}
}
