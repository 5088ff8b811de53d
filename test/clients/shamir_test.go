package clients

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// TestSealed brings a cluster of two nodes up by shares, all by one client: init, seal, unseal with wrong and right
// shares, and a request whose retry meets the node unsealed.
func TestSealed(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel() // they wait for the clients' pauses most of the time
			k.open(t, "http://127.0.0.1:1", "", "")
			sealed(t, k)
		})
	}
}

// shamir prepares two nodes whose seal is shares, and starts them.
func shamir(t *testing.T) *cluster.Cluster {
	t.Helper()
	if _, err := cluster.Binary(); err != nil {
		t.Fatal(err)
	}
	c, err := cluster.Prepare(cluster.Options{Nodes: 2})
	ok(t, "a cluster", err)
	t.Cleanup(func() {
		_ = c.CloseKeep()
		if t.Failed() {
			t.Logf("logs are in %s\n%s", c.Dir(), c.Tails(30))
			return
		}
		ok(t, "removal of the cluster", c.Close())
	})
	for _, n := range c.Nodes {
		path := filepath.Join(n.Dir, "locum.hcl")
		data, err := os.ReadFile(path)
		ok(t, "configuration", err)
		before, rest, found := bytes.Cut(data, []byte("seal \"static\" {"))
		_, after, ended := bytes.Cut(rest, []byte("}\n"))
		if !found || !ended {
			t.Fatalf("no static seal in\n%s", data)
		}
		ok(t, "configuration", os.WriteFile(path, append(before, after...), 0o600))
		ok(t, "start", n.Start())
	}
	for _, n := range c.Nodes {
		ok(t, "start", cluster.Poll(within(t, 20*time.Second), n.Name+" answers", func() error {
			if code := c.Health(t.Context(), n); code != http.StatusNotImplemented {
				return fmt.Errorf("health %d", code)
			}
			return nil
		}))
	}
	return c
}

func sealed(t *testing.T, k kind) {
	ctx := within(t, 40*time.Second)
	nodes := shamir(t).Nodes
	c := k.open(t, nodes[0].URL(), "", "")

	done, err := c.Initialized(ctx)
	if err != nil || done {
		t.Errorf("before init: initialised %v, %v", done, err)
	}
	if h, err := c.Health(ctx); err != nil || h.Initialized || !h.Sealed {
		t.Errorf("before init: health %+v, %v", h, err)
	}
	if st, err := c.SealStatus(ctx); err != nil || st.Initialized || !st.Sealed || st.Type != "shamir" {
		t.Errorf("before init: seal status %+v, %v", st, err)
	}
	_, err = c.Unseal(ctx, "AAAA")
	failed(t, "unseal before init", err, 400, "not initialised")
	_, _, err = c.Init(ctx, 2, 3)
	failed(t, "init with more shares needed than there are", err, 400, "secret_threshold must be")
	keys, root, err := c.Init(ctx, 3, 2)
	ok(t, "init", err)
	if len(keys) != 3 || root == "" {
		t.Fatalf("init gave %d keys, and a token: %v", len(keys), root != "")
	}

	// Locum leaves the node unsealed after init; to meet a sealed one, seal it.
	rooted := k.open(t, nodes[0].URL(), root, "")
	ok(t, "first write", errOf(rooted.Put(ctx, "first", object{"a": "b"}, 0)))
	ok(t, "seal", rooted.Seal(ctx))
	ok(t, "seal", cluster.Poll(ctx, "it is sealed", func() error { // the answer goes out before
		st, err := c.SealStatus(ctx)
		if err == nil && (!st.Initialized || !st.Sealed || st.Threshold != 2 || st.Shares != 3 || st.Progress != 0) {
			err = fmt.Errorf("seal status %+v", st)
		}
		return err
	}))
	unseal(t, c, keys)
	if e, err := rooted.Get(ctx, "first", 0); err != nil || e.Data["a"] != "b" {
		t.Errorf("read after unseal: %+v, %v", e, err)
	}

	second := k.open(t, nodes[1].URL(), root, "")
	ok(t, "the second node", cluster.Poll(ctx, "it has found the cluster", func() error {
		st, err := second.SealStatus(ctx)
		if err == nil && !st.Initialized {
			err = errors.New("not initialised")
		}
		return err
	}))
	retried(t, k, nodes[1], root, keys)
}

// unseal gives shares, wrong ones first.
func unseal(t *testing.T, c client, keys []string) {
	t.Helper()
	ctx := within(t, 20*time.Second)
	give := func(key string, progress int, sealed bool) {
		t.Helper()
		if st, err := c.Unseal(ctx, key); err != nil || st.Progress != progress || st.Sealed != sealed {
			t.Errorf("unseal: %+v, %v, want progress %d, sealed %v", st, err, progress, sealed)
		}
	}
	_, err := c.Unseal(ctx, "not a key")
	failed(t, "a share that is none", err, 400, "must be a valid hex or base64 string")
	give(keys[0], 1, true)
	if st, err := c.ResetUnseal(ctx); err != nil || st.Progress != 0 {
		t.Errorf("reset: %+v, %v", st, err)
	}
	give(keys[1], 1, true)
	give(keys[2], 0, false)
	give(keys[0], 0, false) // one too many does no harm
}

// recorder is a proxy before a node that notes what went through it.
type recorder struct {
	url string

	mu       sync.Mutex
	statuses []int
	times    []time.Time
	first    chan struct{} // closed with the first answer
}

func record(t *testing.T, n *cluster.Node) *recorder {
	t.Helper()
	target, err := url.Parse(n.URL())
	ok(t, "address", err)
	r := &recorder{first: make(chan struct{})}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(target) },
		ModifyResponse: func(response *http.Response) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.statuses = append(r.statuses, response.StatusCode)
			r.times = append(r.times, time.Now())
			if len(r.statuses) == 1 {
				close(r.first)
			}
			return nil
		},
	}
	r.url = serve(t, proxy)
	return r
}

// retried sends a request to a sealed node, and unseals it when it has refused it once: a client that tries again
// by itself gets its answer, and waits for as long as Retry-After says; the other one gets the error with its sentence.
func retried(t *testing.T, k kind, n *cluster.Node, root string, keys []string) {
	ctx := within(t, 20*time.Second)
	r := record(t, n)
	type outcome struct {
		e   entry
		err error
	}
	got := make(chan outcome, 1)
	c := k.open(t, r.url, root, "")
	go func() {
		e, err := c.Get(ctx, "first", 0)
		got <- outcome{e, err}
	}()
	select {
	case <-r.first:
	case <-ctx.Done():
		t.Fatal("no answer")
	}
	direct := k.open(t, n.URL(), root, "")
	for _, key := range keys[:2] {
		_, err := direct.Unseal(ctx, key)
		ok(t, "unseal of the second node", err)
	}
	result := <-got
	if !k.retries {
		failed(t, "read at a sealed node", result.err, 503, "node is sealed")
		e, err := c.Get(ctx, "first", 0)
		if err != nil || e.Data["a"] != "b" {
			t.Errorf("read through the second node: %+v, %v", e, err)
		}
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if result.err != nil || result.e.Data["a"] != "b" || len(r.statuses) != 2 || r.statuses[0] != 503 || r.statuses[1] != 200 {
		t.Errorf("read at a node that is unsealed meanwhile: %+v, %v, answers %v", result.e, result.err, r.statuses)
	} else if wait := r.times[1].Sub(r.times[0]); wait < time.Second {
		t.Errorf("tried again after %v, before Retry-After was over", wait)
	}
}
