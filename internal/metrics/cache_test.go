package metrics

import (
	"context"
	"testing"
	"time"

	"github.com/locum-ha/locum/cache"
)

// What docs/cache.md names can be scraped, and moves (issue 6, 9).
func TestCache(t *testing.T) {
	m := New("test")
	var node *cache.Node
	observer, clients := m.Cache(func() *cache.Node { return node })
	wants(t, scrape(t, m), `locum_cache_elections_total 0`) // before there is a node
	var err error
	if node, err = cache.New(cache.Config{Observer: observer}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for health, changed := node.HealthChanges(); health.Status != cache.Good; health, changed = node.HealthChanges() {
		<-changed
	}
	c := node.Cache("codes")
	if _, err := c.Put(ctx, "k", []byte("value"), cache.NoExpiry, cache.Quorum); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"k", "k", "none"} {
		_, _ = c.Get(ctx, key, cache.Local) // the third is a miss
	}
	observer.Elected(7)
	observer.Transfer(true, 10, 1000, time.Second)
	observer.Emptied("no quorum")
	clients.Connected(3)
	clients.Refused("auth")
	wants(t, scrape(t, m),
		`locum_cache_status 2`, `locum_cache_is_leader 1`, `locum_cache_hosts{state="configured"} 1`, `locum_cache_hosts{state="connected"} 1`,
		`locum_cache_reads_total{hit="true"} 2`, `locum_cache_reads_total{hit="false"} 1`, `locum_cache_entries{cache="codes"} 1`,
		`locum_cache_write_seconds_count{done="true",level="quorum"} 1`, `locum_cache_elections_total 1`, `locum_cache_emptied_total 1`,
		`locum_cache_transfer_seconds_count{direction="received"} 1`, `locum_cache_resp_clients 3`, `locum_cache_resp_closed_total{why="auth"} 1`,
		`locum_cache_evictions_total{cache="codes"} 0`, `locum_cache_expired_total{cache="codes"} 0`,
	)
}
