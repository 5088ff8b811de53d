package locum_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locum-ha/locum"
	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical/memory"
	"github.com/locum-ha/locum/physical/raft"
)

// testNode is one node of a cluster in this process.
type testNode struct {
	*locum.Node
	t       testing.TB
	name    string
	clients string // URL of what Serve opened
	stop    context.CancelFunc
	done    chan error
}

// freePorts are addresses that nobody listens on.
func freePorts(t testing.TB, n int) []string {
	t.Helper()
	var addrs []string
	for range n {
		addrs = append(addrs, storeserver.Loopback(storeserver.FreePort(t)))
	}
	return addrs
}

// newCluster makes n nodes on raft, or on store where it is given; setup says what they are for. None runs.
func newCluster(t testing.TB, n int, store *memory.Store, setup func(*testNode)) []*testNode {
	t.Helper()
	key, dir, ports := locum.NewKey(), t.TempDir(), freePorts(t, 3*n)
	var nodes []*testNode
	for i := range n {
		name := fmt.Sprint("node-", i+1)
		c := locum.Config{
			Storage: raft.Config{Path: filepath.Join(dir, name), Performance: 3}, Key: key, NodeName: name,
			APIListen: ports[3*i], ClusterListen: ports[3*i+1], Logger: slog.New(slog.NewTextHandler(testLog{t}, nil)),
		}
		switch {
		case store != nil:
			c.Storage = store
		case i > 0:
			c.Join = []string{"http://" + ports[0], "http://" + ports[3*i]}
		}
		node, err := locum.New(c)
		if err != nil {
			t.Fatal(err)
		}
		tn := &testNode{Node: node, t: t, name: name, clients: "http://" + ports[3*i+2]}
		setup(tn)
		nodes = append(nodes, tn)
	}
	return nodes
}

// serve lets clients come to h.
func (n *testNode) serve(h http.Handler) { n.Serve(strings.TrimPrefix(n.clients, "http://"), h) }

func (n *testNode) start() {
	ctx, cancel := context.WithCancel(context.Background())
	n.stop, n.done = cancel, make(chan error, 1)
	go func() { n.done <- n.Run(ctx) }()
	n.t.Cleanup(n.end)
}

func (n *testNode) end() {
	if n.stop == nil {
		return
	}
	n.stop()
	n.stop = nil
	if err := <-n.done; err != nil {
		n.t.Errorf("%s: %v", n.name, err)
	}
}

func startAll(t testing.TB, nodes []*testNode) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, n := range nodes {
		n.start()
	}
	for _, n := range nodes {
		if err := n.Ready(ctx); err != nil {
			t.Fatalf("%s: %v", n.name, err)
		}
	}
}

// active waits for the active node.
func active(t testing.TB, nodes []*testNode) *testNode {
	t.Helper()
	var found *testNode
	until(t, func() bool {
		for _, n := range nodes {
			if n.State().Role == locum.Active {
				found = n
			}
		}
		return found != nil
	})
	return found
}

// standbys are the others.
func standbys(nodes []*testNode, active *testNode) []*testNode {
	var others []*testNode
	for _, n := range nodes {
		if n != active {
			others = append(others, n)
		}
	}
	return others
}

func until(t testing.TB, f func() bool) {
	t.Helper()
	tick, limit := time.NewTicker(5*time.Millisecond), time.After(30*time.Second)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("it did not come to that within 30 s")
		}
	}
}

type testLog struct{ t testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s %s", time.Now().Format("05.000"), bytes.TrimRight(p, "\n"))
	return len(p), nil
}

func do(t testing.TB, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// counter is a server that counts in the entries.
func counter(n *testNode) http.Handler {
	entries := locum.TableOf[int](n.Entries(), "counts")
	var mu sync.Mutex
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		count, v, err := entries.Get(r.Context(), "clicks")
		if err != nil && !errors.Is(err, locum.ErrNotFound) {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if r.Method == http.MethodPost {
			count++
			if _, err := entries.Put(r.Context(), "clicks", count, entries.If("clicks", v)); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
		fmt.Fprintf(w, "%d %s", count, n.name)
	})
}

// Issue: "a Go server should become highly available": requests at any node are run by the active one; a planned switchover
// loses none (P5); what was acknowledged is there afterwards (P3). On raft, and on a store that the nodes share.
func TestProtect(t *testing.T) {
	for name, store := range map[string]*memory.Store{"raft": nil, "shared": memory.NewStore()} {
		t.Run(name, func(t *testing.T) {
			nodes := newCluster(t, 3, store, func(n *testNode) { n.serve(counter(n)) })
			startAll(t, nodes)
			first := active(t, nodes)
			for i, n := range nodes {
				if code, body := do(t, "POST", n.clients, ""); code != 200 || body != fmt.Sprint(i+1, " ", first.name) {
					t.Fatalf("%s: %d %s", n.name, code, body)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			var sent atomic.Int64
			for _, n := range nodes {
				wg.Go(func() {
					for ctx.Err() == nil {
						if code, body := do(t, "POST", n.clients, ""); code != 200 {
							t.Errorf("%s: %d %s", n.name, code, body)
						}
						sent.Add(1)
					}
				})
			}
			until(t, func() bool { return sent.Load() > 20 })
			if err := first.StepDown(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
			second := active(t, standbys(nodes, first))
			after := sent.Load()
			until(t, func() bool { return sent.Load() > after+20 })
			cancel()
			wg.Wait()
			if code, body := do(t, "GET", first.clients, ""); code != 200 || body != fmt.Sprint(3+sent.Load(), " ", second.name) {
				t.Fatalf("%d requests were acknowledged: %d %s", 3+sent.Load(), code, body)
			}
		})
	}
}

// What no client may do through the program's port: reach Locum's API, or say which handler it means.
func TestProtectedPortIsNotTheAPI(t *testing.T) {
	nodes := newCluster(t, 2, nil, func(n *testNode) { n.serve(http.NotFoundHandler()) })
	startAll(t, nodes)
	for _, n := range nodes {
		for _, header := range []http.Header{
			{}, {"Connection": {"Locum-Program"}, "Locum-Program": {"locks"}}, {"Locum-Program": {"locks"}}, {"X-Locum-No-Request-Forwarding": {"1"}},
		} {
			req, err := http.NewRequestWithContext(t.Context(), "POST", n.clients+"/v1/sys/step-down", strings.NewReader(`{"op":"get","Name":"a"}`))
			if err != nil {
				t.Fatal(err)
			}
			req.Header = header
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if want := map[bool]int{false: 404, true: 400}[header.Get("Connection") != ""]; resp.StatusCode != want {
				t.Errorf("%s with %v: %d", n.name, header, resp.StatusCode)
			}
		}
	}
}

// "OnActive: ctx ends with its cause when leadership or lease ends; work runs on one node only": through step-downs and an end.
func TestOnActive(t *testing.T) {
	var running, most atomic.Int32
	var mu sync.Mutex
	var terms []uint64
	nodes := newCluster(t, 3, memory.NewStore(), func(n *testNode) {
		n.OnActive(func(ctx context.Context, term uint64) error {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			mu.Lock()
			terms = append(terms, term)
			mu.Unlock()
			<-ctx.Done()
			if cause := context.Cause(ctx); !errors.Is(cause, locum.ErrSteppedDown) {
				t.Errorf("the context's cause: %v", cause)
			}
			return ctx.Err()
		})
	})
	startAll(t, nodes)
	for i := range 3 {
		until(t, func() bool { return running.Load() == 1 })
		a := active(t, nodes)
		if i == 2 {
			a.end()
			nodes = standbys(nodes, a)
		} else if err := a.StepDown(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		if a.State().Role == locum.Active {
			t.Fatal("still active")
		}
	}
	until(t, func() bool { return running.Load() == 1 })
	mu.Lock()
	defer mu.Unlock()
	for i := range terms[1:] {
		if terms[i] >= terms[i+1] {
			t.Errorf("terms do not rise: %v", terms)
		}
	}
	if most.Load() != 1 || len(terms) < 4 {
		t.Errorf("%d at a time; terms %v", most.Load(), terms)
	}
}

// "An error that f returns ends the leadership, and another node tries."
func TestWorkThatFails(t *testing.T) {
	var failures atomic.Int32
	nodes := newCluster(t, 2, memory.NewStore(), func(n *testNode) {
		n.OnActive(func(ctx context.Context, term uint64) error {
			if failures.Add(1) <= 2 {
				return errors.New("the disk is full")
			}
			<-ctx.Done()
			return nil
		})
	})
	for _, n := range nodes {
		n.start()
	}
	until(t, func() bool { return failures.Load() == 3 })
	active(t, nodes)
}

// P1, P4: what belongs to a term that is over neither reads nor writes, not even on a node that is active again.
func TestEntriesOfAnOldTerm(t *testing.T) {
	contexts := make(chan context.Context, 10)
	nodes := newCluster(t, 1, nil, func(n *testNode) {
		n.OnActive(func(ctx context.Context, _ uint64) error {
			contexts <- ctx
			<-ctx.Done()
			return errors.New("ends with the leadership")
		})
	})
	startAll(t, nodes)
	n, entries := nodes[0], nodes[0].Entries()
	old := <-contexts
	if _, err := entries.Put(old, "a/b", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if err := n.StepDown(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	now := <-contexts
	stale := context.WithoutCancel(old) // who does not notice that its context has ended
	if _, err := entries.Put(stale, "a/b", []byte("2")); !errors.Is(err, locum.ErrNotActive) {
		t.Errorf("put: %v", err)
	}
	if _, err := entries.Get(stale, "a/b"); !errors.Is(err, locum.ErrNotActive) {
		t.Errorf("get: %v", err)
	}
	if _, err := entries.List(stale, "a/", "", 0); !errors.Is(err, locum.ErrNotActive) {
		t.Errorf("list: %v", err)
	}
	for _, ctx := range []context.Context{now, t.Context()} {
		if e, err := entries.Get(ctx, "a/b"); err != nil || string(e.Value) != "1" {
			t.Errorf("get: %+v, %v", e, err)
		}
	}
}

// Entries: versions, conditions, whole commits, folders.
func TestEntries(t *testing.T) {
	nodes := newCluster(t, 1, nil, func(*testNode) {})
	startAll(t, nodes)
	ctx, e := t.Context(), nodes[0].Entries()
	first, err := e.Put(ctx, "a", []byte("1"), locum.If("a", locum.Version{}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Put(ctx, "a", nil, locum.If("a", locum.Version{})); !errors.Is(err, locum.ErrConflict) {
		t.Errorf("made twice: %v", err)
	}
	if err := e.Delete(ctx, "a", locum.If("a", first)); err != nil {
		t.Fatal(err)
	}
	again, err := e.Put(ctx, "a", []byte("1"))
	if err != nil || again == first {
		t.Fatalf("version %v again, %v", again, err)
	}
	if _, err := e.Commit(ctx, locum.Put("b/c", nil), locum.Delete("a"), locum.If("a", first)); !errors.Is(err, locum.ErrConflict) {
		t.Errorf("with the version of an entry that was deleted since: %v", err)
	}
	if _, err := e.Get(ctx, "b/c"); !errors.Is(err, locum.ErrNotFound) {
		t.Errorf("a part of a commit was written: %v", err)
	}
	if _, err := e.Commit(ctx, locum.Put("b/c", nil), locum.Put("d", []byte("4")), locum.If("a", again)); err != nil {
		t.Fatal(err)
	}
	if names, err := e.List(ctx, "", "", 0); err != nil || fmt.Sprint(names) != "[a b/ d]" {
		t.Errorf("list: %v, %v", names, err)
	}
	for _, key := range []string{"", "/", "a//b", "../core/keyring", "a/../b"} {
		if _, err := e.Put(ctx, key, nil); err == nil {
			t.Errorf("key %q was taken", key)
		}
	}
}

// Named locks: taken on any node, one holder, rising numbers, held on through the active node's end.
func TestLocks(t *testing.T) {
	nodes := newCluster(t, 3, nil, func(*testNode) {})
	startAll(t, nodes)
	a := active(t, nodes)
	others := standbys(nodes, a)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	mine, err := others[0].Locks().Acquire(ctx, "report", locum.LockOptions{TTL: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := others[1].Locks().Acquire(ctx, "report", locum.LockOptions{}); !errors.Is(err, locum.ErrHeld) || !strings.Contains(err.Error(), others[0].name) {
		t.Fatalf("a second holder: %v", err)
	}
	next := make(chan *locum.Lock, 1)
	go func() {
		l, err := others[1].Locks().Acquire(ctx, "report", locum.LockOptions{TTL: 10 * time.Second, Wait: 50 * time.Second})
		if err != nil {
			t.Error(err)
		}
		next <- l
	}()
	a.end() // the active node, under the one that holds and the one that waits
	b := active(t, others)
	if !mine.Held() || mine.Number() != 1 {
		t.Fatalf("lost by the failover: %v", context.Cause(mine.Context()))
	}
	if err := mine.Release(ctx); err != nil {
		t.Fatal(err)
	}
	if cause := context.Cause(mine.Context()); !errors.Is(cause, locum.ErrReleased) {
		t.Errorf("cause: %v", cause)
	}
	l := <-next
	if l == nil || l.Number() != 2 || !l.Held() {
		t.Fatalf("the one that waited: %+v", l)
	}
	if err := b.StepDown(ctx, ""); err != nil {
		t.Fatal(err)
	}
	if err := l.Release(ctx); err != nil {
		t.Fatal(err)
	}
}

// "Config validated with all faults at once", by the names of its fields, with what to do; secrets are not printed.
func TestConfigFaults(t *testing.T) {
	_, err := locum.New(locum.Config{
		NodeName: "a b", APIListen: "8400", CertFile: "x", Join: []string{"b:8400"}, Priority: 2000, LockTTL: time.Second,
		HoldTimeout: time.Second, Storage: raft.Config{}, LockStorage: memory.NewStore(),
	})
	if err == nil {
		t.Fatal("no fault")
	}
	for _, want := range []string{"Config.NodeName", "Config.APIListen", "Config.CertFile", "Config.Join", "Config.Priority", "Config.DrainTimeout", "Config.LockTTL", "Config.Key", "Config.LockStorage"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not among the faults:\n%v", want, err)
		}
	}
	key := locum.NewKey()
	if printed := fmt.Sprintf("%v %+v %#v", locum.Config{Key: key}, locum.Config{Key: key}, key); strings.Contains(printed, fmt.Sprintf("%x", key[:4])) || !strings.Contains(printed, "***") {
		t.Errorf("the key shows in %s", printed)
	}
}
