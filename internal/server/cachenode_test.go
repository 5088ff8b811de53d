package server

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/locum-ha/locum/cache"
	"github.com/locum-ha/locum/internal/config"
)

// TestCacheNodeLingers: a node that is a cache and nothing else says 503 on /ready first, and goes on for CACHE_SHUTDOWN_DELAY: a load
// balancer that has not noticed yet finds it there (issue 6: a rolling restart is not noticed).
func TestCacheNodeLingers(t *testing.T) {
	beside, err := config.CacheFromEnvironment(func(name string) (string, bool) {
		value, ok := map[string]string{"CACHE_API_ADDRESS": "127.0.0.1:0", "CACHE_RESP_ADDRESS": "off", "CACHE_SHUTDOWN_DELAY": "10m"}[name]
		return value, ok
	})
	if err != nil {
		t.Fatal(err)
	}
	listens := make(chan struct{})
	n, err := NewCacheNode(&cache.Environment{}, beside, Options{Ready: func() { close(listens) }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	skip, hurry := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx, skip) }()
	await := func(status int) {
		t.Helper()
		ticker := time.NewTicker(10 * time.Millisecond)
		defer ticker.Stop()
		var last error
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); <-ticker.C {
			var resp *http.Response
			if resp, last = http.Get("http://" + n.listener.Addr().String() + "/v1/sys/ready"); last == nil {
				_ = resp.Body.Close()
				if resp.StatusCode == status {
					return
				}
			}
		}
		t.Fatalf("ready did not answer %d; %v", status, last)
	}
	select {
	case <-listens:
	case err := <-done:
		t.Fatal(err)
	}
	await(http.StatusOK)
	end()
	await(http.StatusServiceUnavailable)
	if health := n.part.node.Health(); health.Status != cache.Good {
		t.Errorf("the cache is not there any more: %+v", health)
	}
	hurry()
	if err := <-done; err != nil && !errors.Is(err, context.Canceled) { // which says that a connection was still in use
		t.Error(err)
	}
}
