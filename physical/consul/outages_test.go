package consul_test

import (
	"testing"

	"github.com/locum-ha/locum/internal/storeserver"
	"github.com/locum-ha/locum/physical/physicaltest"
)

// outages is the harness with answers cut at once or in half, or late, by turns.
func outages(h physicaltest.Harness) physicaltest.Harness {
	faults := storeserver.AnswerFaults()
	return func(t testing.TB) physicaltest.Store {
		store := h(t)
		proxy := lastWorld.Load().proxy
		store.CutAnswers = func(n int) func() { return proxy(n).Disturb(faults) }
		return store
	}
}

// The server fails while it is used. P1 for a writer who is frozen beyond its TTL is among it.
func TestOutages(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: the outages run without it")
	}
	rounds := 1
	if storeserver.Faults() {
		rounds = 10
	}
	physicaltest.Outages(t, outages(harness(startServer(t))), rounds)
}
