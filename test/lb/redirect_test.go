package lb

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/locum-ha/locum/test/cluster"
)

// All nodes redirect, and to the load balancer: its address is the api_addr of each. A load balancer that does not know
// who is active would send a client round for ever; a node notices the second lap and answers. One that asks
// /v1/sys/active sends nobody round.
func TestRedirectToTheLoadBalancer(t *testing.T) {
	found := installed(t)
	keys := newCertificates(t)
	var random [2]byte
	_, _ = rand.Read(random[:])
	address := fmt.Sprintf("127.%d.%d.250:8443", 1+random[0]%250, random[1])
	t.Setenv("VAULT_API_ADDR", "https://"+address) // stronger than what the nodes' files say
	c := cluster.New(t, cluster.Options{Extra: withTLS(keys, "forwarding {\n  mode = \"redirect\"\n}\n")})
	for _, kind := range found {
		t.Run(kind+"/ready", func(t *testing.T) {
			b := start(t, kind, "ready", address, keys, c.Nodes)
			defer b.stop(t)
			rounds(t, c, b, keys)
		})
		t.Run(kind+"/active", func(t *testing.T) {
			b := start(t, kind, "active", address, keys, c.Nodes)
			defer b.stop(t)
			direct(t, c, b, keys)
			ctx := within(t, 20*time.Second)
			active, err := c.WaitActive(ctx)
			ok(t, "an active node", err)
			ok(t, "step-down", c.Call(ctx, active, http.MethodPost, "/v1/sys/step-down", nil, nil))
			_, err = c.WaitActive(ctx, active)
			ok(t, "another active node", err)
			direct(t, c, b, keys)
		})
	}
}

// rounds sends requests through a load balancer that sends them to any node: each ends in the active node's answer or,
// after one lap and a standby again, in a 503 that says that nothing was done.
func rounds(t *testing.T, c *cluster.Cluster, b *balancer, keys *certificates) {
	t.Helper()
	ctx := within(t, 20*time.Second)
	served, refused, lapped := 0, 0, 0
	for asked := 0; asked < 12 || lapped+refused == 0; asked++ {
		a := ask(ctx, keys.client(), http.MethodGet, b.url+"/v1/sys/key-status?a=b", c.Token, "")
		switch {
		case a.err != nil:
			t.Fatalf("%s: %v", b.name(), a)
		case len(a.redirects) > 1:
			t.Fatalf("%s: sent round %d times: %v", b.name(), len(a.redirects), a.redirects)
		case len(a.redirects) == 1 && a.redirects[0] != b.url+"/v1/sys/key-status?a=b&_locum_lap=1":
			t.Fatalf("%s: redirected to %v", b.name(), a.redirects)
		case a.status == http.StatusOK && len(a.redirects) == 1:
			lapped++
		case a.status == http.StatusOK:
			served++
		case a.status == http.StatusServiceUnavailable && strings.Contains(a.body, `"processed":"no"`) && strings.Contains(a.body, "api_addr"):
			refused++
		default:
			t.Fatalf("%s: %v", b.name(), a)
		}
	}
	t.Logf("%s: served at once %d, after one lap %d, refused after one lap %d", b.name(), served, lapped, refused)
}

// direct waits until the load balancer has found the active node, and then no client is sent anywhere.
func direct(t *testing.T, c *cluster.Cluster, b *balancer, keys *certificates) {
	t.Helper()
	ctx := within(t, 20*time.Second)
	good := 0
	ok(t, b.name(), cluster.Poll(ctx, "requests go to the active node at once", func() error {
		a := ask(ctx, keys.client(), http.MethodGet, b.url+"/v1/sys/key-status", c.Token, "")
		if a.err != nil || a.status != http.StatusOK && a.status != http.StatusServiceUnavailable {
			t.Fatalf("%s: %v", b.name(), a)
		}
		if good++; a.status != http.StatusOK || len(a.redirects) > 0 {
			good = 0
		}
		if good < 20 {
			return fmt.Errorf("%d in a row, the last: %v, redirects %v", good, a, a.redirects)
		}
		return nil
	}))
}
