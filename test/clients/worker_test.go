package clients

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// worker is an application: it counts in an entry, each write on condition of the version before (cas), and reads what it
// wrote. After an error it looks what became of its write and goes on, at the next address if the server did not answer.
type worker struct {
	name    string
	entry   *cluster.Node // where it began
	clients []client      // in the order in which it tries them

	mu       sync.Mutex
	rounds   int
	failures map[string]int  // what its calls returned instead of what they should, and how often
	refused  map[string]bool // those of them that a node answered
	wrong    map[string]bool // what must never happen
}

// workers starts one of each kind at each of the nodes. stop ends them and says what they met.
func (s *stage) workers(t *testing.T, nodes ...*cluster.Node) (all []*worker, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, k := range available(t) {
		id := s.workerToken(t, k, nodes[0])
		for i, n := range nodes {
			w := &worker{name: fmt.Sprintf("%s at %s", k.name, n.Name), entry: n,
				failures: map[string]int{}, refused: map[string]bool{}, wrong: map[string]bool{}}
			for j := range nodes {
				w.clients = append(w.clients, k.open(t, nodes[(i+j)%len(nodes)].URL(), id, ""))
			}
			path := fmt.Sprintf("%s/%s-%d", t.Name(), k.name, i)
			all = append(all, w)
			wg.Go(func() { w.run(ctx, path) })
		}
	}
	return all, func() {
		cancel()
		wg.Wait()
		for _, w := range all {
			for what := range w.wrong {
				t.Errorf("%s: %s", w.name, what)
			}
			t.Logf("%s: %d rounds, failures %v", w.name, w.rounds, w.failures)
		}
	}
}

// workerToken makes a token that may do what a worker does and no more: tokens and policies outlive their leadership.
func (s *stage) workerToken(t *testing.T, k kind, n *cluster.Node) string {
	t.Helper()
	ctx := within(t, 20*time.Second)
	c := k.open(t, n.URL(), s.Token, "")
	name := "worker-of-" + k.name
	ok(t, "policy", c.PutPolicy(ctx, name, fmt.Sprintf(`path "secret/data/%s/*" { capabilities = ["create", "read", "update"] }`, t.Name())))
	made, err := c.CreateToken(ctx, tokenRequest{Policies: []string{name}, TTL: "1h"})
	ok(t, "token", err)
	return made.ID
}

// available are the kinds that can run here; the test of each says why another cannot.
func available(t *testing.T) []kind {
	t.Helper()
	var out []kind
	for _, k := range kinds {
		if _, err := node(); k.name != "node-vault" || err == nil {
			out = append(out, k)
		}
	}
	return out
}

// run works until ctx ends.
func (w *worker) run(ctx context.Context, path string) {
	version := 0
	for n := 0; ctx.Err() == nil; n++ {
		value := fmt.Sprint(n)
		e, err := w.clients[0].Put(ctx, path, object{"n": value}, version)
		if err != nil {
			if e, err = w.settle(ctx, path, err); err != nil {
				return // the end
			}
			if e.Version == version { // not carried out
				continue
			}
			if e.Data["n"] != value {
				w.blame("after a failure version %d holds %v, want version %d, or %d with %s", e.Version, e.Data, version, version+1, value)
			}
		}
		if e.Version != version+1 {
			w.blame("a write on version %d made version %d", version, e.Version)
		}
		version = e.Version
		if e, err = w.clients[0].Get(ctx, path, 0); err != nil {
			if e, err = w.settle(ctx, path, err); err != nil {
				return
			}
		}
		if e.Version != version || e.Data["n"] != value { // P3, P4
			w.blame("version %d with %s was written, version %d with %v read", version, value, e.Version, e.Data)
		}
		w.mu.Lock()
		w.rounds++
		w.mu.Unlock()
	}
}

// settle notes a failure and reads the entry until that succeeds. The version is 0 where there is none yet.
func (w *worker) settle(ctx context.Context, path string, err error) (entry, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if ctx.Err() != nil {
			return entry{}, context.Cause(ctx)
		}
		if !w.fail(err) { // nobody there: as an application with a list of addresses does
			w.clients = append(w.clients[1:], w.clients[0])
		}
		var e entry
		if e, err = w.clients[0].Get(ctx, path, 0); err == nil {
			return e, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// blame notes what must never happen.
func (w *worker) blame(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong[fmt.Sprintf(format, args...)] = true
}

// fail notes a failure. The Go clients call a redirect that they do not follow "not found", without a sentence.
func (w *worker) fail(err error) (answered bool) {
	var f *failure
	answered = errors.As(err, &f)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failures[err.Error()]++
	if answered && (f.Status != 404 || len(f.Errors) > 0) {
		w.refused[err.Error()] = true
	}
	return answered
}

// progress waits until each worker has done some more rounds.
func progress(t *testing.T, when string, all []*worker) {
	t.Helper()
	before := make([]int, len(all))
	count := func(i int) int {
		all[i].mu.Lock()
		defer all[i].mu.Unlock()
		return all[i].rounds
	}
	for i := range all {
		before[i] = count(i)
	}
	ok(t, when, cluster.Poll(within(t, 30*time.Second), "the applications go on", func() error {
		for i, w := range all {
			if count(i) < before[i]+3 {
				return fmt.Errorf("%s stands still", w.name)
			}
		}
		return nil
	}))
}
