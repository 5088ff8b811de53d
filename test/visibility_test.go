package test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
	"github.com/locum-ha/locum/test/fault"
)

// P4: what was written at any node is read at once at any other.
func TestReadYourWrites(t *testing.T) {
	c := cluster.New(t, cluster.Options{})
	n := 1500
	if *long {
		n = 10000
	}
	old, err := fault.ReadYourWrites(within(t, 3*time.Minute), c, n)
	if err != nil {
		t.Fatal(err)
	}
	if old != 0 {
		t.Errorf("%d of %d reads were old", old, n)
	}
}

// statusPaths are interfaces.md §4's.
var statusPaths = []string{
	"/v1/sys/health?standbyok=true&haunhealthycode=200", "/v1/sys/leader", "/v1/sys/seal-status", "/v1/sys/live", "/v1/sys/ready",
	"/v1/sys/active", "/v1/sys/standby", "/v1/system/leader", "/v1/sys/init", "/v1/sys/metrics",
}

// mayBe503 is what a node answers so as its role, and what it knows of the others, is.
var mayBe503 = map[string]bool{"/v1/sys/ready": true, "/v1/sys/active": true, "/v1/sys/standby": true}

// P10: status paths answer from memory, at once, on every node, under load and while the active node is frozen.
func TestStatusNeverHangs(t *testing.T) {
	c := cluster.New(t, cluster.Options{})
	ctx, cancel := context.WithCancel(within(t, time.Minute))
	defer cancel()
	active, _ := findActive(t, c)
	var wg sync.WaitGroup
	for _, n := range c.Nodes {
		if n == active {
			continue
		}
		wg.Go(func() {
			var speed quick
			for i := 0; ctx.Err() == nil; i++ {
				path := statusPaths[i%len(statusPaths)]
				call, cancel := context.WithTimeout(ctx, 5*time.Second)
				start := time.Now()
				err := c.Call(call, n, http.MethodGet, path, nil, nil)
				if status := (*cluster.StatusError)(nil); errors.As(err, &status) && mayBe503[path] && status.Code == http.StatusServiceUnavailable {
					err = nil
				}
				if took := time.Since(start); ctx.Err() == nil && (err != nil || !speed.enough(took)) {
					t.Errorf("%s of %s: %v after %v", path, n.Name, err, took)
				}
				cancel()
				after(ctx, 5*time.Millisecond)
			}
		})
	}
	if err := active.Freeze(); err != nil {
		t.Error(err)
	}
	after(ctx, 4*time.Second)
	if err := active.Wake(); err != nil {
		t.Error(err)
	}
	after(ctx, time.Second)
	cancel()
	wg.Wait()
}

// Each node tells a client that asks not to be forwarded where the active one is, path and query intact.
func TestRedirectOnRequest(t *testing.T) {
	c := cluster.New(t, cluster.Options{})
	ctx := within(t, 30*time.Second)
	active, _ := findActive(t, c)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for _, n := range c.Nodes {
		if n == active {
			continue
		}
		for _, header := range []string{"X-Locum-No-Request-Forwarding", "X-Vault-No-Request-Forwarding"} {
			target := "/v1/secret/data/a%2Fb//c?x=1&y=%20"
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL()+target, nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set(header, "true")
			response, err := client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			want := fmt.Sprint(http.StatusTemporaryRedirect, " ", active.URL()+target)
			if got := fmt.Sprint(response.StatusCode, " ", response.Header.Get("Location")); got != want {
				t.Errorf("%s at %s: %s, want %s", header, n.Name, got, want)
			}
		}
	}
}
