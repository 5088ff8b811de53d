package lb

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// Every load balancer, with every probe, in front of one cluster in forwarding mode: they choose the nodes that they
// should, and their clients see nothing of a step-down (P5) and only what was at the killed node itself of a kill (P6).
func TestForwarding(t *testing.T) {
	found := installed(t)
	keys := newCertificates(t)
	c := cluster.New(t, cluster.Options{Performance: "3", Extra: withTLS(keys, "")})
	ctx := within(t, 2*time.Minute)
	var all []*balancer
	for _, kind := range found {
		for _, probe := range []string{"ready", "active"} {
			address := besides(c, 200+len(all)) + ":8443"
			all = append(all, start(t, kind, probe, address, keys, c.Nodes))
		}
	}
	active, err := c.WaitActive(ctx)
	ok(t, "an active node", err)
	for _, b := range all {
		chosen(t, c, b, keys, active)
	}

	var workers []*worker
	for _, b := range all {
		for range 2 {
			workers = append(workers, begin(t, c, b, keys))
		}
	}
	everyone(t, "at first", workers, 20)
	ok(t, "step-down", c.Call(ctx, active, http.MethodPost, "/v1/sys/step-down", nil, nil))
	second, err := c.WaitActive(ctx, active)
	ok(t, "another active node", err)
	everyone(t, "after the step-down", workers, 20)
	for _, w := range workers {
		if failed := w.failed(); len(failed) > 0 {
			t.Errorf("%s: a step-down costs no request, but: %v", w.name, failed)
		}
		w.forgive()
	}

	second.Kill()
	_, err = c.WaitActive(ctx, second)
	ok(t, "another active node", err)
	everyone(t, "after the kill", workers, 20)
	for _, w := range workers {
		w.stop()
		failed := w.failed()
		for _, f := range failed {
			// HAProxy and nginx say so themselves for what was on a connection to the killed node. On a connection that
			// has served before, HAProxy says nothing and closes the client's, as RFC 9112 §9.3.1 has it.
			if !strings.Contains(f, `"processed":"unknown"`) && !(strings.HasPrefix(w.name, "haproxy") && strings.HasSuffix(f, "EOF")) {
				t.Errorf("%s: %s", w.name, f)
			}
		}
		if len(failed) > 2 {
			t.Errorf("%s: %d requests failed, but it has one at a time: %v", w.name, len(failed), failed)
		}
	}
	third, err := c.WaitActive(ctx, second)
	ok(t, "an active node", err)
	for _, b := range all {
		chosen(t, c, b, keys, third)
	}
}

// chosen checks where a load balancer sends requests: to the active node only, or to every node that runs.
func chosen(t *testing.T, c *cluster.Cluster, b *balancer, keys *certificates, active *cluster.Node) {
	t.Helper()
	ctx := within(t, 20*time.Second)
	var want []string
	for _, n := range c.Nodes {
		if n.Running() && (n == active || b.probe == "ready") {
			want = append(want, n.Name)
		}
	}
	// Until the health checks have seen the last change, what they choose may be of before.
	ok(t, b.name(), cluster.Poll(ctx, "it chooses the right nodes", func() error {
		var entered []string
		for range 12 {
			a := ask(ctx, keys.client(), http.MethodGet, b.url+"/v1/sys/key-status", c.Token, "")
			if a.err != nil || a.status != http.StatusOK || a.node != active.Name {
				return fmt.Errorf("%v, by %q", a, a.node)
			}
			if a.via == "" {
				a.via = a.node
			}
			if !slices.Contains(entered, a.via) {
				entered = append(entered, a.via)
			}
		}
		if slices.Sort(entered); !slices.Equal(entered, want) {
			return fmt.Errorf("requests come in at %v, want %v", entered, want)
		}
		return nil
	}))
}

// pace is how often a worker begins a round. What is tested is not the speed of a handshake on shared cores.
const pace = 50 * time.Millisecond

// worker writes an entry and reads it, over and over, and does not retry.
type worker struct {
	name    string
	rounds  atomic.Int64
	mu      sync.Mutex
	failure []string
	quit    chan struct{}
	ended   sync.WaitGroup
	once    sync.Once
}

func begin(t *testing.T, c *cluster.Cluster, b *balancer, keys *certificates) *worker {
	w := &worker{name: b.name(), quit: make(chan struct{})}
	ctx, client := within(t, 2*time.Minute), keys.keepAlive()
	url := fmt.Sprintf("%s/v1/secret/data/%s-%p", b.url, b.kind, w)
	w.ended.Go(func() {
		defer client.CloseIdleConnections()
		tick := time.NewTicker(pace)
		defer tick.Stop()
		acknowledged := ""
		for i := 0; ; i++ {
			select {
			case <-w.quit:
				return
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			value := fmt.Sprintf("value-%d", i)
			a := ask(ctx, client, http.MethodPost, url, c.Token, fmt.Sprintf(`{"data":{"v":%q}}`, value))
			if a.err != nil || a.status != http.StatusOK {
				w.fail("write: " + a.String())
				acknowledged = "" // it may or may not have been written
			} else {
				acknowledged = value
			}
			a = ask(ctx, client, http.MethodGet, url, c.Token, "")
			switch {
			case a.err != nil || a.status != http.StatusOK && acknowledged != "":
				w.fail("read: " + a.String())
			case acknowledged != "" && !strings.Contains(a.body, `"`+acknowledged+`"`):
				w.fail("P3: " + acknowledged + " is not in " + a.body)
			}
			w.rounds.Add(1)
		}
	})
	t.Cleanup(w.stop)
	return w
}

func (w *worker) stop() {
	w.once.Do(func() { close(w.quit) })
	w.ended.Wait()
}

func (w *worker) fail(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failure = append(w.failure, what)
}

func (w *worker) failed() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.failure)
}

func (w *worker) forgive() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failure = nil
}

// everyone waits until every worker has made so many rounds more.
func everyone(t *testing.T, when string, workers []*worker, rounds int64) {
	t.Helper()
	ctx := within(t, 30*time.Second)
	goals := make([]int64, len(workers))
	for i, w := range workers {
		goals[i] = w.rounds.Load() + rounds
	}
	for i, w := range workers {
		ok(t, w.name, cluster.Poll(ctx, "it goes on "+when, func() error {
			if n := w.rounds.Load(); n < goals[i] {
				return fmt.Errorf("%d rounds of %d, %v", n, goals[i], w.failed())
			}
			return nil
		}))
	}
}

// besides is another address of the range in which the cluster's nodes are.
func besides(c *cluster.Cluster, last int) string {
	ip := c.Nodes[0].IP
	return fmt.Sprintf("%s.%d", ip[:strings.LastIndexByte(ip, '.')], last)
}
